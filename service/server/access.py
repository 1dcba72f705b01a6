"""Refuses requests without a known key, and requests beyond the rate limit, before their body is read.

Routes check the key's role (`service.auth.caller`, `service.server.admission`). Pure ASGI.
"""

from collections.abc import Collection
from functools import partial

from starlette.types import ASGIApp, Receive, Scope, Send

from isrf.contract.errors import AccessError
from service.api.problems import send_problem
from service.auth.browsers import check_page
from service.auth.caller import OPEN, Caller
from service.auth.keys import KeyEntry, KeyRing
from service.auth.rate import RateError, RateLimiter
from service.auth.request_cost import CHARGE
from service.server.headers import KEY_HEADER
from service.server.load_shedding import LoadShedder
from service.server.protocol.request_connection import CALLER
from service.telemetry.metrics import Metrics


class AccessMiddleware:
    """ASGI middleware that checks keys and rates.

    Without a `ring` it runs in development mode: every caller on this machine is admin, without a rate limit.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        ring: KeyRing | None,
        load_shedder: LoadShedder,
        limiter: RateLimiter,
        metrics: Metrics,
        origins: Collection[str],
    ) -> None:
        """origins: of foreign pages that may call."""
        self._app, self._ring, self._limiter, self._metrics = app, ring, limiter, metrics
        self._load_shedder, self._origins = load_shedder, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[str, str] = {}
        try:
            scope["state"]["caller"] = await self._admit(scope, headers)
        except AccessError as error:
            await send_problem(error, scope, send, metrics=self._metrics, headers=headers)
            return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope, headers: dict[str, str]) -> Caller:
        """Returns the caller; raises `AccessError` and fills the answer's `headers` where access is refused."""
        client = scope.get("client")
        address = client[0] if client else ""
        if self._ring is None:
            check_page(scope["method"], scope["headers"], self._origins)
            return Caller("", "admin", address)
        if scope["path"] in OPEN:
            return Caller("", "read", address)
        headers["WWW-Authenticate"] = 'ApiKey realm="isrf"'
        if not any(name == KEY_HEADER for name, _ in scope["headers"]):
            raise AccessError("key.missing", "this call needs an API key.", fix="Send it in the header X-API-Key.")
        # The protocol has already looked up the key; under another ASGI server it is looked up here.
        at_wire = scope.get("extensions", {}).get(CALLER)
        entry = (at_wire or self._load_shedder.caller(scope["headers"], client)).key
        if entry is None:
            raise AccessError("key.unknown", "the service does not know this API key.", fix="Ask the operator for one.")
        headers.clear()
        await self._charge(entry, 1)
        scope["state"][CHARGE] = partial(self._charge, entry)
        return Caller(entry.id, entry.role, entry.id, entry.name)

    async def _charge(self, entry: KeyEntry, calls: int) -> None:
        """Counts calls; raises `RateError` where they exceed the key's rate limit."""
        wait_s = await self._limiter.wait_s(entry.id, entry.rate, calls)
        if wait_s is not None:
            raise RateError(calls, wait_s)
