"""Files that survive a crash: what was written is on disk before a name leads to it, whole or not at all."""

import os
from pathlib import Path


def write_file(path: Path, content: bytes, *, mode: int = 0o666, beside: Path | None = None) -> None:
    """Writes a file whole or not at all: beside it, flushed to disk, then renamed over it, the folder flushed too.

    Only one writer of a path may be at it at a time.

    Args:
        path: what is there meanwhile is the old file, or none.
        content: all of it.
        mode: permissions from the first byte on, less the process' umask.
        beside: where it is written first, on the same file system; what a killed writer left there is deleted.
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
    """Renames over `path`, so that the name survives a crash; what `part` holds was flushed to disk before."""
    part.replace(path)
    sync_path(path.parent)


def sync_folder(folder: Path) -> None:
    """Flushes every file below a folder to disk, so that a rename never publishes what a crash can lose."""
    for path in (*folder.rglob("*"), folder):
        if path.is_file() or path.is_dir():
            sync_path(path)


def sync_path(path: Path) -> None:
    """Flushes one file; of a folder its entries, so that a rename inside it survives a crash of the machine."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
