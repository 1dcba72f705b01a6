"""Holds a release's users and their histories in arrays: a Python object per event would need too much memory."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.contract.ids import IdMap, UserId, UserIndex
from isrf.method.interest import BoolArray
from service.release.catalogue import Catalogue
from service.release.history_facts import Events, HistoryFacts
from service.state.events import MAX_TAIL
from service.state.merge import ReleasePast
from service.state.records import HistoryEntry

_TAIL_EVENTS = 2 * MAX_TAIL
"""Events that `ReleaseUsers.tail` looks at, as an item may be in several of them."""


class Dislikes(NamedTuple):
    """The items that users dislike, as CSR arrays."""

    indptr: NDArray[np.int64]  # (U + 1,)
    items: NDArray[np.int32]


class ReleaseUsers:
    """The users of a release; frozen."""

    def __init__(
        self, ids: IdMap[UserId, UserIndex], catalogue: Catalogue, *, events: Events, dislikes: Dislikes
    ) -> None:
        self.ids, self._catalogue = ids, catalogue
        self._events, self._dislikes = events, dislikes
        self.facts = HistoryFacts(events, catalogue.groups)
        """What all histories say about the items."""

    def __len__(self) -> int:
        return len(self.ids)

    def row(self, user_id: str) -> int:
        """Returns the user's row, −1 for an unknown user."""
        row = self.ids.index(UserId(user_id))
        return -1 if row is None else int(row)

    def tail(self, user_id: str) -> list[HistoryEntry]:
        """Returns the last items of a user's history, latest first, each once; at most `MAX_TAIL`."""
        row = self.row(user_id)
        if row < 0:
            return []
        events = self._events
        start, end = int(events.indptr[row]), int(events.indptr[row + 1])
        span = slice(max(start, end - _TAIL_EVENTS), end)
        found: dict[int, HistoryEntry] = {}
        for item, timestamp in zip(
            events.items[span][::-1].tolist(), events.timestamps[span][::-1].tolist(), strict=True
        ):
            if item not in found:
                found[item] = HistoryEntry(self._catalogue.item_id(item), None if math.isnan(timestamp) else timestamp)
                if len(found) == MAX_TAIL:
                    break
        return list(found.values())

    def past(self, user_id: str, excludes: Callable[[str], bool]) -> ReleasePast:
        """Returns the release's history of a user, an empty one for an unknown user.

        Args:
            excludes: whether an event of this type excludes its item.
        """
        row = self.row(user_id)
        if row < 0:
            return ReleasePast()
        events = self._events
        span = slice(int(events.indptr[row]), int(events.indptr[row + 1]))
        history = [
            HistoryEntry(self._catalogue.item_id(int(item)), None if np.isnan(timestamp) else float(timestamp))
            for item, timestamp in zip(events.items[span], events.timestamps[span], strict=True)
        ]
        excluding: BoolArray = np.array([excludes(name) for name in events.kind_names], dtype=np.bool_)
        bought: list[bool] = excluding[events.kinds[span]].tolist() if history else []
        disliked = self._dislikes.items[int(self._dislikes.indptr[row]) : int(self._dislikes.indptr[row + 1])]
        return ReleasePast(history, bought, [self._catalogue.item_id(int(item)) for item in disliked])
