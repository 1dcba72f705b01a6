"""How much one process takes on, as settings say it and engines keep to it."""

from typing import NamedTuple

LARGEST_BATCH = 16
"""FAISS compares 20 queries and more by another kernel, whose last bits differ."""
FEWEST_WAITING = 16
"""May wait at least, however small the batches."""


class Load(NamedTuple):
    num_threads: int
    max_batch: int = 0
    """Requests that one run of the model may answer; 0: as many as it answers soon, measured at the start."""
    max_waiting: int = 0
    """Requests that may wait for a thread; 0: a batch for each, and `FEWEST_WAITING` at least."""

    def waiting(self, max_batch: int) -> int:
        """How many may wait where batches hold so many."""
        return self.max_waiting or max(FEWEST_WAITING, self.num_threads * max_batch)
