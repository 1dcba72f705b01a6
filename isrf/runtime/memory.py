"""Returns freed memory to the operating system, where the C library has a call for it (glibc)."""

import ctypes
from collections.abc import Callable


def _trim() -> Callable[[int], int] | None:
    try:
        call: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
    return call


_malloc_trim = _trim()


def give_back_free_memory() -> None:
    """Returns freed memory to the operating system; otherwise each thread's heap keeps its free pages.

    Call it after freeing much memory, and outside the event loop.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)
