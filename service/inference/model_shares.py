"""Who is at the model or on the way to it, and what part of it is one caller's while others call, too."""

import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, TypeVar

K = TypeVar("K")

OTHERS_S = 10.0
"""Who has called within so many seconds counts among those with whom the model is shared."""


class ModelCall(NamedTuple):
    """A request that the model answers.

    Attributes:
        made: equal for callers who get one answer.
        caller: by whom it is counted; None for a stranger, who is no other caller to those who have a key.
        has_room: whether its list may be asked for while so many are under way (the first argument), and perhaps it
            is one of them (the second).
    """

    made: object
    caller: str | None
    has_room: Callable[[int, bool], bool]


class ModelShares:
    """Of one process; on its event loop."""

    def __init__(self) -> None:
        # Callers by what is made for them: who asks for a list that somebody is just asking for shares its making.
        self._by_made: Counter[object] = Counter()
        self._by_caller: Counter[str] = Counter()
        self._last_caller, self._shared_until = "", 0.0

    def has_room(self, call: ModelCall) -> bool:
        """Whether it may come, too."""
        return call.has_room(max(len(self._by_made), self._as_if_alone(call.caller)), call.made in self._by_made)

    def enter(self, call: ModelCall) -> None:
        """Counts it until `leave`; a stranger gets no further than the door, and is not counted."""
        if call.caller is not None:
            self._by_made[call.made] += 1
            self._by_caller[call.caller] += 1

    def leave(self, call: ModelCall) -> None:
        if call.caller is not None:
            _less(self._by_made, call.made)
            _less(self._by_caller, call.caller)

    def _as_if_alone(self, caller: str | None) -> int:
        """How many are inside as far as this caller is concerned: three quarters are all, while others call too."""
        if caller is None:
            return 0
        now = time.monotonic()
        if caller != self._last_caller:
            if self._last_caller:
                self._shared_until = now + OTHERS_S
            self._last_caller = caller
        return -(-self._by_caller[caller] * 4 // 3) if now < self._shared_until else 0


def _less(counts: Counter[K], key: K) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
