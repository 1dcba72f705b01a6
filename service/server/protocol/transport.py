"""A connection's transport that closes without losing the answer, and disconnects callers who do not read.

A socket that is closed while its caller still sends is reset, and the caller may never see the answer. So the transport
first closes its own direction, and drops incoming bytes for a moment.
"""

import asyncio
from collections.abc import Callable
from typing import Any

LINGER_S = 2.0
LINGER_BYTES = 4 * 1024 * 1024
STALL_S = 10.0
"""How often the transport checks that the caller reads."""
LEAST_BYTES_PER_S = 1024
"""The slowest pace of reading."""


class BoundedTransport(asyncio.Transport):
    """Wraps the event loop's own transport."""

    def __init__(
        self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop, is_receiving: Callable[[], bool]
    ) -> None:
        """is_receiving: whether the caller is still sending a message."""
        super().__init__()
        self._inner, self._loop, self._is_receiving = inner, loop, is_receiving
        self._closed = False
        self._first: bytes | None = None
        self._written = self._read_before = self._discarded = 0
        self._watching: asyncio.TimerHandle | None = None
        self._ending: asyncio.TimerHandle | None = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._inner.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self._closed or self._inner.is_closing()

    def pause_reading(self) -> None:
        if not self._inner.is_closing():
            self._inner.pause_reading()

    def resume_reading(self) -> None:
        if not self._inner.is_closing():
            self._inner.resume_reading()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Writes; the first part, an answer's head, waits for the second or the loop's next turn, to save a call."""
        if self._inner.is_closing():
            # Aborted a moment ago: uvloop's transport would raise, and the request would count as failed.
            return
        self._written += len(data)
        if self._first is None:
            self._first = bytes(data)
            self._loop.call_soon(self._flush)
        else:
            first, self._first = self._first, b""
            self._inner.write(first + data if first else data)

    def _flush(self) -> None:
        first, self._first = self._first, None
        if first and not self._inner.is_closing():
            self._inner.write(first)

    def close(self) -> None:
        """Closes its own direction when all is written; the connection ends when the caller closes it, or soon."""
        if self.is_closing():
            return
        if self._first:
            self._inner.write(self._first)
            self._first = b""
        self._closed = True
        if self._is_receiving() and self._inner.can_write_eof():
            self._inner.write_eof()
            self._inner.resume_reading()
            self._ending = self._loop.call_later(LINGER_S, self._inner.close)
        else:
            self._inner.close()
        self.watch()

    def abort(self) -> None:
        self._closed = True
        self._inner.abort()

    def discard(self, size: int) -> None:
        """Counts bytes that arrive after `close`; aborts where they are too many."""
        self._discarded += size
        if self._discarded > LINGER_BYTES:
            self._inner.abort()

    def watch(self) -> None:
        """Checks the caller's pace of reading until all is read."""
        if self._watching is None and self._inner.get_write_buffer_size():
            self._read_before = self._written - self._inner.get_write_buffer_size()
            self._watching = self._loop.call_later(STALL_S, self._look)

    def lost(self) -> None:
        """To be called when the connection is gone: stops the timers."""
        for timer in (self._watching, self._ending):
            if timer is not None:
                timer.cancel()
        self._watching = self._ending = None

    def _look(self) -> None:
        self._watching = None
        left = self._inner.get_write_buffer_size()
        if left and self._written - left - self._read_before < STALL_S * LEAST_BYTES_PER_S:
            self.abort()
        elif left:
            self.watch()
