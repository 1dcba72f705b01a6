"""Whether the database still holds what was deleted."""

from collections.abc import Callable, Collection

PIECE_BYTES = 1 << 20
"""Read at a time: others have their turn in between."""


def holds(read: Callable[[int, int], bytes], texts: Collection[bytes]) -> bool:
    """Whether any of the texts stands there, be it as a part of a longer one.

    Args:
        read: so many bytes from a place on; raises `OSError`.
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
