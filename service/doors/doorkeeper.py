"""Stands before the app: a request without a known key goes no further, its body unread, nor one that comes too often.

What a key may do is its route's business (`service.doors.caller`). Pure ASGI.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from isrf.errors import AccessError
from service.doors.caller import DEVELOPER, OPEN, Caller
from service.doors.keys import KeyRing
from service.doors.rate import RateLimiter
from service.observe import Metrics
from service.problems import send_problem

KEY_HEADER = b"x-api-key"


class Doorkeeper:
    """`ring` None is development mode: everybody is let in as admin, as often as they like."""

    def __init__(self, app: ASGIApp, *, ring: KeyRing | None, limiter: RateLimiter, metrics: Metrics) -> None:
        self._app, self._ring, self._limiter, self._metrics = app, ring, limiter, metrics

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
        if self._ring is None:
            return DEVELOPER
        if scope["path"] in OPEN:
            return Caller("", "read")
        presented = [value for name, value in scope["headers"] if name == KEY_HEADER]
        headers["WWW-Authenticate"] = 'ApiKey realm="isrf"'
        if not presented:
            raise AccessError("key.missing", "this needs an API key.", fix="Send it in the header X-API-Key.")
        entry = self._ring.find(presented[0]) if len(presented) == 1 else None
        if entry is None:
            raise AccessError("key.unknown", "the API key is not known here.", fix="Ask the operator for one.")
        headers.clear()
        wait_s = await self._limiter.wait_s(entry.id, entry.rate)
        if wait_s is not None:
            headers["Retry-After"] = str(wait_s)
            raise AccessError(
                "rate.limited",
                "this key has called as often as it may.",
                fix=f"Try again in {wait_s} s, or ask the operator for a higher rate.",
            )
        return Caller(entry.id, entry.role)
