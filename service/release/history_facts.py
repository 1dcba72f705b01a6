"""What all histories of a release say about its items: when each was first seen, taken together, bought again.

Computed when it is first needed, from arrays that the release holds anyway, and kept: a second or less for a million
events. They are the release's alone: events since do not change them.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.method.evidence import SparseLists
from isrf.method.kinds.repurchase import Repurchases, repurchases
from isrf.method.kinds.together import basket_lists
from isrf.method.recommend.live.live_events import TakenItems
from isrf.method.recommend.product_groups import ProductGroups


class Events(NamedTuple):
    """The users' events as CSR arrays, oldest first."""

    indptr: NDArray[np.int64]  # (U + 1,)
    items: NDArray[np.int32]  # (events,) rows of the catalogue
    timestamps: NDArray[np.float64]  # (events,) NaN where an event has no time
    kinds: NDArray[np.int32]  # (events,) indices into `kind_names`
    kind_names: Sequence[str]  # event types
    kind_weights: Sequence[int]  # of each, in units of 1 / `UNIT_WEIGHT`


class HistoryFacts:
    """Facts of one release's histories; frozen."""

    def __init__(self, events: Events, groups: ProductGroups) -> None:
        """groups: of the release's items."""
        self._events, self._groups, self._num_items = events, groups, len(groups)
        self._bought_again: tuple[tuple[bool, ...], Repurchases] | None = None

    @cached_property
    def first_seen(self) -> NDArray[np.float64]:
        """(N,) seconds of the first event on each item; infinite where none has a time."""
        events = self._events
        found = np.full(self._num_items, np.inf)
        timed = np.isfinite(events.timestamps)
        np.minimum.at(found, events.items[timed], events.timestamps[timed])
        return found

    @cached_property
    def latest_s(self) -> float:
        """Seconds of the latest event, −∞ where none has a time."""
        times = self._events.timestamps
        return float(times.max(initial=-np.inf, where=np.isfinite(times)))

    def between(self, start_s: float, end_s: float) -> TakenItems:
        """The events with start ≤ timestamp < end, seconds, each with the weight of its type."""
        events = self._events
        inside = np.flatnonzero((events.timestamps >= start_s) & (events.timestamps < end_s))
        weights = np.array(events.kind_weights, np.int64)[events.kinds[inside]]
        return TakenItems(events.items[inside].astype(np.int64), weights)

    @cached_property
    def baskets(self) -> SparseLists:
        """A row per item: what was taken on the same day."""
        events = self._events
        return basket_lists(
            events.indptr,
            events.items,
            events.timestamps,
            num_items=self._num_items,
            first_variants=self._groups.first if self._groups.any else None,
        )

    def repurchases(self, buys: Callable[[str], bool]) -> Repurchases:
        """What is bought again.

        Args:
            buys: whether an event of this type is a purchase.
        """
        buying = tuple(buys(name) for name in self._events.kind_names)
        kept = self._bought_again
        if kept is None or kept[0] != buying:
            events = self._events
            bought = np.array(buying, dtype=np.bool_)[events.kinds] if buying else np.zeros(0, dtype=np.bool_)
            found = repurchases(events.indptr, events.items, events.timestamps, bought, num_items=self._num_items)
            kept = self._bought_again = buying, found
        return kept[1]
