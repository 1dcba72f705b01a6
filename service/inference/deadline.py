"""Holds the deadline of the current request, and whether its caller is still connected.

The middleware sets both when a request begins; expensive steps check them first. Background work has no deadline. It
knows neither HTTP nor queues.
"""

import time
from contextvars import ContextVar
from typing import NamedTuple


class CallerConnection:
    """The state of the connection that a request came over."""

    __slots__ = ("is_closed",)

    def __init__(self) -> None:
        self.is_closed = False
        """Whether the caller has disconnected."""


class Deadline(NamedTuple):
    """The moment by which work for a request must begin."""

    ends_at: float
    """By `time.monotonic`; after this moment work for the request does not begin any more."""
    connection: CallerConnection | None
    """None where no caller can disconnect."""
    seconds: float
    """The length of the deadline."""

    def is_over(self) -> bool:
        return time.monotonic() >= self.ends_at

    def is_abandoned(self) -> bool:
        """Whether the caller has disconnected, so that nobody would read the answer."""
        return self.connection is not None and self.connection.is_closed


_deadline: ContextVar[Deadline | None] = ContextVar("isrf_deadline", default=None)


def start_deadline(seconds: float, connection: CallerConnection | None) -> None:
    """Sets the deadline of the current request."""
    _deadline.set(Deadline(time.monotonic() + seconds, connection, seconds))


def renew_deadline() -> None:
    """Restarts the deadline, for the next part of a request that has many."""
    deadline = _deadline.get()
    if deadline is not None:
        start_deadline(deadline.seconds, deadline.connection)


def current_deadline() -> Deadline | None:
    """Returns the deadline of the current request; None in background work."""
    return _deadline.get()
