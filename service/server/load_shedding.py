"""Turns away who comes when it is full, as soon as the head of a request is read.

`service.inference.admission` says who may come in; here a head is told what it asks for and who its caller is, and the
refusal is written from ready bytes: no task, no framework, and one line a second in the log for all of them. So it
costs a small part of an answer, and however many there are, they do not keep the answers waiting.
`service.server.protocol` asks it.
"""

import asyncio
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import MEDIA_TYPE, RETRY_AFTER_S, problem_body, status_of
from service.auth.caller import OPEN
from service.auth.keys import KeyEntry, KeyRing
from service.inference.admission import AdmissionController, Arrival
from service.inference.limits import refused
from service.inference.model_shares import ModelCall
from service.server.headers import ANSWERS_CARRY, KEY_HEADER, REQUEST_ID, HeaderLines
from service.server.protocol.refusals import request_id_in, written
from service.sync.release_manager import ReleaseManager
from service.telemetry.metrics import Metrics

NAME = "load_shedder"
"""Under which the wire finds it in the state of the app's lifespan."""
QUIET = frozenset({"/livez", "/readyz", "/metrics"})
"""Answered however full it is: whoever restarts, routes or watches asks them."""
USER_PREFIX = b"/recommend/"
MODEL_PREFIXES = (b"/recommend", b"/rank", b"/similar/")
"""Paths that the model answers."""
TELL_S = 1.0

_log = structlog.get_logger("service")


class CallerAtWire(NamedTuple):
    """Who a head says that its caller is.

    Attributes:
        name: by whom the request is counted: a key's id, "" for none; in development mode the client's address.
        key: the known key that was presented.
    """

    name: str
    key: KeyEntry | None = None


NOBODY = CallerAtWire("")


class LoadShedder:
    """One per app, on its event loop: asks `admission`, and writes down its refusals."""

    def __init__(self, admission: AdmissionController, metrics: Metrics, ring: KeyRing | None) -> None:
        self.admission = admission
        self._metrics, self._ring = metrics, ring
        self._releases: ReleaseManager | None = None
        self._turned_away = 0
        self._before_id, self._after_id = _halves_of_body()

    def open(self, releases: ReleaseManager) -> None:
        """From now on it is known whether the model has room."""
        self._releases = releases

    def caller(self, headers: HeaderLines, client: tuple[str, int] | None) -> CallerAtWire:
        """The key is looked up here, once for a request."""
        if self._ring is None:
            return CallerAtWire(client[0] if client else "")
        presented = [value for name, value in headers if name == KEY_HEADER]
        key = self._ring.find(presented[0]) if len(presented) == 1 else None
        return NOBODY if key is None else CallerAtWire(key.id, key)

    def arrival(self, path: str, caller: str) -> Arrival:
        if path in QUIET:
            return Arrival.PROBE
        return Arrival.STRANGER if path in OPEN or self._is_stranger(caller) else Arrival.KNOWN

    def asked(self, method: bytes, url: bytes, caller: str) -> tuple[Arrival, ModelCall | None]:
        """What a head asks for, as `AdmissionController.may_come_in` is asked."""
        arrival = self.arrival(url.partition(b"?")[0].decode("latin-1"), caller)
        return arrival, self.model_call(method, url, caller)

    def counting(self, call: ModelCall | None, app: ASGIApp) -> ASGIApp:
        """The app for a request that came in; one of the model's is inside from now on until it is answered."""
        if call is None or call.caller is None:
            return app
        self.admission.enter(call)

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await app(scope, receive, send)
            finally:
                self.admission.leave(call)

        return counted

    def model_call(self, method: bytes, url: bytes, caller: str) -> ModelCall | None:
        """What is asked of the model; None for what it does not answer."""
        if not url.startswith(MODEL_PREFIXES):
            return None
        path = url.partition(b"?")[0]
        is_users = method == b"GET" and path.startswith(USER_PREFIX)

        def has_room(under_way: int, shared: bool) -> bool:
            if self._releases is None:
                return True
            user_id = unquote_to_bytes(path[len(USER_PREFIX) :]).decode("utf-8", "replace") if is_users else None
            return self._releases.of(user_id).recommendations.has_room(user_id, under_way, shared=shared)

        # A user's list under one query is made once for all who ask for it; a later page of a list for each.
        made: object = url if is_users and b"recommendation_id=" not in url else object()
        return ModelCall(made, None if self._is_stranger(caller) else caller, has_room)

    def count_refusal(self, status: int, code: str, method: str = "none") -> None:
        """Of what never became a request."""
        self._metrics.problems.labels(code).inc()
        self._metrics.requests.labels("none", method, str(status)).observe(0.0)

    def _is_stranger(self, caller: str) -> bool:
        """Who has no key gets no further than the door: to those who have one they are no other caller."""
        return not caller and self._ring is not None

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
