"""How long a request may wait for its turn, and whether anybody still waits for its answer.

The middleware notes both when a request begins; whoever is about to do dear work for it asks. Work behind the scenes
has no turn and may wait. It knows neither HTTP nor queues.
"""

import time
from contextvars import ContextVar
from typing import NamedTuple


class CallerConnection:
    """A caller's connection."""

    __slots__ = ("cut",)

    def __init__(self) -> None:
        self.cut = False
        """Whether the caller has hung up."""


class Deadline(NamedTuple):
    """One request's."""

    ends_at: float
    """By `time.monotonic`: not begun by then, work is not begun at all."""
    line: CallerConnection | None
    """None where nobody can hang up."""
    seconds: float
    """How long a turn is waited for."""

    def is_over(self) -> bool:
        return time.monotonic() >= self.ends_at

    def is_in_vain(self) -> bool:
        """Whether nobody would read the answer."""
        return self.line is not None and self.line.cut


_turn: ContextVar[Deadline | None] = ContextVar("isrf_turn", default=None)


def start_deadline(seconds: float, line: CallerConnection | None) -> None:
    """From now on, for whatever this request does."""
    _turn.set(Deadline(time.monotonic() + seconds, line, seconds))


def renew_deadline() -> None:
    """The time begins again, for the next part of a request that has many."""
    turn = _turn.get()
    if turn is not None:
        start_deadline(turn.seconds, turn.line)


def current_deadline() -> Deadline | None:
    """None behind the scenes."""
    return _turn.get()
