"""Files that survive a crash: what was written is on disk before a name leads to it."""

import os
from pathlib import Path


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
