"""Counts who is inside and turns away who comes when it is full, as soon as the head of a request is read.

A refusal is written from ready bytes: no task, no framework, and one line a second in the log for all of them. So it
costs a small part of an answer, and however many there are, they do not keep the answers waiting. What it refuses,
`service.server.admission` or `service.inference.batching` would refuse a moment later; `service.server.protocol` asks
it.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import unquote_to_bytes

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import MEDIA_TYPE, RETRY_AFTER_S, problem_body, status_of
from service.auth.caller import OPEN
from service.auth.keys import KeyRing
from service.inference.limits import LoadLimits, refused
from service.server.headers import ANSWERS_CARRY, KEY_HEADER, REQUEST_ID, HeaderLines
from service.server.protocol.refusals import request_id_in, written
from service.sync.release_manager import ReleaseManager
from service.telemetry.metrics import Metrics

NAME = "turnstile"
"""Under which the wire finds it in the state of the app's lifespan."""
QUIET = frozenset({"/livez", "/readyz", "/metrics"})
"""Answered however full it is: whoever restarts, routes or watches asks them."""
USER_PREFIX = b"/recommend/"
MODEL_PREFIXES = (b"/recommend", b"/rank", b"/similar/")
"""Paths that the model answers."""
MAX_STRANGERS = 512
"""Requests under way of callers who have no key, or need none; probes are let in however many there are."""
TELL_S = 1.0
OTHERS_S = 10.0
"""Who has called within so many seconds counts among those with whom the model is shared."""

_QUIET = frozenset(path.encode() for path in QUIET)
_log = structlog.get_logger("service")


