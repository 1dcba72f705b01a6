"""Reads the bodies of requests, and refuses bodies that arrive too slowly or are too large.

A JSON body is read as a whole before any other work for its request, so that a slow sender delays nobody else. For a
body of lines, which has no limit of size, only the pace counts, without the time that the service needs for its lines.
It knows no routes.
"""

import asyncio
import time
from collections.abc import Iterable

from starlette.types import Message, Receive

from isrf.contract.errors import RequestError
from service.server.gzip_body import GzipBody

WINDOW_S = 5.0
LEAST_BYTES_PER_S = 1024
"""The lowest pace of a body in each window; a body that ends within a window may be shorter."""
BODY_S = 30.0
"""The time limit of a whole JSON body."""
LINES_WINDOW_S = 20.0
"""The window of a body of lines, whose sender may need time to find them."""

_BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding"})


class CallerLeft(Exception):  # noqa: N818 - nothing went wrong here
    """The caller disconnected while the body was read: there is nobody to answer."""


def declares_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a head announces a body."""
    return any(name in _BODY_HEADERS and value != b"0" for name, value in headers)


class SteadyBody:
    """Wraps ASGI's `receive`, and checks the body's pace.

    Raises from `receive`:
        RequestError: the body is too slow; the rest of it is not read.
    """

    def __init__(self, receive: Receive, *, window_s: float, whole_s: float | None = None) -> None:
        self._receive, self._window_s = receive, window_s
        self._left_s = whole_s
        self._waited_s, self._num_bytes = 0.0, 0

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
                self._num_bytes += len(message.get("body", b""))
                if self._left_s is not None:
                    self._left_s -= took_s
                return message
            self._check_pace(took_s)

    def _check_pace(self, took_s: float) -> None:
        if self._left_s is not None:
            self._left_s -= took_s
            if self._left_s <= 0:
                raise _slow(f"a body has {BODY_S:.0f} seconds to arrive.")
        if self._waited_s >= self._window_s:
            if self._num_bytes < self._window_s * LEAST_BYTES_PER_S:
                raise _slow(f"at least {LEAST_BYTES_PER_S} bytes of a body must arrive per second.")
            self._waited_s, self._num_bytes = 0.0, 0


async def whole_body(receive: Receive, *, max_bytes: int, is_gzip: bool) -> bytes:
    """Reads a whole body.

    Args:
        max_bytes: of the body, as it arrives and after it was inflated where it `is_gzip`.

    Raises:
        RequestError: the body is too slow (408), too large (413) or no valid gzip (400).
        CallerLeft: the caller disconnected before the body was complete.
    """
    steady = SteadyBody(receive, window_s=WINDOW_S, whole_s=BODY_S)
    # Both are counted: a gzip body of any size may inflate to nothing.
    bounded = _at_most(max_bytes, steady.receive)
    receive_part = _at_most(max_bytes, GzipBody(bounded).receive) if is_gzip else bounded
    parts = []
    while True:
        message = await receive_part()
        if message["type"] == "http.disconnect":
            raise CallerLeft
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def lines_body(receive: Receive, *, is_gzip: bool) -> Receive:
    """Returns a `receive` for a body of lines, which checks its pace and inflates it where it `is_gzip`."""
    steady = SteadyBody(receive, window_s=LINES_WINDOW_S)
    return GzipBody(steady.receive).receive if is_gzip else steady.receive


def replayed(body: bytes, receive: Receive) -> Receive:
    """Returns a `receive` that first returns a body that was already read, and then calls the original."""
    is_sent = False

    async def replay() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _at_most(max_bytes: int, receive: Receive) -> Receive:
    """Returns a `receive` that raises `RequestError` where a body has more bytes."""
    size = 0

    async def receive_bounded() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > max_bytes:
            raise too_large(max_bytes)
        return message

    return receive_bounded


def too_large(max_bytes: int) -> RequestError:
    """Returns the error for a body that is too large."""
    return RequestError("request.too_large", f"The body has more than {max_bytes} bytes.", fix="Send it in parts.")


def _slow(what: str) -> RequestError:
    return RequestError(
        "http.slow_body",
        f"The body arrives too slowly: {what}",
        fix="Send the request again, with its body without a pause.",
    )
