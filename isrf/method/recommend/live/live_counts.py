"""Counts of accepted events by item, in a ring of fixed size: the newest events of all users.

An event names the items that its user took before it, so counting needs no state of users. The ring holds the events;
`EventChains` finds, per item, those that name it. A row is counted from its events when it is asked for.

All weights are integers, so equal events give equal counts in whatever order the users' streams are read. An event
counts as its weight times 2^((t - reference) / half-life): a release's own counts weigh as if they were made at the
reference time, and they lose weight against newer events without a clock.
It knows neither stores nor the names of users. Threads may read while one adds.
"""

import math
import threading
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from isrf.contract.event_log import FOLLOWED_ITEMS, NUM_BUCKETS
from isrf.method.interest import IntArray
from isrf.method.recommend.live.event_chains import MAX_EVENTS, NAMES, EventChains, NamedItems
from isrf.method.recommend.live.live_events import (
    UNIT_WEIGHT,
    CountedEvent,
    CountedRows,
    LiveBatch,
    LiveEvent,
    TakenItems,
    decayed,
    value_or_zero,
)
from isrf.method.recommend.product_groups import ProductGroups

ROW_EVENTS = 2_000
"""The latest events that name an item, or a variant of it, from which its row is counted: the bound of its work."""
ROW_LENGTH = 200
"""The heaviest columns that are kept of a row."""
ROWS_KEPT = 256
"""Counted rows that are kept: a request reads them several times, and `LiveLists` keeps what it makes of them."""
PART = 1_000
"""Events that are counted at once, about a millisecond, while readers of rows wait."""
BYTES_PER_EVENT = 108
"""Memory of one event in the ring: 105 bytes in the arrays. With all that is counted beside it, a million events take
116 MB (`benchmarks/live_evidence.py`, before the 8 bytes of weights)."""

_OLDEST, _NEWEST = -20.0, 5.0
_PAIR_ONE = 1 << 8
_PAIR_WEIGHTS = np.array([round(_PAIR_ONE / math.log2(2 + count)) for count in range(FOLLOWED_ITEMS + 2)])
"""By the number of the user's items: 1 / log2(2 + n), as in `isrf.method.evidence.count_cooccurrence`."""
_64_BITS = (1 << 64) - 1
_MIX, _ONE_64 = np.uint64(0x9E3779B97F4A7C15), np.uint64(1)
"""Make another identity of one, for an event that a `remove` has changed."""


LiveChannel: TypeAlias = Literal["transition", "cooccurrence"]


class LiveRow(NamedTuple):
    """What live events say beside one item; columns are ascending, counts in units of one event of weight 1."""

    transition: IntArray  # (t,) items that followed it
    transition_counts: NDArray[np.float64]  # (t,)
    together: IntArray  # (c,) items that the same users took
    together_counts: NDArray[np.float64]  # (c,)


class _KeptRow(NamedTuple):
    """A counted row and what it was counted from."""

    version: int
    groups: ProductGroups | None
    row: LiveRow


