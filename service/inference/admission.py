"""Admits or refuses requests; holds all limits and counts of a process.

The server asks it when the head of a request arrives, and each engine's queue asks it before work begins. In between, a
request holds places: while its body arrives and while its answer is made. The parts that ask carry out the decisions.
It knows no HTTP: its callers tell it whose request it is and what the request needs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto

from isrf.contract.errors import OverloadError
from service.inference.caller_limits import CallerLimits, share_of
from service.inference.deadline import CallerConnection, current_deadline, start_deadline
from service.inference.limits import WRITES_AT_ONCE, ConcurrencyLimit, LoadLimits, caller_gone, refused
from service.inference.model_shares import ModelCall, ModelShares
from service.inference.queue_limit import QueueLimit
from service.telemetry.metrics import Metrics

MAX_SENDERS, MAX_SENDERS_OF_ONE = 512, 128
"""Unfinished bodies; a body that arrives together with its head does not count."""
MAX_VISITORS, MAX_VISITORS_OF_ONE = 64, 16
"""Requests that need no key: callers without a key must not take the places of those with one."""
MAX_DELIVERIES, MAX_DELIVERIES_OF_ONE = 64, 16
"""Deliveries of shop systems that are answered, and as many whose body is unfinished: anybody may send one."""
MAX_BROWSERS, MAX_BROWSERS_OF_ONE = 512, 16
"""Beacons, each address with its share of the places that its key has: anybody may read a browser's key."""
MAX_IMPORTS, MAX_IMPORTS_OF_ONE = 16, 8
"""Bodies of lines: each may hold a batch of long lines in memory."""
MAX_STRANGERS = 512
"""Requests in progress of callers who have no key or need none; there is no limit for probes."""


class Arrival(Enum):
    """The kind of caller that a request comes from."""

    PROBE = auto()
    """From an orchestrator, a load balancer or a monitor: always answered."""
    KNOWN = auto()
    """From a caller with a key: counts towards `max_in_progress`."""
    STRANGER = auto()
    """From a caller who has no key or needs none: these have places of their own."""


class AdmissionController:
    """Decides which requests a process accepts; the app has one, on its event loop.

    Attributes:
        requests: places for requests that are being answered.
        senders: places for unfinished bodies.
        imports: places for bodies of lines.
        visitors: places for requests that need no key.
        deliveries: places for signed requests that are being answered.
        unfinished_deliveries: places for their unfinished bodies.
        browsers: places for requests with a browser's key, by address; they take those of their key as well.
        writes: places for posts of events.
        unread: connections of known callers who do not read their answer; they do not count as in progress.
    """

    def __init__(self, load: LoadLimits, metrics: Metrics, *, deadline_s: float = float("inf")) -> None:
        """deadline_s: how long a request may wait for its work to begin."""
        self._load, self._metrics, self._deadline_s = load, metrics, deadline_s
        many = "overload.too_many_at_once"
        most = load.max_in_progress
        self.requests = CallerLimits(most, per_caller=share_of(most), code=many, what="requests")
        self.senders = CallerLimits(MAX_SENDERS, per_caller=MAX_SENDERS_OF_ONE, code=many, what="unfinished bodies")
        self.imports = CallerLimits(MAX_IMPORTS, per_caller=MAX_IMPORTS_OF_ONE, code=many, what="imports")
        self.visitors = CallerLimits(MAX_VISITORS, per_caller=MAX_VISITORS_OF_ONE, code=many, what="requests")
        self.deliveries, self.unfinished_deliveries = (
            CallerLimits(MAX_DELIVERIES, per_caller=MAX_DELIVERIES_OF_ONE, code=many, what=what)
            for what in ("deliveries", "unfinished deliveries")
        )
        self.browsers = CallerLimits(MAX_BROWSERS, per_caller=MAX_BROWSERS_OF_ONE, code=many, what="beacons")
        self.writes = ConcurrencyLimit(WRITES_AT_ONCE)
        self.unread: set[object] = set()
        self._model = ModelShares()
        self._known = self._strangers = 0

    def admits(self, arrival: Arrival, call: ModelCall | None) -> bool:
        """Whether a request may go on after its head; `call` is None for requests that need no model."""
        if arrival is Arrival.PROBE:
            return True
        if arrival is Arrival.KNOWN:
            if self._known >= self._load.max_in_progress and self._is_full():
                return False
        elif self._strangers >= MAX_STRANGERS:
            return False
        return call is None or self._has_room(call)

    def begins(self, *, known: bool) -> None:
        """Counts a request as in progress, until `ends` is called with the same argument."""
        self._known += known
        self._strangers += not known

    def ends(self, *, known: bool) -> None:
        self._known -= known
        self._strangers -= not known

    def enter(self, call: ModelCall) -> None:
        """Counts an admitted request as one for the model, until `leave` is called with the same argument."""
        self._model.enter(call)

    def leave(self, call: ModelCall) -> None:
        self._model.leave(call)

    @contextmanager
    def at_model(self, call: ModelCall) -> Iterator[None]:
        """Counts a request as one for the model inside the block; for a request whose body must arrive first.

        Raises:
            OverloadError: the model has no room for it.
        """
        if not self._has_room(call):
            raise refused()
        self.enter(call)
        try:
            yield
        finally:
            self.leave(call)

    def start_deadline(self, connection: CallerConnection | None) -> None:
        """Starts the deadline of the current request, which also ends when its caller disconnects."""
        start_deadline(self._deadline_s, connection)

    def abandoned(self) -> OverloadError | None:
        """Returns an error where the current request's caller has disconnected, so that nobody needs the answer."""
        deadline = current_deadline()
        return caller_gone() if deadline is not None and deadline.is_abandoned() else None

    def queue(self) -> QueueLimit:
        """Returns the limit for the queue of one engine."""
        return QueueLimit(self._load, self._metrics)

    def _is_full(self) -> bool:
        if self.requests.taken >= self._load.max_in_progress:
            return True
        # Requests with places of another kind, such as unfinished bodies, are admitted and do not count.
        other_places = self.senders.taken + self.imports.taken
        return self._known - other_places - len(self.unread) >= self._load.max_in_progress

    def _has_room(self, call: ModelCall) -> bool:
        if self._model.has_room(call):
            return True
        self._metrics.not_run.labels("refused").inc()
        return False
