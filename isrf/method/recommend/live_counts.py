"""Counts of accepted events by item, in a ring of fixed size: the newest events of all users.

An event names the items that its user took before it, so counting needs no state of users. The ring holds the events;
an index holds, per item, the numbers of the events that name it. A row is counted from its events when it is asked for.

All weights are integers, so equal events give equal counts in whatever order the users' streams are read. An event's
weight is 2^((t - reference) / half-life): a release's own counts weigh as if they were made at the reference time, and
they lose weight against newer events without a clock.
It knows neither stores nor the names of users. Threads may read while one adds.
"""

import math
import threading
from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.contract.event_log import FOLLOWED_ITEMS, NUM_BUCKETS
from isrf.method.interest import IntArray

ROW_EVENTS = 2_000
"""The latest events that name an item, from which its row is counted: the bound of a row's work."""
ROW_LENGTH = 200
"""The heaviest columns that are kept of a row."""
BYTES_PER_EVENT = 150
"""Memory of one event in the ring and the index, as `benchmarks/live_evidence.py` measures it."""

_ONE = 1 << 20
"""A weight of 1. Weights are from 2^-20 to 2^5 of it: a row's sums stay below 2^53."""
_OLDEST, _NEWEST = -20.0, 5.0
_PAIR_ONE = 1 << 8
_PAIR_WEIGHTS = np.array([round(_PAIR_ONE / math.log2(2 + count)) for count in range(FOLLOWED_ITEMS + 2)])
"""By the number of the user's items: 1 / log2(2 + n), as in `isrf.method.evidence.cooccurrence_lists`."""
_64_BITS = (1 << 64) - 1


class LiveEvent(NamedTuple):
    """One event that counts, in item rows of a recommender."""

    item: int
    followed: Sequence[int]  # distinct items that the user took before it, most recent first, without `item`
    timestamp: float  # seconds
    user_hash: int  # 32 bits; the user's bucket is `user_hash % NUM_BUCKETS`
    identity: int  # equal for equal events in every process, whatever rows their items have


class CountedEvent(NamedTuple):
    """An event that was counted, as far as popularity needs it."""

    item: int
    timestamp: float  # seconds
    num_followed: int


class LiveRow(NamedTuple):
    """What live events say beside one item; columns are ascending, counts in units of one event of weight 1."""

    transition: IntArray  # (t,) items that followed it
    transition_counts: NDArray[np.float64]  # (t,)
    together: IntArray  # (c,) items that the same users took
    together_counts: NDArray[np.float64]  # (c,)


