"""Refuses requests without a known key, and requests beyond the rate limit, before their body is read.

Routes check the key's role (`service.auth.caller`, `service.server.admission`). Pure ASGI.
"""

from collections.abc import Collection, Mapping
from functools import partial

from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from isrf.contract.errors import AccessError
from service.api.problems import send_problem
from service.auth.beacon_access import BEACON_PATHS, check_sender, network_of, presented_keys
from service.auth.browsers import check_page
from service.auth.caller import OPEN, Caller, beacons_only
from service.auth.keys import KeyEntry, KeyRing
from service.auth.rate import RateError, RateLimiter
from service.auth.request_cost import CHARGE, CHARGE_ADDRESS
from service.auth.signatures import COUNT_FAILURE, SIGNED, no_secret
from service.server.load_shedding import LoadShedder
from service.server.protocol.request_connection import CALLER
from service.telemetry.metrics import Metrics

_ADDRESS = "this address"


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
        secrets: Mapping[str, SecretStr | None],
    ) -> None:
        """
        Args:
            origins: of foreign pages that may call.
            senders: origins whose pages may send beacons.
            address_limiter: of beacons and of wrong signatures, by the address that they come from.
            secrets: of each path of `SIGNED`.
        """
        self._app, self._ring, self._limiter, self._metrics = app, ring, limiter, metrics
        self._load_shedder, self._origins, self._senders = load_shedder, origins, senders
        self._address_limiter, self._secrets = address_limiter, secrets

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
            return self._admit_delivery(scope, network_of(address))
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
        _check_presented(len(presented_keys(*url, scope["headers"])))
        # The protocol has already looked up the key; under another ASGI server it is looked up here.
        at_wire = scope.get("extensions", {}).get(CALLER)
        entry = (at_wire or self._load_shedder.caller(b"?".join(url), scope["headers"], client)).key
        if entry is None:
            raise AccessError("key.unknown", "the service does not know this API key.", fix="Ask the operator for one.")
        headers.clear()
        network = network_of(address) if is_beacon else ""
        if is_beacon:
            check_sender(scope["headers"], self._senders, without_keys=False)
            charge_address = partial(self._charge_address, f"{entry.id} {network}")
            await charge_address(1)
            scope["state"][CHARGE_ADDRESS] = charge_address
        elif entry.role == "browser":
            # Before it counts: anybody can read this key, and must not use up the rate of its beacons.
            raise beacons_only()
        await self._charge(entry, 1)
        scope["state"][CHARGE] = partial(self._charge, entry)
        return Caller(entry.id, entry.role, entry.id, entry.name, network if entry.role == "browser" else "")

    def _admit_delivery(self, scope: Scope, network: str) -> Caller:
        """Returns the caller of a signed path, whose signature the route checks; raises `AccessError`."""
        if self._secrets[scope["path"]] is None and scope["method"] == "POST":
            raise no_secret(scope["path"])
        counted = f"webhooks {network}"
        wait_s = self._address_limiter.closed_s(counted)
        if wait_s is not None:
            raise RateError(1, wait_s, _ADDRESS)
        scope["state"][COUNT_FAILURE] = partial(self._charge_address, counted, 1)
        return Caller("", "browser", network)

    async def _charge(self, entry: KeyEntry, calls: int) -> None:
        """Counts calls; raises `RateError` where they exceed the key's rate limit."""
        wait_s = await self._limiter.wait_s(entry.id, entry.rate, calls)
        if wait_s is not None:
            raise RateError(calls, wait_s)

    async def _charge_address(self, counted: str, calls: int) -> None:
        """Counts calls for where they come from; raises `RateError` where that sends too many."""
        wait_s = await self._address_limiter.wait_s(counted, None, calls)
        if wait_s is not None:
            raise RateError(calls, wait_s, _ADDRESS)


def _check_presented(num_keys: int) -> None:
    """Raises `AccessError` where a call comes without a key, or with several."""
    if num_keys == 0:
        raise AccessError(
            "key.missing",
            "this call needs an API key.",
            fix="Send it in the header X-API-Key, with a beacon in the parameter key.",
        )
    if num_keys > 1:
        raise AccessError(
            "key.several",
            f"this call comes with {num_keys} API keys.",
            fix="Send one: in the header X-API-Key, or with a beacon in the parameter key.",
        )
