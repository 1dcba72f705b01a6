"""The HTTP protocol with an end to its patience: a request's head that never ends is answered 431 and dropped.

httptools keeps the line it reads until it is whole, however long it gets; heads that end are judged by
`service.middleware`. What cannot be read as HTTP is answered with a problem, too. Where it is full inside
(`service.doors.turnstile`), a request is answered here and now, and nothing is made of it.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.doors.turnstile import NAME, Turnstile
from service.problems import MEDIA_TYPE, problem_body
from service.turn import Line

MAX_HEAD_BYTES = 64 * 1024
"""Of request line and headers together, as in most servers before this one."""
HEAD_S = 20.0
"""From connecting, or a head's first byte, to its last; between requests the server's keep-alive counts."""
LINE = "isrf.line"
"""Where a request's scope has the caller's connection, among the extensions."""
SWALLOWED_BYTES = 64 * 1024
"""Of the body of a request that was turned away: with more than that to come its connection is closed."""
TOO_LARGE = f"Request line and headers have more than {MAX_HEAD_BYTES} bytes."


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, for uvicorn's `http` option."""

    _in_head = True
    _head_bytes = 0

    _late: asyncio.TimerHandle | None = None
    _turned_away = False
    """Whether what comes in is the body of a request that was answered already."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._line = Line()
        # None for an app without one.
        self._turnstile: Turnstile | None = self.app_state.get(NAME)
        self._whole_app = self.app
        super().connection_made(transport)  # type: ignore[arg-type]
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._line.cut = True
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        began_before = self._in_head
        super().data_received(data)
        if not self._in_head:
            self._head_bytes = 0
        elif began_before:
            # What came with the end of the message before it is not counted: the bound is this and one read more.
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self._refuse(431, "request.head_too_large", TOO_LARGE)

    def on_message_begin(self) -> None:
        self._in_head = True
        if self._late is None:
            self._expect_head()
        super().on_message_begin()
        self.scope["extensions"] = {LINE: self._line}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._expect_nothing()
        turnstile = self._turnstile
        # Who sends a request before the last one is answered is answered in order.
        if turnstile is not None and (self.cycle is None or self.cycle.response_complete):
            method = self.parser.get_method()
            plain = method != b"HEAD" and not self.parser.should_upgrade()
            if plain and turnstile.refuses(method, self.url, len(self.tasks)):
                self._turn_away(turnstile, method)
                return
            self.app = turnstile.counting(method, self.url, self._whole_app)
        else:
            self.app = self._whole_app
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._turned_away:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._turned_away:
            super().on_message_complete()
            return
        self._turned_away = False
        self._wait_for_the_next()

    def _turn_away(self, turnstile: Turnstile, method: bytes) -> None:
        lines = [(name, value) for name, value in self.server_state.default_headers if name != b"connection"]
        goes_on = self._can_go_on()
        if not goes_on:
            lines.append((b"connection", b"close"))
        self.transport.write(turnstile.refusal(method, self.headers, *lines))
        self.server_state.total_requests += 1
        self._turned_away = True
        if goes_on:
            self._wait_for_the_next()
        else:
            self.transport.close()

    def _can_go_on(self) -> bool:
        """Whether the connection can be used again when the body, if there is one, has come."""
        if self.expect_100_continue or self.parser.get_http_version() == "1.0" or not self.parser.should_keep_alive():
            return False
        headers = dict(self.headers)
        length = headers.get(b"content-length", b"0")
        small = length.isdigit() and int(length) <= SWALLOWED_BYTES and b"transfer-encoding" not in headers
        return small and (b"connection", b"close") not in self.server_state.default_headers

    def _wait_for_the_next(self) -> None:
        self._unset_keepalive_if_required()
        if not self.transport.is_closing():
            patience = self.timeout_keep_alive
            self.timeout_keep_alive_task = self.loop.call_later(patience, self.timeout_keep_alive_handler)

    def _expect_head(self) -> None:
        self._late = self.loop.call_later(HEAD_S, self._head_is_late)

    def _expect_nothing(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _head_is_late(self) -> None:
        self._late = None
        if not self.transport.is_closing():
            self._refuse(408, "http.slow_head", f"A request's head has {HEAD_S:.0f} seconds to arrive.")

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "http.malformed", msg)

    def _refuse(self, status: int, code: str, detail: str) -> None:
        body = problem_body(status, code, detail, request_id="")
        head = f"HTTP/1.1 {status} Refused\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()
