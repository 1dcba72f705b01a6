"""What a message has beside its body: the head, chunk lines, trailers. All of it together has one limit of bytes."""

from service.server.protocol.head_checks import MAX_HEAD_BYTES
from service.server.protocol.pipelining import PIECE_BYTES

CHUNK_LINE_BYTES = 32
"""Of a chunk's framing that count for nothing."""


class Overhead:
    """Of the message that comes in on one connection."""

    def __init__(self) -> None:
        self._bytes = self._of_body = self._chunks = 0

    def begin_message(self) -> None:
        self._bytes = 0

    def begin_piece(self) -> None:
        self._of_body = self._chunks = 0

    def add_body(self, size: int) -> None:
        """So many bytes of the piece are the body's."""
        self._of_body += size

    def add_chunk(self) -> None:
        """A chunk began in the piece."""
        self._chunks += 1

    def is_too_much(self, piece_bytes: int) -> bool:
        """Whether, with this piece of so many bytes, there is more than may be."""
        self._bytes = max(0, self._bytes + piece_bytes - self._of_body - CHUNK_LINE_BYTES * self._chunks)
        return self._bytes > MAX_HEAD_BYTES + PIECE_BYTES
