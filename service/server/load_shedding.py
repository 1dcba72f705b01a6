"""Refuses requests as soon as their head is read, when the service is full.

`service.inference.admission` decides. This module reads from a head its caller and the kind of request, and writes the
refusal from prepared bytes: without a task or the framework, and with one log line per second for all refusals. So a
refusal costs a small part of an answer, and many refusals do not delay the answers. `service.server.protocol` calls it.
"""

import asyncio
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.problems import MEDIA_TYPE, RETRY_AFTER_S, problem_body, status_of
from service.auth.beacon_access import presented_keys
from service.auth.caller import OPEN
from service.auth.keys import KeyEntry, KeyRing
from service.auth.signatures import SIGNED
from service.inference.admission import AdmissionController, Arrival
from service.inference.limits import refused
from service.inference.model_shares import ModelCall
from service.server.headers import ANSWERS_CARRY, REQUEST_ID, HeaderLines
from service.server.protocol.refusals import request_id_in, written
from service.sync.release_manager import ReleaseManager
from service.telemetry.metrics import Metrics

NAME = "load_shedder"
"""Key under which the protocol finds the load shedder in the state of the app's lifespan."""
QUIET = frozenset({"/livez", "/readyz", "/metrics"})
"""Paths that are always answered, and not logged: orchestrators, load balancers and monitors call them."""
USER_PREFIX = b"/recommend/"
MODEL_PREFIXES = (b"/recommend", b"/rank", b"/similar/")
"""Prefixes of the paths that need the model."""
LOG_AFTER_S = 1.0

_log = structlog.get_logger("service")


class CallerAtWire(NamedTuple):
    """The caller of a request, from its head.

    Attributes:
        name: the caller that limits count: a key's id, "" for none; in development mode the client's address.
        key: the entry of the key that the head has.
    """

    name: str
    key: KeyEntry | None = None


NOBODY = CallerAtWire("")


class LoadShedder:
    """Asks `admission` about each head, and writes the refusals; the app has one, on its event loop."""

    def __init__(self, admission: AdmissionController, metrics: Metrics, ring: KeyRing | None) -> None:
        self.admission = admission
        self._metrics, self._ring = metrics, ring
        self._releases: ReleaseManager | None = None
        self._turned_away = 0
        self._before_id, self._after_id = _halves_of_body()

    def open(self, releases: ReleaseManager) -> None:
        """Passes the releases, which know whether the model has room."""
        self._releases = releases

    def caller(self, url: bytes, headers: HeaderLines, client: tuple[str, int] | None) -> CallerAtWire:
        """Returns the caller of a head; looks up its key, once per request."""
        if self._ring is None:
            return CallerAtWire(client[0] if client else "")
        path, _, query = url.partition(b"?")
        presented = presented_keys(path, query, headers)
        key = self._ring.find(presented[0]) if len(presented) == 1 else None
        return NOBODY if key is None else CallerAtWire(key.id, key)

    def arrival(self, path: str, caller: str) -> Arrival:
        """Returns the kind of caller of a request."""
        if path in QUIET:
            return Arrival.PROBE
        needs_no_key = path in OPEN or path in SIGNED
        return Arrival.STRANGER if needs_no_key or self._is_stranger(caller) else Arrival.KNOWN

    def asked(self, method: bytes, url: bytes, caller: str) -> tuple[Arrival, ModelCall | None]:
        """Returns the arguments of `AdmissionController.admits` for a head."""
        arrival = self.arrival(url.partition(b"?")[0].decode("latin-1"), caller)
        return arrival, self.model_call(method, url, caller)

    def counting(self, call: ModelCall | None, app: ASGIApp) -> ASGIApp:
        """Returns the app for an admitted request; a request for the model counts from now until its answer."""
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
        """Returns the request for the model; None for requests that need no model."""
        if not url.startswith(MODEL_PREFIXES):
            return None
        path = url.partition(b"?")[0]
        is_users = method == b"GET" and path.startswith(USER_PREFIX)

        def has_room(under_way: int, shared: bool) -> bool:
            if self._releases is None:
                return True
            user_id = unquote_to_bytes(path[len(USER_PREFIX) :]).decode("utf-8", "replace") if is_users else None
            return self._releases.of(user_id).recommendations.has_room(user_id, under_way, shared=shared)

        # All callers of one user's list with the same query share one answer; later pages are answered one by one.
        answer_key: object = url if is_users and b"recommendation_id=" not in url else object()
        return ModelCall(answer_key, None if self._is_stranger(caller) else caller, has_room)

    def count_refusal(self, status: int, code: str, method: str = "none") -> None:
        """Counts a refusal that the app never sees."""
        self._metrics.problems.labels(code).inc()
        self._metrics.requests.labels("none", method, str(status)).observe(0.0)

    def _is_stranger(self, caller: str) -> bool:
        """Whether a caller has no key, so that the access middleware refuses them."""
        return not caller and self._ring is not None

    def refusal(self, method: bytes, headers: HeaderLines, *more: tuple[bytes, bytes]) -> bytes:
        """Returns the whole answer to a refused request, with `more` headers; counts it, and logs it later."""
        error = refused()
        # Without its route, which is not looked up for requests that are refused this early.
        self.count_refusal(status_of(error), error.code, method.decode("ascii"))
        if not self._turned_away:
            asyncio.get_running_loop().call_later(LOG_AFTER_S, self._log_refusals)
        self._turned_away += 1
        request_id = request_id_in(headers).encode()
        body = self._before_id + request_id + self._after_id
        return written(_STATUS, (*more, *_REFUSAL_HEADERS, (REQUEST_ID, request_id)), body)

    def _log_refusals(self) -> None:
        _log.warning("turned_away", count=self._turned_away)
        self._turned_away = 0


_STATUS = b"HTTP/1.1 503 Service Unavailable\r\n"
_REFUSAL_HEADERS: HeaderLines = (
    (b"content-type", MEDIA_TYPE.encode()),
    (b"retry-after", str(RETRY_AFTER_S).encode()),
    *ANSWERS_CARRY,
)


def _halves_of_body() -> tuple[bytes, bytes]:
    """Returns the parts of a refusal's body before and after the request id; valid ids need no escapes."""
    error, placeholder = refused(), "-" * 64
    body = problem_body(status_of(error), error.code, error.message, request_id=placeholder, fix=error.fix)
    before, _, after = body.partition(placeholder.encode())
    return before, after
