"""Stands before the app: a request without a known key goes no further, its body unread, nor one that comes too often.

What a key may do is its route's business (`service.auth.caller`, `service.server.admission`). Pure ASGI.
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
    """`ring` None is development mode: everybody on this machine is let in as admin, as often as they like."""

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
        """`origins` are of pages that may call from elsewhere."""
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
        """The caller; `AccessError`, and `headers` for its answer, for one who may not come in."""
        client = scope.get("client")
        address = client[0] if client else ""
        if self._ring is None:
            check_page(scope["method"], scope["headers"], self._origins)
            return Caller("", "admin", address)
        if scope["path"] in OPEN:
            return Caller("", "read", address)
        headers["WWW-Authenticate"] = 'ApiKey realm="isrf"'
        if not any(name == KEY_HEADER for name, _ in scope["headers"]):
            raise AccessError("key.missing", "this needs an API key.", fix="Send it in the header X-API-Key.")
        # The wire has looked the key up already; where another server stands before the app, it is done here.
        at_wire = scope.get("extensions", {}).get(CALLER)
        entry = (at_wire or self._load_shedder.caller(scope["headers"], client)).key
        if entry is None:
            raise AccessError("key.unknown", "the API key is not known here.", fix="Ask the operator for one.")
        headers.clear()
        await self._charge(entry, 1)
        scope["state"][CHARGE] = partial(self._charge, entry)
        return Caller(entry.id, entry.role, entry.id)

    async def _charge(self, entry: KeyEntry, calls: int) -> None:
        """Counts so many calls; `RateError` where they are more than the key may make now."""
        wait_s = await self._limiter.wait_s(entry.id, entry.rate, calls)
        if wait_s is not None:
            raise RateError(calls, wait_s)
