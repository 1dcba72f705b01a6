"""Drops the body of a request that was answered without it, if the body is small and arrives soon."""

import asyncio
from collections.abc import Callable

from service.server.headers import HeaderLines

MAX_DISCARDED_BYTES = 64 * 1024
"""The connection is closed where more than this would arrive."""
DISCARD_S = 5.0
"""How long the rest of such a body may take."""


class UnreadBody:
    """The unread body on one connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, close: Callable[[], None]) -> None:
        """close: closes the connection."""
        self._loop, self._close = loop, close
        self._bytes = 0
        self._ending: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Starts to drop bytes, until `end`; closes the connection after `DISCARD_S`."""
        self._bytes = 0
        self.end()
        self._ending = self._loop.call_later(DISCARD_S, self._close)

    def count(self, size: int) -> None:
        """Counts dropped bytes; closes the connection where they are too many."""
        self._bytes += size
        if self._bytes > MAX_DISCARDED_BYTES:
            self._close()

    def end(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None


def is_small(headers: HeaderLines) -> bool:
    """Whether a head announces a body that is small enough to wait for, or none."""
    named = dict(headers)
    length = named.get(b"content-length", b"0")
    return length.isdigit() and int(length) <= MAX_DISCARDED_BYTES and b"transfer-encoding" not in named
