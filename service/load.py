"""How much one process takes on, as settings say it and engines keep to it."""

from typing import Literal, NamedTuple, TypeAlias

from isrf.errors import OverloadError

DeviceName: TypeAlias = Literal["auto", "cpu", "cuda"]
"""Where the search runs; `auto`: on a CUDA GPU where ONNX Runtime really runs it there, else on the CPU."""

LARGEST_BATCH = 16
"""FAISS compares 20 queries and more by another kernel, whose last bits differ."""
FEWEST_WAITING = 16
"""May wait at least, however small the batches."""
WRITES_AT_ONCE = 64
"""Posts of events, dearer than most requests: what they keep waiting shall have an end."""


class Load(NamedTuple):
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


class Gate:
    """Lets so many in at a time; who comes when it is full is refused, not kept waiting."""

    def __init__(self, limit: int) -> None:
        self._limit, self._inside = limit, 0

    def __enter__(self) -> None:
        if self._inside >= self._limit:
            raise refused()
        self._inside += 1

    def __exit__(self, *_: object) -> None:
        self._inside -= 1


def refused() -> OverloadError:
    """What the caller is told who comes when enough others wait."""
    return OverloadError(
        "overload.refused",
        "more is asked for now than can be answered in time.",
        fix="Send the request again after the time in Retry-After.",
    )


def caller_gone() -> OverloadError:
    """What nobody is told any more."""
    return OverloadError("overload.caller_gone", "the caller hung up before this was begun.")
