"""Tells browsers which pages of other origins may call: some read answers, others may only send beacons. Pure ASGI."""

from collections.abc import Collection

from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from service.auth.beacon_access import BEACON_PATHS


class CrossOrigin:
    """ASGI middleware that answers preflights and adds CORS headers, by the origins of the path's kind."""

    def __init__(self, app: ASGIApp, *, readers: Collection[str], senders: Collection[str]) -> None:
        """readers: origins whose pages may read answers. senders: origins whose pages may send beacons."""
        self._app = app
        self._reading = CORSMiddleware(
            app,
            allow_origins=sorted(readers),
            allow_methods=["GET", "POST"],
            allow_headers=["Content-Encoding", "Content-Type", "If-None-Match", "X-API-Key", "X-Request-ID"],
            expose_headers=["ETag", "X-Request-ID", "Retry-After"],
        )
        # `sendBeacon` asks with credentials, whether or not there are any; the service reads no cookies.
        self._sending = CORSMiddleware(
            app,
            allow_origins=sorted(senders),
            allow_methods=["GET", "POST"],
            allow_headers=["Content-Type", "X-API-Key"],
            allow_credentials=True,
        )
        self._reads, self._sends = bool(readers), bool(senders)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_beacon = scope["type"] == "http" and scope["path"] in BEACON_PATHS
        if is_beacon and self._sends:
            await self._sending(scope, receive, send)
        elif not is_beacon and self._reads:
            await self._reading(scope, receive, send)
        else:
            await self._app(scope, receive, send)
