"""How a request's body comes in: soon and steadily, or not at all.

A body that is kept is read whole before anything else is done for its request, so whoever sends one waits at nobody's
place but their own. Of a body without end (JSON Lines) only the pace is watched; the time that its lines are taken in
by the service counts for nobody. It knows no routes.
"""

import asyncio
import time
from collections.abc import Iterable

from starlette.types import Message, Receive

from isrf.contract.errors import RequestError

WINDOW_S = 5.0
LEAST_BYTES_PER_S = 1024
"""Of a body, over each window; a body that ends sooner may be as short as it likes."""
BODY_S = 30.0
"""For the whole of a body that is kept."""
LINES_WINDOW_S = 20.0
"""The window of a body of lines, whose sender may have to look for them."""

_BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding"})


class CallerLeft(Exception):  # noqa: N818 - nothing went wrong here
    """The caller hung up while their body was read: nobody is left to answer."""


def declares_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a head says that a body follows it."""
    return any(name in _BODY_HEADERS and value != b"0" for name, value in headers)


class SteadyBody:
    """A body that keeps to its pace, as ASGI's `receive`.

    Raises from `receive`:
        RequestError: too slow; what more comes is nobody's.
    """

    def __init__(self, receive: Receive, *, window_s: float, whole_s: float | None = None) -> None:
        self._receive, self._window_s = receive, window_s
        self._left_s = whole_s
        self._waited_s, self._came = 0.0, 0

    async def receive(self) -> Message:
        while True:
            wait_s = self._window_s - self._waited_s
            if self._left_s is not None:
                wait_s = min(wait_s, self._left_s)
            began = time.monotonic()
            try:
                async with asyncio.timeout(wait_s):
                    message = await self._receive()
            except TimeoutError:
                message = None
            took_s = time.monotonic() - began
            self._waited_s += took_s
            if message is not None:
                self._came += len(message.get("body", b""))
                if self._left_s is not None:
                    self._left_s -= took_s
                return message
            self._judge(took_s)

    def _judge(self, took_s: float) -> None:
        if self._left_s is not None:
            self._left_s -= took_s
            if self._left_s <= 0:
                raise _slow(f"a body has {BODY_S:.0f} seconds to arrive.")
        if self._waited_s >= self._window_s:
            if self._came < self._window_s * LEAST_BYTES_PER_S:
                raise _slow(f"of a body at least {LEAST_BYTES_PER_S} bytes a second have to arrive.")
            self._waited_s, self._came = 0.0, 0


async def whole_body(receive: Receive, *, max_bytes: int) -> bytes:
    """A body to keep.

    Raises:
        RequestError: too slow (408) or too large (413).
        CallerLeft: the caller hung up before it was whole.
    """
    steady = SteadyBody(receive, window_s=WINDOW_S, whole_s=BODY_S)
    parts, size = [], 0
    while True:
        message = await steady.receive()
        if message["type"] == "http.disconnect":
            raise CallerLeft
        part = message.get("body", b"")
        size += len(part)
        if size > max_bytes:
            raise too_large(max_bytes)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def given_again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body which was read already, and then whatever follows it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def too_large(max_bytes: int) -> RequestError:
    return RequestError("request.too_large", f"The body has more than {max_bytes} bytes.", fix="Send it in parts.")


def _slow(what: str) -> RequestError:
    return RequestError(
        "http.slow_body",
        f"The body came too slowly: {what}",
        fix="Send the request again, its body without a pause.",
    )
