"""What the store keeps for a while, told from what others wrote there, or what is of another moment.

A digest goes before the content, keyed by what the content belongs to. It is no secret: it finds accidents.
"""

import hashlib

DIGEST = 16
"""Bytes."""


def seal(content: bytes, *about: str) -> bytes:
    """The content as it is kept; `about` names what it belongs to."""
    return _digest(content, about) + content


def unseal(kept: bytes | None, *about: str) -> bytes | None:
    """The content; None where that is none of ours, or belongs to something else."""
    if kept is None or kept[:DIGEST] != _digest(kept[DIGEST:], about):
        return None
    return kept[DIGEST:]


def _digest(content: bytes, about: tuple[str, ...]) -> bytes:
    key = hashlib.blake2b(repr(about).encode(), digest_size=DIGEST).digest()
    return hashlib.blake2b(content, key=key, digest_size=DIGEST).digest()
