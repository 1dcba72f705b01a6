"""How long a request may wait for the model, and whether anybody still waits for its answer.

The middleware notes both when a request begins; whoever is about to do dear work for it asks. Work behind the scenes
has no deadline and may wait. It knows neither HTTP nor queues.
"""

import time
from contextvars import ContextVar
from typing import NamedTuple


class CallerConnection:
    """Whether the connection that a request came by still stands."""

    __slots__ = ("cut",)

    def __init__(self) -> None:
        self.cut = False
        """Whether the caller has hung up."""


class Deadline(NamedTuple):
    """By when work for one request must have begun."""

    ends_at: float
    """By `time.monotonic`: not begun by then, work is not begun at all."""
    connection: CallerConnection | None
    """None where nobody can hang up."""
    seconds: float
    """How long it was from the start."""

    def is_over(self) -> bool:
        return time.monotonic() >= self.ends_at

    def is_in_vain(self) -> bool:
        """Whether nobody would read the answer."""
        return self.connection is not None and self.connection.cut


_deadline: ContextVar[Deadline | None] = ContextVar("isrf_deadline", default=None)


def start_deadline(seconds: float, connection: CallerConnection | None) -> None:
    """From now on, for whatever this request does."""
    _deadline.set(Deadline(time.monotonic() + seconds, connection, seconds))


def renew_deadline() -> None:
    """The time begins again, for the next part of a request that has many."""
    deadline = _deadline.get()
    if deadline is not None:
        start_deadline(deadline.seconds, deadline.connection)


def current_deadline() -> Deadline | None:
    """None behind the scenes."""
    return _deadline.get()
