"""Refuses requests without a known key, and requests beyond the rate limit, before their body is read.

Routes check the key's role (`service.auth.caller`, `service.server.admission`). Pure ASGI.
"""

from collections.abc import Collection
from functools import partial

from starlette.types import ASGIApp, Receive, Scope, Send

from isrf.contract.errors import AccessError
from service.api.problems import send_problem
from service.auth.beacon_access import BEACON_PATHS, check_sender, network_of, presented_keys
from service.auth.browsers import check_page
from service.auth.caller import OPEN, Caller
from service.auth.keys import KeyEntry, KeyRing
from service.auth.rate import RateError, RateLimiter
from service.auth.request_cost import CHARGE
from service.auth.signatures import SIGNED
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
        senders: Collection[str] = frozenset(),
        address_limiter: RateLimiter,
    ) -> None:
        """
        Args:
            origins: of foreign pages that may call.
            senders: origins whose pages may send beacons.
            address_limiter: of beacons, by the address that they come from.
        """
        self._app, self._ring, self._limiter, self._metrics = app, ring, limiter, metrics
        self._load_shedder, self._origins, self._senders = load_shedder, origins, senders
        self._address_limiter = address_limiter

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
        if scope["path"] in SIGNED:
            return Caller("", "browser", address)
        is_beacon = scope["path"] in BEACON_PATHS
        if self._ring is None:
            check_page(scope["method"], scope["headers"], self._senders if is_beacon else self._origins)
            if is_beacon:
                check_sender(scope["headers"], self._senders, without_keys=True)
            return Caller("", "admin", address)
        if scope["path"] in OPEN:
            return Caller("", "read", address)
        headers["WWW-Authenticate"] = 'ApiKey realm="isrf"'
        url = scope["path"].encode("utf-8", "surrogatepass"), scope["query_string"]
        if not presented_keys(*url, scope["headers"]):
            fix = "Send it in the header X-API-Key, with a beacon in the parameter key."
            raise AccessError("key.missing", "this call needs an API key.", fix=fix)
        # The protocol has already looked up the key; under another ASGI server it is looked up here.
        at_wire = scope.get("extensions", {}).get(CALLER)
        entry = (at_wire or self._load_shedder.caller(b"?".join(url), scope["headers"], client)).key
        if entry is None:
            raise AccessError("key.unknown", "the service does not know this API key.", fix="Ask the operator for one.")
        headers.clear()
        if is_beacon:
            check_sender(scope["headers"], self._senders, without_keys=False)
            await self._charge_address(entry, address)
        await self._charge(entry, 1)
        scope["state"][CHARGE] = partial(self._charge, entry)
        return Caller(entry.id, entry.role, entry.id, entry.name)

    async def _charge(self, entry: KeyEntry, calls: int) -> None:
        """Counts calls; raises `RateError` where they exceed the key's rate limit."""
        wait_s = await self._limiter.wait_s(entry.id, entry.rate, calls)
        if wait_s is not None:
            raise RateError(calls, wait_s)

    async def _charge_address(self, entry: KeyEntry, address: str) -> None:
        """Counts a beacon for where it comes from; raises `RateError` where that sends too many."""
        wait_s = await self._address_limiter.wait_s(f"{entry.id} {network_of(address)}", None)
        if wait_s is not None:
            raise RateError(1, wait_s, "this address")
