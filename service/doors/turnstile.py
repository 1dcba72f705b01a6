"""Counts who is inside and turns away who comes when it is full, as soon as the head of a request is read.

A refusal is written from ready bytes: no task, no framework, and one line a second in the log for all of them. So it
costs a small part of an answer, and however many there are, they do not keep the answers waiting. What it refuses,
`service.middleware` or `service.batches` would refuse a moment later; `service.doors.wire` asks it.
"""

import asyncio
from collections import Counter
from urllib.parse import unquote_to_bytes

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from service.doors.headers import ANSWERS_CARRY, REQUEST_ID, Lines, request_id_of
from service.load import Load, refused
from service.observe import Metrics
from service.problems import MEDIA_TYPE, RETRY_AFTER_S, problem_body, status_of
from service.releases import Releases

NAME = "turnstile"
"""Under which the wire finds it in the state of the app's lifespan."""
QUIET = frozenset({"/livez", "/readyz", "/metrics"})
"""Answered however full it is: whoever restarts, routes or watches asks them."""
USER_PREFIX = b"/recommend/"
MODEL_PREFIXES = (b"/recommend", b"/rank", b"/similar/")
"""Paths that the model answers."""
TELL_S = 1.0

_QUIET = frozenset(path.encode() for path in QUIET)
_log = structlog.get_logger("service")


class Turnstile:
    """One per app, on its event loop."""

    def __init__(self, load: Load, metrics: Metrics) -> None:
        self._max_in_progress, self._metrics = load.max_in_progress, metrics
        self._releases: Releases | None = None
        # Callers by what is made for them: who asks for a list that somebody is just asking for shares its making.
        self._at_model: Counter[object] = Counter()
        self._turned_away = 0
        self._before_id, self._after_id = _halves_of_body()

    def open(self, releases: Releases) -> None:
        """From now on it is known whether the model has room."""
        self._releases = releases

    def refuses(self, method: bytes, url: bytes, under_way: int) -> bool:
        """Whether a request must not come in, where so many of any kind are under way."""
        path = url.partition(b"?")[0]
        if path in _QUIET:
            return False
        if under_way >= self._max_in_progress:
            return True
        if self._releases is None or not path.startswith(MODEL_PREFIXES):
            return False
        user_id, shared = None, False
        if method == b"GET" and path.startswith(USER_PREFIX):
            user_id = unquote_to_bytes(path[len(USER_PREFIX) :]).decode("utf-8", "replace")
            shared = _what_is_made(method, url) in self._at_model
        if self._releases.of(user_id).recommendations.has_room(user_id, len(self._at_model), shared=shared):
            return False
        self._metrics.not_run.labels("refused").inc()
        return True

    def counting(self, method: bytes, url: bytes, app: ASGIApp) -> ASGIApp:
        """The app for a request that came in; one of the model's is inside from now on until it is answered."""
        if not url.startswith(MODEL_PREFIXES):
            return app
        made = _what_is_made(method, url)
        self._at_model[made] += 1

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await app(scope, receive, send)
            finally:
                self._at_model[made] -= 1
                if not self._at_model[made]:
                    del self._at_model[made]

        return counted

    def refusal(self, method: bytes, headers: Lines, *more: tuple[bytes, bytes]) -> bytes:
        """The whole answer to a request that is turned away, `more` among its headers; counted, and told in a while."""
        error = refused()
        self._metrics.problems.labels(error.code).inc()
        # What it was for is not looked up, as with whatever is refused before its route is known.
        self._metrics.requests.labels("none", method.decode("ascii"), str(status_of(error))).observe(0.0)
        if not self._turned_away:
            asyncio.get_running_loop().call_later(TELL_S, self._tell)
        self._turned_away += 1
        request_id = request_id_of(next((value for name, value in headers if name == REQUEST_ID), None)).encode()
        body = self._before_id + request_id + self._after_id
        lines = (*more, *_CARRIED, (REQUEST_ID, request_id), (b"content-length", str(len(body)).encode()))
        return b"".join((_STATUS, *(b"%b: %b\r\n" % line for line in lines), b"\r\n", body))

    def _tell(self) -> None:
        _log.warning("turned_away", count=self._turned_away)
        self._turned_away = 0


def _what_is_made(method: bytes, url: bytes) -> object:
    """Equal for callers who get one answer: a user's list under one query. A later page of a list is made for each."""
    is_list = method == b"GET" and url.startswith(USER_PREFIX) and b"recommendation_id=" not in url
    return url if is_list else object()


_STATUS = b"HTTP/1.1 503 Service Unavailable\r\n"
_CARRIED: Lines = (
    (b"content-type", MEDIA_TYPE.encode()),
    (b"retry-after", str(RETRY_AFTER_S).encode()),
    *ANSWERS_CARRY,
)


def _halves_of_body() -> tuple[bytes, bytes]:
    """What stands before a refusal's request id, and behind it; sane ids are written as they are."""
    error, place = refused(), "-" * 64
    body = problem_body(status_of(error), error.code, error.message, request_id=place, fix=error.fix)
    before, _, after = body.partition(place.encode())
    return before, after