_NO_ROWS, _NO_COUNTS = np.zeros(0, np.int64), np.zeros(0, np.float64)
NO_ROW = LiveRow(_NO_ROWS, _NO_COUNTS, _NO_ROWS, _NO_COUNTS)


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
        # Pages that nothing was written to take no memory.
        self._items = np.zeros(max_events, np.int32)
        self._followed = np.empty((max_events, FOLLOWED_ITEMS), np.int32)
        self._weights = np.zeros(max_events, np.int32)  # 0: taken out
        self._users = np.zeros(max_events, np.uint32)
        self._timestamps = np.zeros(max_events, np.float64)
        self._identities = np.zeros(max_events, np.uint64)
        self._num_followed = np.zeros(max_events, np.uint8)
        self._next = 0
        self._index: dict[int, array[int]] = {}
        self._versions: dict[int, int] = {}
        self._takers = np.zeros(1024, np.int64)
        self._rows: dict[int, LiveRow] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Events in the ring."""
        return min(self._next, len(self._items))

    def add(self, event: LiveEvent) -> None:
        """Counts an event; the oldest of a full ring falls out."""
        item, followed, timestamp, user_hash, identity = event
        exponent = min(max((timestamp - self._reference_s) / self._half_life_s, _OLDEST), _NEWEST)
        weight = round(_ONE * 2.0**exponent)
        named = list(followed[:FOLLOWED_ITEMS])
        with self._lock:
            place = self._next % len(self._items)
            if self._next >= len(self._items):
                self._drop(place)
            self._items[place], self._weights[place], self._users[place] = item, weight, user_hash
            self._timestamps[place], self._identities[place] = timestamp, identity & _64_BITS
            self._num_followed[place] = len(named)
            self._followed[place] = named + [-1] * (FOLLOWED_ITEMS - len(named))
            if item >= len(self._takers):
                self._takers = np.concatenate([self._takers, np.zeros(item + 1, np.int64)])
            self._takers[item] += weight
            for row in (item, *named):
                index = self._index.get(row)
                if index is None:
                    index = self._index[row] = array("I")
                index.append(self._next)
                # In this order: who reads the new version does not find the old row.
                self._rows.pop(row, None)
                self._versions[row] = (self._versions.get(row, 0) + identity) & _64_BITS
            self._next += 1

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
            places = self._places(item)
            places = places[self._users[places] == user_hash]
            after = places[(self._items[places] != item) & (self._timestamps[places] >= until_s)]
            for place in after.tolist():
                self._forget_rows(place, sign=-1)
                self._followed[place][self._followed[place] == item] = -1
            return self._take_out(places[(self._items[places] == item) & (self._timestamps[places] <= until_s)])

    def row(self, item: int) -> LiveRow:
        """What the events say beside an item."""
        found = self._rows.get(item)
        if found is None:
            with self._lock:
                if item not in self._index:
                    return NO_ROW
                found = self._rows[item] = self._counted(item)
        return found

    def version(self, item: int) -> int:
        """64 bits that equal events beside an item make equal, 0 for none."""
        return self._versions.get(item, 0)

    def takers(self, items: IntArray) -> NDArray[np.float64]:
        """(c,) item rows → (c,) weights of the events on each."""
        known = self._takers
        inside = np.minimum(items, len(known) - 1)
        return np.where(items < len(known), known[inside], 0) / _ONE

    def people(self, item: int, other: int) -> int:
        """How many users took both items, the second after the first or the first after the second."""
        with self._lock:
            places = self._places(item)
            items, followed = self._items[places], self._followed[places]
            both = ((items == item) & (followed == other).any(axis=1)) | (
                (items == other) & (followed == item).any(axis=1)
            )
            return len(np.unique(self._users[places][both]))

    def between(self, start_s: float, end_s: float) -> IntArray:
        """Item rows (e,) of the events in the ring with start ≤ timestamp < end, seconds."""
        with self._lock:
            times = self._timestamps[: len(self)]
            inside = (times >= start_s) & (times < end_s) & (self._weights[: len(self)] > 0)
            return self._items[: len(self)][inside].astype(np.int64)

    def _places(self, item: int) -> IntArray:
        """Places in the ring of the latest events that name an item and were not taken out."""
        numbers = np.array(self._index.get(item, ())[-ROW_EVENTS:], np.int64)
        places = numbers[numbers >= self._next - len(self._items)] % len(self._items)
        return places[self._weights[places] > 0]

    def _counted(self, item: int) -> LiveRow:
        places = self._places(item)
        items, followed, weights = self._items[places], self._followed[places], self._weights[places].astype(np.int64)
        at = followed == item  # (n, FOLLOWED_ITEMS)
        after = at.any(axis=1)
        steps = at.argmax(axis=1) + 1
        near = after & (steps <= self._window)
        pairs = weights * _PAIR_WEIGHTS[1 + (followed >= 0).sum(axis=1)]
        own = np.flatnonzero(items == item)
        columns, counted = followed[own], np.broadcast_to(pairs[own, None], (len(own), FOLLOWED_ITEMS))
        named = columns >= 0
        return LiveRow(
            *_summed(items[near], weights[near] // steps[near], _ONE),
            *_summed(
                np.concatenate([items[after], columns[named]]),
                np.concatenate([pairs[after], counted[named]]),
                _ONE * _PAIR_ONE,
            ),
        )

    def _take_out(self, places: IntArray) -> list[CountedEvent]:
        for place in places.tolist():
            self._takers[self._items[place]] -= self._weights[place]
            self._weights[place] = 0
            self._forget_rows(place, sign=-1)
        columns = (column[places].tolist() for column in (self._items, self._timestamps, self._num_followed))
        return [CountedEvent(*event) for event in zip(*columns, strict=True)]

    def _forget_rows(self, place: int, *, sign: int) -> None:
        """Drops the counted rows that an event is in, and takes the event out of their versions."""
        identity = int(self._identities[place])
        for row in (int(self._items[place]), *self._followed[place].tolist()):
            if row >= 0:
                self._rows.pop(row, None)
                self._versions[row] = (self._versions[row] + sign * identity) & _64_BITS

    def _drop(self, place: int) -> None:
        """Forgets the event at a place of a full ring, which is the oldest."""
        number = self._next - len(self._items)
        if self._weights[place]:
            self._takers[self._items[place]] -= self._weights[place]
            self._forget_rows(place, sign=-1)
        for row in {int(self._items[place]), *self._followed[place].tolist()} - {-1}:
            index = self._index[row]
            while index and index[0] <= number:
                del index[0]
            if not index:
                del self._index[row]


def _summed(columns: NDArray[np.int32], counts: IntArray, one: int) -> tuple[IntArray, NDArray[np.float64]]:
    """Adds up the counts of equal columns. (e,) → ascending columns (c,) and their sums (c,), in units of `one`."""
    if not len(columns):
        return _NO_ROWS, _NO_COUNTS
    distinct, inverse = np.unique(columns, return_inverse=True)
    summed = np.bincount(inverse, weights=counts)
    if len(distinct) > ROW_LENGTH:
        heaviest = np.sort(np.argsort(-summed, kind="stable")[:ROW_LENGTH])
        distinct, summed = distinct[heaviest], summed[heaviest]
    return distinct.astype(np.int64), summed / one
