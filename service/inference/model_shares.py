"""Counts the callers of the model, and limits the share of one caller while others call too."""

import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, TypeVar

K = TypeVar("K")

OTHERS_S = 10.0
"""For this many seconds after a call, a caller counts among those who share the model."""


class ModelCall(NamedTuple):
    """A request for the model.

    Attributes:
        answer_key: equal for callers who share one answer.
        caller: the caller that it counts for; None for a stranger, who does not count.
        has_room: whether the model can make its list, given how many lists are in progress (first argument) and
            whether this list is one of them (second argument).
    """

    answer_key: object
    caller: str | None
    has_room: Callable[[int, bool], bool]


class ModelShares:
    """The requests for the model in one process, on its event loop."""

    def __init__(self) -> None:
        # Requests by answer: requests for the same list share one computation.
        self._by_answer: Counter[object] = Counter()
        self._by_caller: Counter[str] = Counter()
        self._last_caller, self._shared_until = "", 0.0

    def has_room(self, call: ModelCall) -> bool:
        """Whether the model has room for one more request."""
        in_progress = max(len(self._by_answer), self._share_based_count(call.caller))
        return call.has_room(in_progress, call.answer_key in self._by_answer)

    def enter(self, call: ModelCall) -> None:
        """Counts a request until `leave`; a stranger's is refused before the model, and does not count."""
        if call.caller is not None:
            self._by_answer[call.answer_key] += 1
            self._by_caller[call.caller] += 1

    def leave(self, call: ModelCall) -> None:
        if call.caller is not None:
            _decrement(self._by_answer, call.answer_key)
            _decrement(self._by_caller, call.caller)

    def _share_based_count(self, caller: str | None) -> int:
        """Returns 4/3 of the caller's requests while others call too: a caller may fill three quarters of the room."""
        if caller is None:
            return 0
        now = time.monotonic()
        if caller != self._last_caller:
            if self._last_caller:
                self._shared_until = now + OTHERS_S
            self._last_caller = caller
        return -(-self._by_caller[caller] * 4 // 3) if now < self._shared_until else 0


def _decrement(counts: Counter[K], key: K) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
