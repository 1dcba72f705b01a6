"""Whether a request may come in, and whether its work may begin: all limits of a process and all counts, in one place.

It is asked once at the wire, before anything is made of a request, and once at each engine's queue, before work is
done; between them places are held, while a body comes or an answer is made. Whoever asks carries out what it says. It
knows no HTTP: who calls, and what for, it is told.
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
"""Bodies that are on their way; those that came with their head are none."""
MAX_VISITORS, MAX_VISITORS_OF_ONE = 64, 16
"""Requests for what needs no key: who has none must not take the places of those who have one."""
MAX_IMPORTS, MAX_IMPORTS_OF_ONE = 16, 8
"""Bodies of lines: each may hold a batch of long ones."""
MAX_STRANGERS = 512
"""Requests under way of callers who have no key, or need none; probes are let in however many there are."""


class Arrival(Enum):
    """Whose request comes."""

    PROBE = auto()
    """Of who restarts, routes or watches: answered however full it is."""
    KNOWN = auto()
    """Of a caller: one of those of which so many may be under way."""
    STRANGER = auto()
    """Of who has no key or needs none: they have places of their own."""


class AdmissionController:
    """One per app, on its event loop.

    Attributes:
        requests: places of requests that are being answered.
        senders: of bodies on their way.
        imports: of bodies of lines.
        visitors: of requests for what needs no key.
        writes: of posts of events.
        unread: connections of known callers who do not read: without a place, as who was refused, they do not count.
    """

    def __init__(self, load: LoadLimits, metrics: Metrics, *, deadline_s: float = float("inf")) -> None:
        """`deadline_s` is how long a request may wait for its work to begin."""
        self._load, self._metrics, self._deadline_s = load, metrics, deadline_s
        many = "overload.too_many_at_once"
        most = load.max_in_progress
        self.requests = CallerLimits(most, per_caller=share_of(most), code=many, what="requests")
        self.senders = CallerLimits(MAX_SENDERS, per_caller=MAX_SENDERS_OF_ONE, code=many, what="unfinished bodies")
        self.imports = CallerLimits(MAX_IMPORTS, per_caller=MAX_IMPORTS_OF_ONE, code=many, what="imports")
        self.visitors = CallerLimits(MAX_VISITORS, per_caller=MAX_VISITORS_OF_ONE, code=many, what="requests")
        self.writes = ConcurrencyLimit(WRITES_AT_ONCE)
        self.unread: set[object] = set()
        self._model = ModelShares()
        self._known = self._strangers = 0

    def may_come_in(self, arrival: Arrival, call: ModelCall | None) -> bool:
        """Whether a request whose head has come goes on; `call` is None for what the model does not answer."""
        if arrival is Arrival.PROBE:
            return True
        if arrival is Arrival.KNOWN:
            if self._known >= self._load.max_in_progress and self._is_full():
                return False
        elif self._strangers >= MAX_STRANGERS:
            return False
        return call is None or self._has_room(call)

    def begins(self, *, known: bool) -> None:
        """A request is under way, until `ends` is called with the same."""
        self._known += known
        self._strangers += not known

    def ends(self, *, known: bool) -> None:
        self._known -= known
        self._strangers -= not known

    def enter(self, call: ModelCall) -> None:
        """A request that came in is at the model or on its way to it, until `leave` is called with the same."""
        self._model.enter(call)

    def leave(self, call: ModelCall) -> None:
        self._model.leave(call)

    @contextmanager
    def at_model(self, call: ModelCall) -> Iterator[None]:
        """At the model until the end: for a request whose body had to come first.

        Raises:
            OverloadError: it must not come in.
        """
        if not self._has_room(call):
            raise refused()
        self.enter(call)
        try:
            yield
        finally:
            self.leave(call)

    def start_deadline(self, connection: CallerConnection | None) -> None:
        """The request that begins now has so long, and only while its caller is there."""
        start_deadline(self._deadline_s, connection)

    def why_in_vain(self) -> OverloadError | None:
        """Why the request of now need not go on: its caller gave up while this process was behind."""
        deadline = current_deadline()
        return caller_gone() if deadline is not None and deadline.is_in_vain() else None

    def queue(self) -> QueueLimit:
        """The limit of one more engine's queue."""
        return QueueLimit(self._load, self._metrics)

    def _is_full(self) -> bool:
        if self.requests.taken >= self._load.max_in_progress:
            return True
        # Who holds places of another kind, such as senders of bodies, came in but is not counted.
        apart = self.senders.taken + self.imports.taken
        return self._known - apart - len(self.unread) >= self._load.max_in_progress

    def _has_room(self, call: ModelCall) -> bool:
        if self._model.has_room(call):
            return True
        self._metrics.not_run.labels("refused").inc()
        return False
