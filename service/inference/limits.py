"""How much one process takes on, as settings say it and engines keep to it."""

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from isrf.contract.errors import OverloadError

FEWEST_WAITING = 16
"""May wait at least, however small the batches."""
WRITES_AT_ONCE = 64
"""Posts of events, dearer than most requests: what they keep waiting shall have an end."""

FEW, LONG_S = 8, 1.0
"""So many may be inside of a limit however long they take, and nobody else while the first of them took longer."""


class LoadLimits(NamedTuple):
    num_threads: int
    max_batch: int = 0
    """Requests that one run of the model may answer; 0: as many as it answers soon, measured at the start."""
    max_waiting: int = 0
    """Requests that may wait for a thread; 0: a batch for each, and `FEWEST_WAITING` at least."""
    max_in_progress: int = 128
    """Requests of any kind that may be under way."""

    def waiting(self, max_batch: int) -> int:
        """How many may wait where batches hold so many."""
        return self.max_waiting or max(FEWEST_WAITING, self.num_threads * max_batch)


class ConcurrencyLimit:
    """Lets so many in at a time; who comes when it is full is refused, not kept waiting.

    It is full with fewer where they take long: of as many as it holds the last would wait for all the others.
    """

    def __init__(self, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock = limit, clock
        self._entered: deque[float] = deque()  # they leave about in the order in which they came

    def __enter__(self) -> None:
        inside, now = len(self._entered), self._clock()
        if inside >= self._limit or (inside >= FEW and now - self._entered[0] > LONG_S):
            raise refused()
        self._entered.append(now)

    def __exit__(self, *_: object) -> None:
        self._entered.popleft()


def refused() -> OverloadError:
    """What the caller is told who comes when enough others wait."""
    return OverloadError(
        "overload.refused",
        "more is asked for now than can be answered in time.",
        fix="Send the request again after the time in Retry-After.",
    )


def expired() -> OverloadError:
    """What a caller is told whose request waited too long."""
    return OverloadError(
        "overload.expired",
        "the request waited longer than an answer is good for.",
        fix="Send it again after the time in Retry-After.",
    )


def caller_gone() -> OverloadError:
    """What nobody is told any more."""
    return OverloadError("overload.caller_gone", "the caller hung up before this was begun.")
