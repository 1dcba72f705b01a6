"""Locks on files, by which runs at the same time do not disturb each other. The files stay where they are."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from isrf.contract.errors import StageError


def file_lock(path: Path, *, timeout_s: float = -1.0) -> FileLock:
    """A lock to be entered; `filelock.Timeout` after `timeout_s`, never if that is negative."""
    # The process holds it, whichever thread lets go of it; a mere file would outlive a run that is killed.
    return FileLock(path, timeout=timeout_s, thread_local=False, fallback_to_soft=False)


@contextmanager
def lock_or_refuse(path: Path, refusal: StageError) -> Iterator[None]:
    """Holds a lock; raises `refusal` at once where another run does."""
    lock = file_lock(path, timeout_s=0.0)
    try:
        lock.acquire()
    except Timeout:
        raise refusal from None
    try:
        yield
    finally:
        lock.release()
