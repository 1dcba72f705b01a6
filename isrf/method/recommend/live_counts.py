"""Counts of accepted events by item, in a ring of fixed size: the newest events of all users.

An event names the items that its user took before it, so counting needs no state of users. The ring holds the events;
`EventChains` finds, per item, those that name it. A row is counted from its events when it is asked for.

All weights are integers, so equal events give equal counts in whatever order the users' streams are read. An event's
weight is 2^((t - reference) / half-life): a release's own counts weigh as if they were made at the reference time, and
they lose weight against newer events without a clock.
It knows neither stores nor the names of users. Threads may read while one adds.
"""

import math
import threading
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.contract.event_log import FOLLOWED_ITEMS, NUM_BUCKETS
from isrf.method.interest import IntArray
from isrf.method.recommend.event_chains import MAX_EVENTS, NAMES, EventChains, NamedItems
from isrf.method.recommend.live_events import CountedEvent, LiveBatch, LiveEvent, decayed

ROW_EVENTS = 2_000
"""The latest events that name an item, from which its row is counted: the bound of a row's work."""
ROW_LENGTH = 200
"""The heaviest columns that are kept of a row."""
ROWS_KEPT = 256
"""Counted rows that are kept: a request reads them several times, and `LiveLists` keeps what it makes of them."""
PART = 1_000
"""Events that are counted at once, about a millisecond, while readers of rows wait."""
BYTES_PER_EVENT = 100
"""Memory of one event in the ring, as `benchmarks/live_evidence.py` measures it (97 in the arrays)."""

