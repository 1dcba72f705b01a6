"""File locks that keep parallel runs from disturbing each other. The lock files are not deleted."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from isrf.contract.errors import StageError


def file_lock(path: Path, *, timeout_s: float = -1.0) -> FileLock:
    """A lock for a `with` statement; raises `filelock.Timeout` after `timeout_s`, or waits for ever if negative."""
    # The operating system holds the lock for the process. A mere marker file would outlive a killed run.
    return FileLock(path, timeout=timeout_s, thread_local=False, fallback_to_soft=False)


@contextmanager
def lock_or_refuse(path: Path, refusal: StageError) -> Iterator[None]:
    """Holds a lock while the context is open; raises `refusal` at once if another run holds it."""
    lock = file_lock(path, timeout_s=0.0)
    try:
        lock.acquire()
    except Timeout:
        raise refusal from None
    try:
        yield
    finally:
        lock.release()
