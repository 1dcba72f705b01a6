"""How many may wait for one engine, and for whom no work is begun any more: asked by `service.inference.batching`."""

from isrf.contract.errors import OverloadError
from service.inference.deadline import Deadline
from service.inference.limits import LoadLimits, caller_gone, expired, refused
from service.telemetry.metrics import Metrics


class QueueLimit:
    """Of one engine's queue. What it refuses is counted."""

    def __init__(self, load: LoadLimits, metrics: Metrics) -> None:
        self._load, self._metrics = load, metrics
        self.num_threads = load.num_threads
        self.chosen_batch = load.max_batch
        """The largest batch as settings say it; 0: the engine measures it."""
        self.set_max_batch(load.max_batch or 1)

    def set_max_batch(self, max_batch: int) -> None:
        """So many questions are answered by one run of the model."""
        self.max_batch = max_batch
        self.max_waiting = self._load.waiting(max_batch)

    def is_full(self, waiting: int) -> bool:
        return waiting >= self.max_waiting

    def is_full_soon(self, under_way: int) -> bool:
        """Whether it will be, since so many callers are already on their way to ask or asking."""
        return under_way >= self.max_waiting + self.num_threads * self.max_batch

    def refusal(self) -> OverloadError:
        """Of whoever comes when it is full."""
        self._metrics.not_run.labels("refused").inc()
        return refused()

    def why_not_begun(self, deadline: Deadline | None) -> OverloadError | None:
        """Why nothing needs to be done for who waited until now; None where it must be."""
        if deadline is None:
            return None
        if deadline.is_in_vain():
            self._metrics.not_run.labels("caller_gone").inc()
            return caller_gone()
        if deadline.is_over():
            self._metrics.not_run.labels("expired").inc()
            return expired()
        return None
