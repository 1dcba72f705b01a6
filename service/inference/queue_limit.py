"""Limits how many questions wait for one engine, and refuses those that are too late to begin."""

from isrf.contract.errors import OverloadError
from service.inference.deadline import Deadline
from service.inference.limits import LoadLimits, caller_gone, expired, refused
from service.telemetry.metrics import Metrics


class QueueLimit:
    """The limit of one engine's queue. It counts its refusals."""

    def __init__(self, load: LoadLimits, metrics: Metrics) -> None:
        self._load, self._metrics = load, metrics
        self.num_threads = load.num_threads
        self.chosen_batch = load.max_batch
        """The largest batch in the settings; 0: the engine measures it."""
        self.set_max_batch(load.max_batch or 1)

    def set_max_batch(self, max_batch: int) -> None:
        """Sets how many questions one run of the model answers at most."""
        self.max_batch = max_batch
        self.max_waiting = self._load.waiting(max_batch)

    def is_full(self, waiting: int) -> bool:
        return waiting >= self.max_waiting

    def is_full_soon(self, under_way: int) -> bool:
        """Whether the queue will be full, as `under_way` callers ask or are about to ask."""
        return under_way >= self.max_waiting + self.num_threads * self.max_batch

    def refusal(self) -> OverloadError:
        """Counts a refusal for a full queue, and returns its error."""
        self._metrics.not_run.labels("refused").inc()
        return refused()

    def refusal_to_begin(self, deadline: Deadline | None) -> OverloadError | None:
        """Returns an error where work must not begin: its caller is gone, or its deadline has passed. Else None."""
        if deadline is None:
            return None
        if deadline.is_abandoned():
            self._metrics.not_run.labels("caller_gone").inc()
            return caller_gone()
        if deadline.is_over():
            self._metrics.not_run.labels("expired").inc()
            return expired()
        return None
