"""Writes files so that they survive a crash: the content is on disk before the name points to it."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NO_LOCKS = {errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP}
"""Of file systems that lock no folder, such as some of NFS: there the caller goes on without a lock."""


def write_file(path: Path, content: bytes, *, mode: int = 0o666, beside: Path | None = None) -> None:
    """Writes a file completely or not at all: to a partial file, flushed to disk, then renamed; flushes the folder too.

    Only one writer at a time may write a path.

    Args:
        path: the file; until the rename the old file, or none, is there.
        content: the whole content.
        mode: permissions from the first byte on, minus the process's umask.
        beside: the partial file, on the same file system; a file that a killed writer left there is deleted.
    """
    part = beside or path.with_name(f".{path.name}.partial")
    part.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        move_into_place(part, path)
    finally:
        part.unlink(missing_ok=True)


def move_into_place(part: Path, path: Path) -> None:
    """Renames `part` to `path`, so that the name survives a crash; the caller has flushed the content of `part`."""
    part.replace(path)
    sync_path(path.parent)


@contextmanager
def locked_folder(folder: Path, refusal: Exception) -> Iterator[None]:
    """Locks a folder itself, so that no lock file stays in it; raises `refusal` where another process holds it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Flushes every file below a folder to disk, so that a rename never publishes content that a crash can lose."""
    for path in (*folder.rglob("*"), folder):
        if path.is_file() or path.is_dir():
            sync_path(path)


def sync_path(path: Path) -> None:
    """Flushes a file, or a folder's entries, so that a rename inside the folder survives a crash of the machine."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
