"""Reads a file's bytes while it hashes them: a small file into memory, a large one as a mapping that workers share.

A mapped file is the file that was hashed: the mapping keeps the descriptor that the bytes were read through, and the
file must not have changed meanwhile. What happens afterwards is another matter. The bytes of a small file are copies,
which nobody can change. Whoever writes into a large file *in place* changes what a running service reads, and whoever
truncates it ends the service by SIGBUS. Publishing never does either: it renames, and an old file stays as it is.
"""

import hashlib
import mmap
import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Content = NDArray[np.uint8]
"""A file's bytes."""

MAPPED_FROM = 16 << 20
"""Bytes of a file from which on it is mapped. Below it, sharing saves less than the guarantee is worth."""
_CHUNK = 1 << 20
"""Read and hashed at once; it fits into a core's cache, so that hashing reads no memory twice."""


class FileChangedError(Exception):
    """The file was changed while it was read; the message says how."""


def read_hashed(file: int, size: int, *, keep: bool, check_deadline: Callable[[], None]) -> tuple[str, Content | None]:
    """The SHA-256 of an open file and its bytes; the bytes are read-only, and None where `keep` is False.

    Raises:
        FileChangedError: it holds fewer bytes, or was written meanwhile.
        OSError: it cannot be read.
    """
    before = os.fstat(file)
    is_mapped = keep and size >= MAPPED_FROM
    content = np.empty(size if keep and not is_mapped else min(size, _CHUNK), dtype=np.uint8)
    digest, at = hashlib.sha256(), 0
    while at < size:
        check_deadline()
        piece = content[at : at + _CHUNK] if len(content) == size else content[: min(_CHUNK, size - at)]
        count = os.readv(file, [piece.data])
        if count == 0:
            raise FileChangedError(f"it ended after {at} of {size} bytes")
        digest.update(piece.data[:count])
        at += count
    if is_mapped:
        content = np.frombuffer(mmap.mmap(file, size, prot=mmap.PROT_READ), dtype=np.uint8)
        after = os.fstat(file)
        if (before.st_size, before.st_mtime_ns, before.st_ctime_ns) != (
            after.st_size,
            after.st_mtime_ns,
            after.st_ctime_ns,
        ):
            raise FileChangedError("it was written while it was hashed")
    content.flags.writeable = False
    return digest.hexdigest(), content if keep else None


def is_mapped(array: NDArray[np.generic]) -> bool:
    """Whether an array is a view of a mapped file."""
    return _mapping(array) is not None


def give_back_pages(array: NDArray[np.generic]) -> None:
    """Takes a mapped file's pages out of this process's memory; they stay in the machine's cache for the next read."""
    mapping = _mapping(array)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def _mapping(array: NDArray[np.generic]) -> mmap.mmap | None:
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    return base if isinstance(base, mmap.mmap) else None
