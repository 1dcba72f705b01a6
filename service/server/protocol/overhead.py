"""Limits the bytes of a message besides its body: the head, chunk lines and trailers together."""

from service.server.protocol.head_checks import MAX_HEAD_BYTES
from service.server.protocol.pipelining import PIECE_BYTES

CHUNK_LINE_BYTES = 32
"""Bytes of a chunk's framing that do not count."""


class Overhead:
    """Counts the overhead of the current message of one connection."""

    def __init__(self) -> None:
        self._bytes = self._of_body = self._chunks = 0

    def begin_message(self) -> None:
        self._bytes = 0

    def begin_piece(self) -> None:
        self._of_body = self._chunks = 0

    def add_body(self, size: int) -> None:
        """Counts bytes of the body in the current piece."""
        self._of_body += size

    def add_chunk(self) -> None:
        """Counts a chunk that begins in the current piece."""
        self._chunks += 1

    def is_too_much(self, piece_bytes: int) -> bool:
        """Adds the current piece; returns whether the message exceeds the limit."""
        self._bytes = max(0, self._bytes + piece_bytes - self._of_body - CHUNK_LINE_BYTES * self._chunks)
        return self._bytes > MAX_HEAD_BYTES + PIECE_BYTES
