"""uvicorn's HTTP protocol with limits: it answers slow, endless or malformed requests with a problem, and closes.

A request's head has limits of size and time; chunk lines and trailers count towards its size. A caller who does not
read answers is disconnected. Bytes that are not HTTP get a problem. It refuses requests under overload.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.inference.admission import Arrival
from service.inference.deadline import CallerConnection
from service.server.bodies import declares_body
from service.server.load_shedding import NAME, NOBODY, LoadShedder
from service.server.protocol.connection_limit import make_room
from service.server.protocol.head_checks import HEAD_TOO_LARGE, head_problem
from service.server.protocol.overhead import Overhead
from service.server.protocol.pipelining import PipelinedProtocol
from service.server.protocol.refusals import refusal_bytes
from service.server.protocol.request_connection import CALLER, CALLER_CONNECTION, CONNECTION, RequestConnection
from service.server.protocol.transport import BoundedTransport
from service.server.protocol.unread_body import UnreadBody, is_small

KEEP_ALIVE_S = 75
"""Longer than common proxies keep an idle connection, so that none sends a request into a closing one."""
HEAD_S = 20.0
"""Time limit of a head, from the connection or its first byte; between requests the keep-alive applies."""
_BETWEEN, _HEAD, _BODY = range(3)


class HttpProtocol(PipelinedProtocol):
    """uvicorn's protocol, for uvicorn's `http` option."""

    transport: BoundedTransport
    max_connections: int | None = None
    """None: the limit of the process (`service.server.protocol.connection_limit`)."""
    idle_since: float | None = None
    """Since when the connection has no request in progress; None while it has one."""
    unread_since: float | None = None
    """Since when its caller has not read enough of the answers; None where nothing waits to be read."""

    _phase = _BETWEEN
    _skips = False
    """Whether incoming bytes belong to a request that is already answered."""
    _head_timer: asyncio.TimerHandle | None = None
    _final_refusal: bytes | None = None
    """The refusal of unreadable bytes, sent after the answers before it; then nothing more is read."""
    _reading_stopped = False
    _answering: RequestResponseCycle | None = None
    """The request that is being answered, or the last one; `cycle` is the one that arrived last."""
    _task: asyncio.Task[None] | None = None
    """The task of `_answering`, while it runs."""
    _counted = False
    """Whether `_answering` counts as in progress (`service.inference.admission`)."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._caller_connection, self._overhead = CallerConnection(), Overhead()
        self._load_shedder: LoadShedder | None = self.app_state.get(NAME)  # None for an app without one
        self._whole_app = self.app
        bounded = BoundedTransport(transport, self.loop, self._is_receiving)  # type: ignore[arg-type]
        self._unread_body = UnreadBody(self.loop, bounded.close)
        super().connection_made(bounded)
        self.idle_since = self.loop.time()
        self._expect_head()
        if not make_room(self.connections, self.max_connections, self):
            self._refuse(
                503, "overload.refused", "The service has reached its limit of connections.", fix="Try again later."
            )

    def connection_lost(self, exc: Exception | None) -> None:
        self._caller_connection.is_closed = True
        self._expect_nothing()
        self._unread_body.end()
        self.transport.lost()
        self.pipeline.clear()
        # The base class only tells the request that arrived last; here the one that is being answered.
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.watch()
        self.unread_since = self.loop.time()
        self._update_unread()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.unread_since = None
        self._update_unread()
        if self._reading_stopped:
            self._reading_stopped = False
            self.flow.resume_reading()

    def _update_unread(self) -> None:
        if self._load_shedder is not None:
            waits = self._counted and self._task is not None and self.flow.write_paused
            unread = self._load_shedder.admission.unread
            (unread.add if waits else unread.discard)(self)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            self.transport.discard(len(data))
        elif self._final_refusal is not None:
            self.flow.pause_reading()
        else:
            super().data_received(data)

    def is_over(self) -> bool:
        return self._final_refusal is not None or super().is_over()

    def read_piece(self, piece: bytes) -> None:
        self._overhead.begin_piece()
        super().read_piece(piece)
        if self.transport.is_closing() or self._final_refusal is not None:
            return
        if self._phase != _BETWEEN:
            if self._overhead.is_too_much(len(piece)):
                self._refuse(*HEAD_TOO_LARGE)
        elif not self._is_busy() and self._head_timer is None and self.timeout_keep_alive_task is None:
            # Blank lines between requests do not count as a request.
            self._wait_for_the_next()

    def on_message_begin(self) -> None:
        self._phase, self._skips = _HEAD, False
        self._overhead.begin_message()
        if self._head_timer is None:
            self._expect_head()
        super().on_message_begin()
        self._extensions: dict[str, Any] = {CALLER_CONNECTION: self._caller_connection}
        self.scope["extensions"] = self._extensions

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers are ignored: the request has already begun without them.
        if self._phase == _HEAD:
            # Blanks around a value are not part of it (RFC 9110, 5.5); the parser keeps those after it.
            super().on_header(name, value.strip(b" \t"))

    def on_headers_complete(self) -> None:
        self._phase = _BODY
        self._expect_nothing()
        has_body = declares_body(self.headers)
        if self.is_over() or self._refuses_head(has_body):
            self._skips = True
            return
        busy, load_shedder, self.app = self._is_busy(), self._load_shedder, self._whole_app
        if not busy:
            self.idle_since = None
        at_wire = NOBODY if load_shedder is None else load_shedder.caller(self.url, self.headers, self.client)
        self._extensions[CALLER] = at_wire
        # A pipelined request is not shed: it waits for the answers before it.
        if load_shedder is not None and not busy:
            method = self.parser.get_method()
            arrival, call = load_shedder.asked(method, self.url, at_wire.name)
            plain = method != b"HEAD" and not self.parser.should_upgrade()
            if plain and not load_shedder.admission.admits(arrival, call):
                self._turn_away(load_shedder, method)
                return
            if not has_body:
                self.app = load_shedder.counting(call, self._whole_app)
        super().on_headers_complete()
        if self.transport.is_closing():
            self._skips = True
        else:
            self._extensions[CONNECTION] = RequestConnection(self.flow, self.cycle)
            if self.parser.should_upgrade():
                # The parser reads nothing after an upgrade, and the service has no other protocol.
                self.cycle.keep_alive = False

    def on_chunk_header(self) -> None:
        self._overhead.add_chunk()

    def on_body(self, body: bytes) -> None:
        self._overhead.add_body(len(body))
        if self._skips or self.cycle.response_complete:
            self._unread_body.count(len(body))
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._phase = _BETWEEN
        answered = self._skips or self.cycle.response_complete
        self._skips = False
        if not answered:
            super().on_message_complete()
        elif not self.transport.is_closing() and self._final_refusal is None:
            self._unread_body.end()
            self._wait_for_the_next()

    def on_response_complete(self) -> None:
        another = bool(self.pipeline)
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if another:
            self.next_has_begun()
        elif self._final_refusal is not None:
            self._send_final_refusal()
        elif self._phase == _BODY:
            self._discard_unread_body()
        else:
            self.idle_since = self.loop.time()
            self.read_on()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        if self._load_shedder is not None:
            caller = cast("dict[str, Any]", cycle.scope["extensions"])[CALLER].name
            self._counted = self._load_shedder.arrival(cycle.scope["path"], caller) is Arrival.KNOWN
            self._load_shedder.admission.begins(known=self._counted)
        self._task = self.loop.create_task(cycle.run_asgi(app))
        self._task.add_done_callback(partial(self._is_done, self._counted))
        self.tasks.add(self._task)
        self._update_unread()

    def _is_done(self, counted: bool, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if self._load_shedder is not None:
            self._load_shedder.admission.ends(known=counted)
        if task is self._task:
            self._task = None
            self._update_unread()

    def close_for_another(self) -> None:
        """Closes a connection that is idle, or whose caller does not read."""
        unread, self.idle_since, self.unread_since = self.unread_since is not None, None, None
        if self._phase == _BETWEEN and not unread:
            self.transport.close()
        else:
            self.transport.abort()

    def _is_busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _is_receiving(self) -> bool:
        """Whether the caller is still sending a message."""
        return self._phase != _BETWEEN

    def _refuses_head(self, has_body: bool) -> bool:
        """Refuses an invalid head; returns whether it did."""
        upgrades, version = self.parser.should_upgrade(), self.parser.get_http_version()
        problem = head_problem(self.url, self.headers, version, has_body=has_body, upgrades=upgrades)
        if problem is not None:
            self._refuse(*problem)
        return problem is not None

    def _turn_away(self, load_shedder: LoadShedder, method: bytes) -> None:
        lines = self._default_headers()
        goes_on = self._can_go_on()
        if not goes_on:
            lines.append((b"connection", b"close"))
        self.transport.write(load_shedder.refusal(method, self.headers, *lines))
        self.server_state.total_requests += 1
        self._skips = True
        if goes_on:
            self._discard_unread_body()
            if self.flow.write_paused:
                # A caller who does not read refusals must not cause more of them.
                self._reading_stopped = True
                self.flow.pause_reading()
        else:
            self.transport.close()

    def _can_go_on(self) -> bool:
        """Whether the connection can be reused after the body, if there is one."""
        if self.expect_100_continue or self.parser.get_http_version() == "1.0" or not self.parser.should_keep_alive():
            return False
        return is_small(self.headers) and (b"connection", b"close") not in self.server_state.default_headers

    def _wait_for_the_next(self) -> None:
        self._unset_keepalive_if_required()
        if self.idle_since is None:
            self.idle_since = self.loop.time()
        if not self.transport.is_closing():
            later = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
            self.timeout_keep_alive_task = later

    def _discard_unread_body(self) -> None:
        """Waits a short time for the rest of an unread body, and drops it."""
        self.idle_since = self.loop.time()
        self._unset_keepalive_if_required()
        self._unread_body.begin()

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_S, self._head_is_late)

    def _expect_nothing(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._phase == _BETWEEN:
            # Browsers open connections ahead of use: they would take an unasked answer for that to their next request.
            self.transport.close()
        elif not self.transport.is_closing():
            self._refuse(408, "http.slow_head", f"A request's head has {HEAD_S:.0f} seconds to arrive.")

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "http.malformed", msg)

    def _refuse(self, status: int, code: str, detail: str, fix: str = "Send a valid HTTP/1.1 request.") -> None:
        """Answers unreadable bytes with a problem, after the answers before it, and closes the connection."""
        if self.transport.is_closing() or self._final_refusal is not None:
            return
        headers: Sequence[tuple[bytes, bytes]] = () if self._phase == _BETWEEN else self.headers
        self._final_refusal = refusal_bytes(
            status, code, detail, fix=fix, headers=headers, more=self._default_headers()
        )
        if self._load_shedder is not None:
            self._load_shedder.count_refusal(status, code)
        if not self._is_busy():
            self._send_final_refusal()
        elif self._phase == _BODY and not self._skips and self.cycle.more_body:
            self._give_up_message()
        else:
            self.flow.pause_reading()

    def _default_headers(self) -> list[tuple[bytes, bytes]]:
        """Returns the headers of every answer, without `Connection`."""
        return [line for line in self.server_state.default_headers if line[0] != b"connection"]

    def _give_up_message(self) -> None:
        """Ends the request of a refused message, in progress or waiting: its app must not wait for the rest."""
        cycle = self.cycle
        waiting = [request for request, _ in self.pipeline]
        if cycle in waiting:
            del self.pipeline[waiting.index(cycle)]
            self.flow.pause_reading()
            return
        cycle.disconnected = True
        cycle.message_event.set()
        if cycle.response_started:
            self.transport.close()
        else:
            self._send_final_refusal()

    def _send_final_refusal(self) -> None:
        assert self._final_refusal is not None
        self.transport.write(self._final_refusal)
        self.server_state.total_requests += 1
        self._skips = True
        self.transport.close()
