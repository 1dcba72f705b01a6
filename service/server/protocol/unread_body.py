"""The body of a request that was answered without it: it may come if it is small and comes soon, and is thrown away."""

import asyncio
from collections.abc import Callable

from service.server.headers import HeaderLines

MAX_DISCARDED_BYTES = 64 * 1024
"""With more than that to come the connection is closed."""
DISCARD_S = 5.0
"""How long the rest of such a body may take."""


class UnreadBody:
    """Of one connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, close: Callable[[], None]) -> None:
        """`close` ends the connection."""
        self._loop, self._close = loop, close
        self._bytes = 0
        self._ending: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """From now on what comes is thrown away, until `end`."""
        self._bytes = 0
        self.end()
        self._ending = self._loop.call_later(DISCARD_S, self._close)

    def came(self, size: int) -> None:
        """So many bytes more came."""
        self._bytes += size
        if self._bytes > MAX_DISCARDED_BYTES:
            self._close()

    def end(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None


def is_small(headers: HeaderLines) -> bool:
    """Whether a head says that its body is small enough to be waited for, or that there is none."""
    named = dict(headers)
    length = named.get(b"content-length", b"0")
    return length.isdigit() and int(length) <= MAX_DISCARDED_BYTES and b"transfer-encoding" not in named
