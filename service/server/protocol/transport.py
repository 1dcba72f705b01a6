"""A connection's transport that neither tears down what is still coming nor waits for who does not read.

A socket that is closed while its caller still sends is reset, and the caller may never see the answer. So the end is
said first, and what still comes is thrown away for a moment.
"""

import asyncio
from collections.abc import Callable
from typing import Any

LINGER_S = 2.0
LINGER_BYTES = 4 * 1024 * 1024
STALL_S = 10.0
"""How often it is looked at whether what was written is being read."""
LEAST_BYTES_PER_S = 1024
"""That have to be read, of what is written."""


class BoundedTransport(asyncio.Transport):
    """Wraps the event loop's own."""

    def __init__(
        self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop, is_sent_more: Callable[[], bool]
    ) -> None:
        """`is_sent_more` says whether the caller is in the middle of sending something."""
        super().__init__()
        self._inner, self._loop, self._is_sent_more = inner, loop, is_sent_more
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
        """The first part, an answer's head, waits for the second or the loop's next turn: one call for both."""
        if self._inner.is_closing():
            # Cut off a moment ago: uvloop's transport would raise, and the request count as one that went wrong.
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
        """Says the end when all is written; the connection itself ends when its caller does, or soon."""
        if self.is_closing():
            return
        if self._first:
            self._inner.write(self._first)
            self._first = b""
        self._closed = True
        if self._is_sent_more() and self._inner.can_write_eof():
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
        """So many bytes came after the end was said."""
        self._discarded += size
        if self._discarded > LINGER_BYTES:
            self._inner.abort()

    def watch(self) -> None:
        """Sees to it that what was written is read, until all of it is."""
        if self._watching is None and self._inner.get_write_buffer_size():
            self._read_before = self._written - self._inner.get_write_buffer_size()
            self._watching = self._loop.call_later(STALL_S, self._look)

    def lost(self) -> None:
        """The connection is gone."""
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
