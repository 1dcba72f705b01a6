"""Seals cache entries with a digest, so that `unseal` recognises foreign content and entries of another state.

The digest stands before the content, keyed by the names of what the content depends on. It is no secret: it finds
accidents, not attacks.
"""

import hashlib

DIGEST = 16
"""Bytes."""


def seal(content: bytes, *about: str) -> bytes:
    """Returns the sealed content; `about` names what it depends on."""
    return _digest(content, about) + content


def unseal(sealed: bytes | None, *about: str) -> bytes | None:
    """Returns the content; None where it is foreign, or depends on something else."""
    if sealed is None or sealed[:DIGEST] != _digest(sealed[DIGEST:], about):
        return None
    return sealed[DIGEST:]


def _digest(content: bytes, about: tuple[str, ...]) -> bytes:
    key = hashlib.blake2b(repr(about).encode(), digest_size=DIGEST).digest()
    return hashlib.blake2b(content, key=key, digest_size=DIGEST).digest()
