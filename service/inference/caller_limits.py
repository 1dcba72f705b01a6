"""Places that callers hold at the same time: so many in all, and of these no caller all.

A caller is a key, in development mode a client's address. Whoever finds none is refused, not kept waiting.
"""

from collections import Counter

from isrf.contract.errors import OverloadError
from service.inference.limits import refused

SHARED_FROM = 8
"""Of fewer places than this one caller may hold all: there is nothing to share."""


class CallerLimits:
    """One kind of places; on one event loop."""

    def __init__(self, total: int, *, per_caller: int, code: str, what: str) -> None:
        """`what` says in the refusal what a caller has too many of; `code` is that refusal's."""
        self.total, self.per_caller = total, per_caller
        self.taken = 0
        self._code, self._what = code, what
        self._by_caller: Counter[str] = Counter()

    def take(self, caller: str) -> "Place":
        """A place, for a `with` that gives it back.

        Raises:
            OverloadError: all are taken, or this caller holds as many as one may.
        """
        if self.taken >= self.total:
            raise refused()
        if self._by_caller[caller] >= self.per_caller:
            raise OverloadError(
                self._code,
                f"this caller has {self.per_caller} {self._what} under way, as many as one may have at a time.",
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
    """One that is held until the end of its `with`."""

    __slots__ = ("_caller", "_places")

    def __init__(self, places: CallerLimits, caller: str) -> None:
        self._places, self._caller = places, caller

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._places.give_back(self._caller)


def share_of(total: int) -> int:
    """How many of `total` places one caller may hold: three quarters."""
    return total if total < SHARED_FROM else total - total // 4
