"""Limits what callers hold at the same time, in total and per caller.

A caller is a key, or a client's address in development mode. Callers without a place are refused; none waits.
"""

from collections import Counter

from isrf.contract.errors import OverloadError
from service.inference.limits import refused

SHARED_FROM = 8
"""A single caller may hold all the places where there are fewer than this."""


class CallerLimits:
    """The places of one kind, on one event loop."""

    def __init__(self, total: int, *, per_caller: int, code: str, what: str) -> None:
        """code: of the refusal of a caller who holds too many. what: the kind of places, for its message."""
        self.total, self.per_caller = total, per_caller
        self.taken = 0
        self._code, self._what = code, what
        self._by_caller: Counter[str] = Counter()

    def take(self, caller: str) -> "Place":
        """Takes a place, which the returned context gives back.

        Raises:
            OverloadError: all places are taken, or this caller holds its share.
        """
        if self.taken >= self.total:
            raise refused()
        if self._by_caller[caller] >= self.per_caller:
            raise OverloadError(
                self._code,
                f"this caller has {self.per_caller} {self._what} in progress, which is the limit per caller.",
                fix="Wait for their answers, then send the request again.",
            )
        self.taken += 1
        self._by_caller[caller] += 1
        return Place(self, caller)

    def give_back(self, caller: str) -> None:
        self.taken -= 1
        self._by_caller[caller] -= 1
        if not self._by_caller[caller]:
            del self._by_caller[caller]


class Place:
    """A place that is held until the end of its `with` block."""

    __slots__ = ("_caller", "_places")

    def __init__(self, places: CallerLimits, caller: str) -> None:
        self._places, self._caller = places, caller

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._places.give_back(self._caller)


def share_of(total: int) -> int:
    """Returns how many of `total` places one caller may hold: three quarters."""
    return total if total < SHARED_FROM else total - total // 4
