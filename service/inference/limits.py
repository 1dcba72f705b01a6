"""The load limits of one process, from the settings, and the errors of refused requests."""

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from isrf.contract.errors import OverloadError

FEWEST_WAITING = 16
"""How many questions may wait at least, however small the batches are."""
WRITES_AT_ONCE = 64
"""Posts of events at the same time: they cost more than most requests, and other requests wait for them."""

FEW, LONG_S = 8, 1.0
"""A limit admits `FEW` whatever time they take, and more only while the oldest is not older than `LONG_S`."""


class LoadLimits(NamedTuple):
    """How much load one process accepts."""

    num_threads: int
    max_batch: int = 0
    """Requests that one run of the model answers at most; 0: the engine measures a good number at the start."""
    max_waiting: int = 0
    """Requests that may wait for a thread; 0: a batch for each thread, and `FEWEST_WAITING` at least."""
    max_in_progress: int = 128
    """Requests of any kind that may be in progress."""

    def waiting(self, max_batch: int) -> int:
        """Returns how many requests may wait for an engine with batches of this size."""
        return self.max_waiting or max(FEWEST_WAITING, self.num_threads * max_batch)


class ConcurrencyLimit:
    """Admits a limited number at a time, and refuses the others without a wait.

    It admits fewer where they take long, because the last one would wait for all the others.
    """

    def __init__(self, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock = limit, clock
        self._entered: deque[float] = deque()  # moments of entry; they leave roughly in the order of entry

    def __enter__(self) -> None:
        inside, now = len(self._entered), self._clock()
        if inside >= self._limit or (inside >= FEW and now - self._entered[0] > LONG_S):
            raise refused()
        self._entered.append(now)

    def __exit__(self, *_: object) -> None:
        self._entered.popleft()


def refused() -> OverloadError:
    """The error for a caller who arrives when too many others wait."""
    return OverloadError(
        "overload.refused",
        "the service has more requests than it can answer in time.",
        fix="Send the request again after the time in Retry-After.",
    )


def expired() -> OverloadError:
    """The error for a caller whose request waits too long."""
    return OverloadError(
        "overload.expired",
        "the request waited longer than its deadline.",
        fix="Send it again after the time in Retry-After.",
    )


def caller_gone() -> OverloadError:
    """The error for a caller who has disconnected; nobody receives it."""
    return OverloadError("overload.caller_gone", "the caller disconnected before the work began.")