class LiveCounts:
    """The ring, its index, and the rows counted from them."""

    def __init__(self, *, reference_s: float, half_life_s: float, window: int, max_events: int) -> None:
        """
        Args:
            reference_s: the time at which an event weighs as much as one of the release's own.
            half_life_s: in which a weight doubles.
            window: steps after an item that count as a transition from it.
            max_events: size of the ring; the oldest event falls out.
        """
        self._reference_s, self._half_life_s, self._window = reference_s, half_life_s, window
        self._size = size = min(max_events, MAX_EVENTS)
        # Pages that nothing was written to take no memory.
        self._named = np.zeros((size, NAMES), np.int32)  # the event's item, then those before it; −1: none
        self._weights = np.zeros(size, np.int64)  # by now, from 1 to 2^35; 0: taken out
        self._own_weights = np.zeros(size, np.int32)  # of the events, whatever their age
        self._users = np.zeros(size, np.uint32)
        self._timestamps = np.zeros(size, np.float64)
        self._identities = np.zeros(size, np.uint64)
        self._num_followed = np.zeros(size, np.uint8)
        self._next = 0
        self._chains = EventChains(size)
        self._versions = np.zeros(1024, np.uint64)  # by item
        self._takers = np.zeros(1024, np.int64)  # by item
        self._rows: dict[int, _KeptRow] = {}  # by the item, or the first of its variants
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Events in the ring."""
        return min(self._next, self._size)

    def add(self, event: LiveEvent) -> None:
        """Counts an event; the oldest of a full ring falls out."""
        item, followed, timestamp, user_hash, identity, own_weight = event
        exponent = min(max((timestamp - self._reference_s) / self._half_life_s, _OLDEST), _NEWEST)
        weight = max(round(own_weight * 2.0**exponent), 1)
        rows = [item, *followed[:FOLLOWED_ITEMS]]
        with self._lock:
            place = self._next % self._size
            if self._next >= self._size:
                self._forget(np.array([place]))
            self._grow(max(rows))
            self._named[place] = rows + [-1] * (NAMES - len(rows))
            self._weights[place], self._own_weights[place] = weight, own_weight
            self._users[place], self._timestamps[place] = user_hash, timestamp
            self._identities[place], self._num_followed[place] = identity & _64_BITS, len(rows) - 1
            self._takers[item] += weight
            self._versions[rows] += self._identities[place : place + 1]
            self._chains.append(self._next, rows)
            self._next += 1

    def add_all(self, batch: LiveBatch) -> None:
        """Counts events as `add` does, one after the other."""
        for start in range(0, batch.num_events, min(PART, self._size)):
            self._add_part(batch.where(slice(start, start + min(PART, self._size))))

    def _add_part(self, batch: LiveBatch) -> None:
        """Counts events; no more than the ring holds."""
        scale = {"reference_s": self._reference_s, "half_life_s": self._half_life_s}
        weights = np.rint(batch.weights * decayed(batch.timestamps, **scale, bounds=(_OLDEST, _NEWEST)))
        weights = np.maximum(weights, 1).astype(np.int64)
        rows = np.concatenate([batch.items[:, None].astype(np.int32), batch.followed], axis=1)
        named = NamedItems.of(rows)
        with self._lock:
            numbers = self._next + np.arange(len(rows))
            places = numbers % self._size
            self._forget(places[numbers >= self._size])
            self._grow(int(named.items[-1]))
            self._named[places] = rows
            self._weights[places], self._own_weights[places] = weights, batch.weights
            self._users[places] = batch.user_hashes
            self._timestamps[places], self._identities[places] = batch.timestamps, batch.identities
            self._num_followed[places] = (batch.followed >= 0).sum(axis=1)
            np.add.at(self._takers, batch.items, weights)
            self._versions[named.items] += _sums(batch.identities, named)
            self._chains.append_all(self._next, named, num_events=len(rows))
            self._next += len(rows)

    def take_out_bucket(self, bucket: int) -> list[CountedEvent]:
        """Takes out all events of a bucket's users, so that they can be counted again from the stream; returns them."""
        with self._lock:
            of_bucket = self._users[: len(self)] % NUM_BUCKETS == bucket
            return self._take_out(np.flatnonzero(of_bucket & (self._weights[: len(self)] > 0)))

    def take_back(self, item: int, user_hash: int, until_s: float) -> list[CountedEvent]:
        """Takes out a user's events on an item up to a moment, and the item from what the user's later events followed.

        Returns:
            the events that were taken out.
        """
        with self._lock:
            places, names = self._naming_of(user_hash, item)
            after = (names > 0) & (self._timestamps[places] >= until_s)
            changed = places[after]
            self._change_versions(np.subtract, changed)
            self._named[changed, names[after]] = -1
            self._identities[changed] = self._identities[changed] * _MIX + _ONE_64
            self._change_versions(np.add, changed)
            return self._take_out(places[(names == 0) & (self._timestamps[places] <= until_s)])

    def row(self, item: int) -> LiveRow:
        """What the events say beside an item."""
        return self.rows([item])[0]

    def rows(self, items: Sequence[int], groups: ProductGroups | None = None) -> list[LiveRow]:
        """What the events say beside each of some distinct items; to count them together is faster.

        Args:
            groups: variants have the sum of their rows, without columns of the product; None: there are none.
        """
        firsts = items if groups is None else [groups.first_of(item) for item in items]
        found = {first: self._rows.get(first) for first in firsts}
        missing = [
            first
            for first, kept in found.items()
            if kept is None or kept.groups is not groups or kept.version != self.version(first, groups)
        ]
        if missing:
            with self._lock:
                for first, row in zip(missing, self._counted(missing, groups), strict=True):
                    found[first] = self._rows[first] = _KeptRow(self.version(first, groups), groups, row)
                while len(self._rows) > ROWS_KEPT:
                    del self._rows[next(iter(self._rows))]
        return [kept.row for kept in map(found.get, firsts) if kept is not None]

    def version(self, item: int, groups: ProductGroups | None = None) -> int:
        """64 bits that equal events beside an item, or its variants, make equal, 0 for none."""
        versions = self._versions
        if groups is not None and groups.any and len(members := groups.members(item)) > 1:
            return int(versions[members[members < len(versions)]].sum())
        return int(versions[item]) if item < len(versions) else 0

    def takers(self, items: IntArray) -> NDArray[np.float64]:
        """(c,) item rows → (c,) weights of the events on each."""
        return value_or_zero(self._takers, items) / UNIT_WEIGHT

    def people(
        self,
        item: int,
        other: int,
        *,
        channel: LiveChannel,
        groups: ProductGroups | None = None,
        apart_from: int | None = None,
    ) -> int:
        """How many users are behind an entry of an item's row, among its latest `ROW_EVENTS` events.

        Args:
            item: whose row it is.
            other: the entry's column.
            channel: `transition` counts those who took `other` within the window after `item`, `cooccurrence` those who
                took both in any order.
            groups: a variant of `item` counts as the item; None: there are none.
            apart_from: the hash of a user who is not counted; None: everybody is.
        """
        with self._lock:
            _, places, names = self._naming([item], groups)
            named = self._named[places]
            taken = (names > 0) & (named[:, 0] == other)
            if channel == "transition":
                taken &= names <= self._window
            else:
                taken |= (names == 0) & (named[:, 1:] == other).any(axis=1)
            users = np.unique(self._users[places][taken])
            return len(users) if apart_from is None else int((users != apart_from).sum())

    def latest_s(self) -> float:
        """Seconds of the latest event in the ring, −∞ where there is none."""
        with self._lock:
            kept = self._weights[: len(self)] > 0
            return float(self._timestamps[: len(self)].max(initial=-np.inf, where=kept))

    def between(self, start_s: float, end_s: float) -> TakenItems:
        """The events in the ring with start ≤ timestamp < end, seconds, whatever their age."""
        with self._lock:
            times = self._timestamps[: len(self)]
            inside = (times >= start_s) & (times < end_s) & (self._weights[: len(self)] > 0)
            items, weights = (column[: len(self)][inside] for column in (self._named[:, 0], self._own_weights))
            return TakenItems(items.astype(np.int64), weights.astype(np.int64))

    def _naming(self, items: Sequence[int], groups: ProductGroups | None) -> tuple[IntArray, IntArray, IntArray]:
        """The latest events that name each of some items, or a variant of it, and were not taken out.

        Returns:
            (n,) the item's number among `items`, ascending; the place in the ring, an item's newest first; and which of
            the event's names the item is, 0 its own.
        """
        products = [np.array([item]) if groups is None else groups.members(item) for item in items]
        found = [self._chains.slots_of_all(rows, self._next - 1, limit=ROW_EVENTS) for rows in products]
        numbers = np.repeat(np.arange(len(items)), [len(slots) for slots in found])
        events, names = np.divmod(np.concatenate(found), NAMES)
        places = events % self._size
        kept = (self._weights[places] > 0) & (self._named[places, names] >= 0)  # what is taken back is named no more
        return numbers[kept], places[kept], names[kept]

    def _naming_of(self, user_hash: int, item: int) -> tuple[IntArray, IntArray]:
        """All of a user's events that name an item and were not taken out.

        Returns:
            (n,) the place in the ring, and which of the event's names the item is, as `_naming`.
        """
        if len(self._chains.slots(item, self._next - 1, limit=ROW_EVENTS)) < ROW_EVENTS:
            _, places, names = self._naming([item], None)
            of_user = self._users[places] == user_hash
            return places[of_user], names[of_user]
        # Older events may name it too: a pass over the ring is faster than such a long list.
        of_user = (self._users[: len(self)] == user_hash) & (self._weights[: len(self)] > 0)
        places = np.flatnonzero(of_user)
        rows, names = np.nonzero(self._named[places] == item)
        return places[rows], names

    def _counted(self, items: Sequence[int], groups: ProductGroups | None) -> list[LiveRow]:
        numbers, places, steps = self._naming(items, groups)
        named, weights = self._named[places], self._weights[places]
        pairs = weights * _PAIR_WEIGHTS[(named >= 0).sum(axis=1)]
        after, own = np.flatnonzero(steps), np.flatnonzero(steps == 0)
        near = after[steps[after] <= self._window]
        columns = named[own, 1:]
        known = columns >= 0
        num_known = known.sum(axis=1)
        rows = np.array(items, np.int64)

        def counted(of: IntArray, columns: NDArray[np.int32], counts: IntArray) -> CountedRows:
            if groups is not None:
                others = ~groups.are_variants(rows[of], columns)
                of, columns, counts = of[others], columns[others], counts[others]
            return CountedRows.of(of, columns, counts)

        transition = counted(numbers[near], named[near, 0], weights[near] // steps[near])
        together = counted(
            np.concatenate([numbers[after], np.repeat(numbers[own], num_known)]),
            np.concatenate([named[after, 0], columns[known]]),
            np.concatenate([pairs[after], np.repeat(pairs[own], num_known)]),
        )
        both = zip(
            transition.split(len(items), limit=ROW_LENGTH, one=UNIT_WEIGHT),
            together.split(len(items), limit=ROW_LENGTH, one=UNIT_WEIGHT * _PAIR_ONE),
            strict=True,
        )
        return [LiveRow(*one, *other) for one, other in both]

    def _take_out(self, places: IntArray) -> list[CountedEvent]:
        self._forget(places)
        self._weights[places] = 0
        kept = self._named[:, 0], self._timestamps, self._num_followed, self._own_weights
        columns = (column[places].tolist() for column in kept)
        return [CountedEvent(*event) for event in zip(*columns, strict=True)]

    def _forget(self, places: IntArray) -> None:
        """Takes events out of takers and versions, unless they were taken out before."""
        places = places[self._weights[places] > 0]
        np.subtract.at(self._takers, self._named[places, 0], self._weights[places])
        self._change_versions(np.subtract, places)

    def _change_versions(self, change: np.ufunc, places: IntArray) -> None:
        """Adds events to the versions of the items that they name, or subtracts them."""
        if len(places):
            named = NamedItems.of(self._named[places])
            sums = _sums(self._identities[places], named)
            self._versions[named.items] = change(self._versions[named.items], sums)

    def _grow(self, item: int) -> None:
        if item >= len(self._versions):
            more = item + 1
            self._versions = np.concatenate([self._versions, np.zeros(more, np.uint64)])
            self._takers = np.concatenate([self._takers, np.zeros(more, np.int64)])


def _sums(identities: NDArray[np.uint64], named: NamedItems) -> NDArray[np.uint64]:
    """By item the sum of the identities (E,) of the events that name it, modulo 2^64."""
    return np.add.reduceat(identities[named.slots // NAMES], named.starts)
