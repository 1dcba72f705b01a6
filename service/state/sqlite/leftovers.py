"""Checks whether the database file still contains deleted texts."""

from collections.abc import Callable, Collection

PIECE_BYTES = 1 << 20
"""Bytes read at a time, so that other threads run in between."""


def holds(read: Callable[[int, int], bytes], texts: Collection[bytes]) -> bool:
    """Whether the file contains any of the texts, also as a part of a longer text.

    Args:
        read: (offset, size) → bytes; raises `OSError`.
    """
    overlap = max(map(len, texts), default=0)
    at, end = 0, b""
    while piece := read(at, PIECE_BYTES):
        at += len(piece)
        piece = end + piece
        if any(text in piece for text in texts):
            return True
        end = piece[len(piece) - overlap :]
    return False