_ONE = 1 << 20
"""A weight of 1. Weights are from 2^-20 to 2^5 of it: a row's sums stay below 2^53."""
_OLDEST, _NEWEST = -20.0, 5.0
_PAIR_ONE = 1 << 8
_PAIR_WEIGHTS = np.array([round(_PAIR_ONE / math.log2(2 + count)) for count in range(FOLLOWED_ITEMS + 2)])
"""By the number of the user's items: 1 / log2(2 + n), as in `isrf.method.evidence.cooccurrence_lists`."""
_64_BITS = (1 << 64) - 1
_MIX, _ONE_64 = np.uint64(0x9E3779B97F4A7C15), np.uint64(1)
"""Make another identity of one, for an event that a `remove` has changed."""


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
        self._size = size = min(max_events, MAX_EVENTS)
        # Pages that nothing was written to take no memory.
        self._named = np.zeros((size, NAMES), np.int32)  # the event's item, then those before it; −1: none
        self._weights = np.zeros(size, np.int32)  # 0: taken out
        self._users = np.zeros(size, np.uint32)
        self._timestamps = np.zeros(size, np.float64)
        self._identities = np.zeros(size, np.uint64)
        self._num_followed = np.zeros(size, np.uint8)
        self._next = 0
        self._chains = EventChains(size)
        self._versions = np.zeros(1024, np.uint64)  # by item
        self._takers = np.zeros(1024, np.int64)  # by item
        self._rows: dict[int, tuple[int, LiveRow]] = {}  # and the version of each
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Events in the ring."""
        return min(self._next, self._size)

    def add(self, event: LiveEvent) -> None:
        """Counts an event; the oldest of a full ring falls out."""
        item, followed, timestamp, user_hash, identity = event
        exponent = min(max((timestamp - self._reference_s) / self._half_life_s, _OLDEST), _NEWEST)
        weight = round(_ONE * 2.0**exponent)
        rows = [item, *followed[:FOLLOWED_ITEMS]]
        with self._lock:
            place = self._next % self._size
            if self._next >= self._size:
                self._forget(np.array([place]))
            self._grow(max(rows))
            self._named[place] = rows + [-1] * (NAMES - len(rows))
            self._weights[place], self._users[place], self._timestamps[place] = weight, user_hash, timestamp
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
        weights = np.rint(_ONE * decayed(batch.timestamps, **scale, bounds=(_OLDEST, _NEWEST))).astype(np.int64)
        rows = np.concatenate([batch.items[:, None].astype(np.int32), batch.followed], axis=1)
        named = NamedItems.of(rows)
        with self._lock:
            numbers = self._next + np.arange(len(rows))
            places = numbers % self._size
            self._forget(places[numbers >= self._size])
            self._grow(int(named.items[-1]))
            self._named[places] = rows
            self._weights[places], self._users[places] = weights, batch.user_hashes
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
            places, names = self._naming(item)
            of_user = self._users[places] == user_hash
            places, names = places[of_user], names[of_user]
            after = (names > 0) & (self._timestamps[places] >= until_s)
            changed = places[after]
            self._change_versions(np.subtract, changed)
            self._named[changed, names[after]] = -1
            self._identities[changed] = self._identities[changed] * _MIX + _ONE_64
            self._change_versions(np.add, changed)
            return self._take_out(places[(names == 0) & (self._timestamps[places] <= until_s)])

    def row(self, item: int) -> LiveRow:
        """What the events say beside an item."""
        found = self._rows.get(item)
        if found is not None and found[0] == self.version(item):
            return found[1]
        with self._lock:
            version = self.version(item)
            if not version:
                return NO_ROW
            row = self._counted(item)
            if len(self._rows) >= ROWS_KEPT:
                del self._rows[next(iter(self._rows))]
            self._rows[item] = version, row
            return row

    def version(self, item: int) -> int:
        """64 bits that equal events beside an item make equal, 0 for none."""
        versions = self._versions
        return int(versions[item]) if item < len(versions) else 0

    def takers(self, items: IntArray) -> NDArray[np.float64]:
        """(c,) item rows → (c,) weights of the events on each."""
        known = self._takers
        inside = np.minimum(items, len(known) - 1)
        return np.where(items < len(known), known[inside], 0) / _ONE

    def people(self, item: int, other: int) -> int:
        """How many users took both items, the second after the first or the first after the second."""
        with self._lock:
            places, names = self._naming(item)
            named = self._named[places]
            both = np.where(names > 0, named[:, 0] == other, (named[:, 1:] == other).any(axis=1))
            return len(np.unique(self._users[places][both]))

    def latest_s(self) -> float:
        """Seconds of the latest event in the ring, −∞ where there is none."""
        with self._lock:
            kept = self._weights[: len(self)] > 0
            return float(self._timestamps[: len(self)].max(initial=-np.inf, where=kept))

    def between(self, start_s: float, end_s: float) -> IntArray:
        """Item rows (e,) of the events in the ring with start ≤ timestamp < end, seconds."""
        with self._lock:
            times = self._timestamps[: len(self)]
            inside = (times >= start_s) & (times < end_s) & (self._weights[: len(self)] > 0)
            return self._named[: len(self), 0][inside].astype(np.int64)

    def _naming(self, item: int) -> tuple[IntArray, IntArray]:
        """The latest events that name an item and were not taken out.

        Returns:
            places (n,) in the ring, the newest first, and which of an event's names the item is (n,), 0 its own.
        """
        numbers, names = np.divmod(self._chains.slots(item, self._next - 1, limit=ROW_EVENTS), NAMES)
        places = numbers % self._size
        kept = (self._weights[places] > 0) & (self._named[places, names] == item)
        return places[kept], names[kept]

    def _counted(self, item: int) -> LiveRow:
        places, steps = self._naming(item)
        named, weights = self._named[places], self._weights[places].astype(np.int64)
        pairs = weights * _PAIR_WEIGHTS[(named >= 0).sum(axis=1)]
        after = np.flatnonzero(steps)
        near = np.flatnonzero((steps > 0) & (steps <= self._window))
        own = np.flatnonzero(steps == 0)
        columns, counted = named[own, 1:], np.broadcast_to(pairs[own, None], (len(own), FOLLOWED_ITEMS))
        known = columns >= 0
        return LiveRow(
            *_summed(named[near, 0], weights[near] // steps[near], _ONE),
            *_summed(
                np.concatenate([named[after, 0], columns[known]]),
                np.concatenate([pairs[after], counted[known]]),
                _ONE * _PAIR_ONE,
            ),
        )

    def _take_out(self, places: IntArray) -> list[CountedEvent]:
        self._forget(places)
        self._weights[places] = 0
        columns = (column[places].tolist() for column in (self._named[:, 0], self._timestamps, self._num_followed))
        return [CountedEvent(*event) for event in zip(*columns, strict=True)]

    def _forget(self, places: IntArray) -> None:
        """Takes events out of takers and versions, unless they were taken out before."""
        places = places[self._weights[places] > 0]
        np.subtract.at(self._takers, self._named[places, 0], self._weights[places].astype(np.int64))
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