class LoadShedder:
    """One per app, on its event loop."""

    def __init__(self, load: LoadLimits, metrics: Metrics, ring: KeyRing | None) -> None:
        self._max_in_progress, self._metrics, self._ring = load.max_in_progress, metrics, ring
        self._releases: ReleaseManager | None = None
        # Callers by what is made for them: who asks for a list that somebody is just asking for shares its making.
        self._at_model: Counter[object] = Counter()
        self._of_caller: Counter[str] = Counter()
        self._last_caller, self._shared_until = "", 0.0
        self._turned_away = 0
        self._before_id, self._after_id = _halves_of_body()
        self.apart: Callable[[], int] = lambda: 0
        """How many of those that came in hold places of another kind, such as senders of bodies: not counted."""
        self.answered: Callable[[], int] = lambda: 0
        """How many hold the places that are counted."""
        self._counted = self._strangers = 0
        self.unread: set[object] = set()
        """Connections of counted callers who do not read: without a place, as who was refused, they do not count."""

    def open(self, releases: ReleaseManager) -> None:
        """From now on it is known whether the model has room."""
        self._releases = releases

    def caller(self, headers: HeaderLines, client: tuple[str, int] | None) -> str:
        """By whom a request is counted: a key's id, "" for none; in development mode the client's address."""
        if self._ring is None:
            return client[0] if client else ""
        presented = [value for name, value in headers if name == KEY_HEADER]
        entry = self._ring.find(presented[0]) if len(presented) == 1 else None
        return "" if entry is None else entry.id

    def counts(self, path: str, caller: str) -> bool:
        """Whether a request is one of those of which so many may be under way: others have places of their own."""
        return path not in OPEN and path not in QUIET and not self._is_stranger(caller)

    def begins(self, *, counted: bool) -> None:
        """A request is under way, until `ends` is called with the same."""
        self._counted += counted
        self._strangers += not counted

    def ends(self, *, counted: bool) -> None:
        self._counted -= counted
        self._strangers -= not counted

    def refuses(self, method: bytes, url: bytes, caller: str) -> bool:
        """Whether a request must not come in."""
        path = url.partition(b"?")[0]
        if path in _QUIET:
            return False
        if self.counts(path.decode("latin-1"), caller):
            if self._counted >= self._max_in_progress and self._is_full():
                return True
        elif self._strangers >= MAX_STRANGERS:
            return True
        return path.startswith(MODEL_PREFIXES) and not self._has_room(method, url, caller)

    def counting(self, method: bytes, url: bytes, app: ASGIApp, caller: str) -> ASGIApp:
        """The app for a request that came in; one of the model's is inside from now on until it is answered."""
        if not url.startswith(MODEL_PREFIXES) or self._is_stranger(caller):
            return app
        made = self._enter(method, url, caller)

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await app(scope, receive, send)
            finally:
                self._leave(made, caller)

        return counted

    @contextmanager
    def at_model(self, method: str, path: bytes, caller: str) -> Iterator[None]:
        """Inside until the end, if it is one of the model's: for a request whose body had to come first.

        Raises:
            OverloadError: it must not come in.
        """
        if not path.startswith(MODEL_PREFIXES):
            yield
            return
        if not self._has_room(method.encode(), path, caller):
            raise refused()
        made = self._enter(method.encode(), path, caller)
        try:
            yield
        finally:
            self._leave(made, caller)

    def count_refusal(self, status: int, code: str, method: str = "none") -> None:
        """Of what never became a request."""
        self._metrics.problems.labels(code).inc()
        self._metrics.requests.labels("none", method, str(status)).observe(0.0)

    def _is_full(self) -> bool:
        if self.answered() >= self._max_in_progress:
            return True
        return self._counted - self.apart() - len(self.unread) >= self._max_in_progress

    def _is_stranger(self, caller: str) -> bool:
        """Who has no key gets no further than the door: to those who have one they are no other caller."""
        return not caller and self._ring is not None

    def _has_room(self, method: bytes, url: bytes, caller: str) -> bool:
        if self._releases is None:
            return True
        path = url.partition(b"?")[0]
        user_id, shared = None, False
        if method == b"GET" and path.startswith(USER_PREFIX):
            user_id = unquote_to_bytes(path[len(USER_PREFIX) :]).decode("utf-8", "replace")
            shared = _what_is_made(method, url) in self._at_model
        under_way = max(len(self._at_model), self._as_if_alone(caller))
        if self._releases.of(user_id).recommendations.has_room(user_id, under_way, shared=shared):
            return True
        self._metrics.not_run.labels("refused").inc()
        return False

    def _as_if_alone(self, caller: str) -> int:
        """How many are inside as far as this caller is concerned: three quarters are all, while others call too."""
        if self._is_stranger(caller):
            return 0
        now = time.monotonic()
        if caller != self._last_caller:
            if self._last_caller:
                self._shared_until = now + OTHERS_S
            self._last_caller = caller
        return -(-self._of_caller[caller] * 4 // 3) if now < self._shared_until else 0

    def _enter(self, method: bytes, url: bytes, caller: str) -> object:
        made = _what_is_made(method, url)
        self._at_model[made] += 1
        self._of_caller[caller] += 1
        return made

    def _leave(self, made: object, caller: str) -> None:
        self._at_model[made] -= 1
        if not self._at_model[made]:
            del self._at_model[made]
        self._of_caller[caller] -= 1
        if not self._of_caller[caller]:
            del self._of_caller[caller]

    def refusal(self, method: bytes, headers: HeaderLines, *more: tuple[bytes, bytes]) -> bytes:
        """The whole answer to a request that is turned away, `more` among its headers; counted, and told in a while."""
        error = refused()
        # What it was for is not looked up, as with whatever is refused before its route is known.
        self.count_refusal(status_of(error), error.code, method.decode("ascii"))
        if not self._turned_away:
            asyncio.get_running_loop().call_later(TELL_S, self._tell)
        self._turned_away += 1
        request_id = request_id_in(headers).encode()
        body = self._before_id + request_id + self._after_id
        return written(_STATUS, (*more, *_CARRIED, (REQUEST_ID, request_id)), body)

    def _tell(self) -> None:
        _log.warning("turned_away", count=self._turned_away)
        self._turned_away = 0


def _what_is_made(method: bytes, url: bytes) -> object:
    """Equal for callers who get one answer: a user's list under one query. A later page of a list is made for each."""
    is_list = method == b"GET" and url.startswith(USER_PREFIX) and b"recommendation_id=" not in url
    return url if is_list else object()


_STATUS = b"HTTP/1.1 503 Service Unavailable\r\n"
_CARRIED: HeaderLines = (
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
