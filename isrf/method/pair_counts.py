"""Counts which items users took one after the other, and which together: the lists transition and cooccurrence.

A product is counted as one on the side of the item that is asked for: each of its variants has the sum of their rows,
without columns of the product itself. Columns stay the variants that people took. `first_variants` is (N,), the lowest
row among each item's variants (`isrf.method.recommend.product_groups`); None: no item has another variant.

Rows are counted in blocks, each from all events that concern it, so that memory grows with events and lists, not with
pairs, and the number of blocks changes no bit. Arrays in, arrays out. `isrf.method.recommend.live.live_counts`
counts the same from events since a release.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.method.evidence import (
    CountedLists,
    SparseLists,
    WeightArray,
    blocks_of_users,
    heaviest_of_rows,
    latest_of_each,
    num_takers,
    ranges,
    stable_order,
    sums_by_key,
)
from isrf.method.interest import BoolArray, IntArray

COOCCURRENCE_ITEMS = 200
"""Latest distinct items of a user that count as taken together. It bounds a user's pairs to its square, for resellers
too."""
BLOCK_PAIRS = 1 << 20
"""About so many pairs are counted at once."""


class _Pairs(NamedTuple):
    """Pairs of items; equal ones are to be added up."""

    keys: IntArray  # (p,) row among those of a block · N + column
    weights: WeightArray  # (p,)


def count_transitions(
    users: IntArray,
    items: IntArray,
    *,
    num_items: int,
    window: int,
    length: int,
    weights: WeightArray | None = None,
    first_variants: IntArray | None = None,
    block_pairs: int = BLOCK_PAIRS,
) -> CountedLists:
    """Lists of the items that followed each item within `window` steps of a user's training sequence.

    A nearer step weighs more, and a heavier event after it. If one item followed another several times for one user,
    only the heaviest counts, of events of equal weight the nearest step.

    Args:
        users: (E,) user rows; events of a user stand together in order.
        items: (E,) item rows.
        num_items: N.
        window: most steps between the two.
        length: most entries of a row.
        weights: (E,).
        first_variants: (N,).
        block_pairs: about so many pairs are counted at once.
    """
    by_row = _EventsOfRows.of(items, first_variants, num_items)
    parts = []
    for first, last in _blocks(np.diff(by_row.starts) * window, block_pairs):
        events = np.sort(by_row.events(first, last))
        left, right, pairs = _steps(users, items, events, weights=weights, window=window)
        keys = (by_row.rows(left) - first) * num_items + items[right]
        order = stable_order(keys, (last - first) * num_items)
        chosen = (pairs > 0) & ~_lighter(users, items, left, right, pairs, order=order, keys=keys)
        chosen &= _of_other_products(items, left, right, first_variants)
        order = order[chosen[order]]
        parts.append(_lists_of(_Pairs(keys[order], pairs[order]), last - first, num_items, length))
    return _joined(parts, first_variants)


def _steps(
    users: IntArray, items: IntArray, events: IntArray, *, weights: WeightArray | None, window: int
) -> tuple[IntArray, IntArray, WeightArray]:
    """Events, those that follow them within the window, and how much each step counts; all (p,), step by step.

    `events` is (e,), ascending places.
    """
    parts = []
    for step in range(1, window + 1):
        left = events[: np.searchsorted(events, len(users) - step)]
        counts = (users[left + step] == users[left]) & (items[left + step] != items[left])
        left = left[counts]
        after = np.ones(len(left)) if weights is None else weights[left + step]
        parts.append((left, left + step, after / step))
    left, right, pairs = (np.concatenate(part) for part in zip(*parts, strict=True))
    return left, right, pairs


def _lighter(
    users: IntArray,
    items: IntArray,
    left: IntArray,
    right: IntArray,
    pairs: WeightArray,
    *,
    order: IntArray,
    keys: IntArray,
) -> BoolArray:
    """(p,) bool: whether a pair is not the heaviest of its user's equal pairs, or not the first of the heaviest."""
    lighter = np.zeros(len(keys), dtype=np.bool_)
    equal = np.diff(keys[order]) == 0
    several = np.append(equal, False)[: len(order)]
    several[1:] |= equal
    several = np.sort(order[several])  # most pairs occur once
    owners, rows, columns = users[left[several]], items[left[several]], items[right[several]]
    order = np.lexsort((-pairs[several], columns, rows, owners))  # stable: of equal pairs the nearest step comes first
    same = (np.diff(owners[order]) == 0) & (np.diff(rows[order]) == 0) & (np.diff(columns[order]) == 0)
    lighter[several[order[np.flatnonzero(same) + 1]]] = True
    return lighter


def count_cooccurrence(
    users: IntArray,
    items: IntArray,
    *,
    num_items: int,
    length: int,
    weights: WeightArray | None = None,
    first_variants: IntArray | None = None,
    block_pairs: int = BLOCK_PAIRS,
) -> CountedLists:
    """Lists of items taken by the same users, cosine-normalised.

    weight(i, j) = Σ over common users of w_uij/log2(2 + n_u), divided by √(d_i · d_j). w_uij is the weight of the
    user's heaviest event on one of the two that came after an event on the other; d is how many users took an item, at
    least 1. n_u and the pairs come from a user's latest `COOCCURRENCE_ITEMS` distinct items. A user's weight falls with
    n_u, so that a reseller does not connect everything with everything.

    Args:
        users: (E,) user rows, ascending; events of a user stand together in order.
        items: (E,) item rows.
        num_items: N.
        length: most entries of a row.
        weights: (E,).
        first_variants: (N,).
        block_pairs: about so many pairs are counted at once.
    """
    degree = np.maximum(num_takers(users, items, num_items=num_items, weights=weights), 1.0)
    taken, num_taken = _taken(users, items, weights)
    if not taken.all():
        users, items, weights = users[taken], items[taken], None if weights is None else weights[taken]
    together = _Together(users, items, weights, np.searchsorted(users, np.arange(len(num_taken) + 1)))
    scales = np.array([np.log2(2.0 + count) for count in range(COOCCURRENCE_ITEMS + 1)])
    by_row = _EventsOfRows.of(items, first_variants, num_items)
    parts = []
    for first, last in _blocks(by_row.sums(together.num_partners), block_pairs):
        events = by_row.events(first, last)
        if first_variants is not None:  # a user's equal pairs of a product's variants stand together
            events = events[np.lexsort((events, items[events], users[events], by_row.rows(events)))]
        counted = []
        num_ranges = max(-(-int(together.num_partners(events).sum()) // (4 * block_pairs)), 1)  # above 1: of one row
        bounds = np.linspace(0, num_items, num_ranges + 1).astype(np.int64)
        for lowest, stop in pairwise(bounds.tolist()):
            left, right = together.partners(events, lowest, stop, block_pairs)
            rows = by_row.rows(left)
            keys = (rows - first) * num_items + items[right]
            order, pairs = together.heaviest(left, right, keys, stable_order(keys, (last - first) * num_items))
            left, right, rows = left[order], right[order], rows[order]
            scaled = pairs / scales[num_taken[users[left]]] / np.sqrt(degree[rows] * degree[items[right]])
            chosen = (pairs > 0) & _of_other_products(items, left, right, first_variants)
            counted.append(_Pairs(*sums_by_key(keys[order[chosen]], scaled[chosen])))
        merged = _Pairs(*(np.concatenate(arrays) for arrays in zip(*counted, strict=True)))
        parts.append(_lists_of(merged, last - first, num_items, length))
    return _joined(parts, first_variants)


class _Together(NamedTuple):
    """Events of which each two of a user are a pair."""

    users: IntArray  # (E,) ascending
    items: IntArray  # (E,)
    weights: WeightArray | None  # (E,)
    starts: IntArray  # (U + 1,) of each user's events

    def num_partners(self, events: IntArray) -> IntArray:
        """How many events the user of each of `events` (e,) has."""
        users = self.users[events]
        return self.starts[users + 1] - self.starts[users]

    def partners(self, events: IntArray, lowest: int, stop: int, block_pairs: int) -> tuple[IntArray, IntArray]:
        """Each of `events` (e,) with every event of its user on another item from `lowest` to below `stop`; both (p,),
        event by event."""
        counts = self.num_partners(events)
        found = [(events[:0], events[:0])]
        for first, last in _blocks(counts, 4 * block_pairs):
            if counts[first:last].any():
                right = ranges(self.starts[self.users[events[first:last]]], counts[first:last])
                left = np.repeat(events[first:last], counts[first:last])
                columns = self.items[right]
                other = (columns != self.items[left]) & (columns >= lowest) & (columns < stop)
                found.append((left[other], right[other]))
        left, right = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        return left, right

    def heaviest(
        self, left: IntArray, right: IntArray, keys: IntArray, order: IntArray
    ) -> tuple[IntArray, WeightArray]:
        """One of each user's equal pairs of items, in `order`, and the heaviest later event among them.

        Args:
            left: (p,) a user's equal pairs stand together in `order`.
            right: (p,)
            keys: (p,) equal for equal pairs of row and column.
            order: (p,) sorts by key.
        """
        pairs = np.ones(len(order)) if self.weights is None else self.weights[np.maximum(left, right)[order]]
        kinds = keys[order], self.users[left[order]], self.items[left[order]]
        first = np.ones(len(order), dtype=np.bool_)
        first[1:] = np.logical_or.reduce([kind[1:] != kind[:-1] for kind in kinds])
        if first.all():
            return order, pairs
        starts = np.flatnonzero(first)
        return order[starts], np.maximum.reduceat(pairs, starts)


def _taken(users: IntArray, items: IntArray, weights: WeightArray | None) -> tuple[BoolArray, IntArray]:
    """(E,) bool: the events whose pairs are counted, and (U,) int64: how many distinct items those of each user have.

    They are events of a user's latest `COOCCURRENCE_ITEMS` distinct items; only the latest event of each item where all
    events of the user weigh the same.
    """
    num_users = int(users.max()) + 1 if len(users) else 0
    taken = np.ones(len(users), dtype=np.bool_)
    num_taken = np.zeros(num_users, dtype=np.int64)
    for block in blocks_of_users(users):
        latest = latest_of_each(users[block], items[block])
        starts = np.flatnonzero(np.append(True, np.diff(users[block]) != 0)[: len(latest)])
        if not len(starts):
            continue
        stops = np.append(starts[1:], len(latest))
        owners = users[block][starts]
        num_taken[owners] = np.add.reduceat(latest.astype(np.int64), starts)
        if weights is None:
            taken[block] = latest
        else:
            least, most = np.minimum.reduceat(weights[block], starts), np.maximum.reduceat(weights[block], starts)
            taken[block] = latest | np.repeat(least != most, stops - starts)
        for place in np.flatnonzero(num_taken[owners] > COOCCURRENCE_ITEMS):
            events = slice(block.start + starts[place], block.start + stops[place])
            chosen = _latest_distinct(items[events], COOCCURRENCE_ITEMS)
            taken[events] &= np.isin(items[events], chosen)
            num_taken[owners[place]] = len(chosen)
    return taken, num_taken


class _EventsOfRows(NamedTuple):
    """The events of each row: of each item, or of each product, whose row is that of its first variant."""

    row_of_event: IntArray  # (E,)
    places: NDArray[np.uint32]  # (E,) events by row, then place
    starts: IntArray  # (N + 1,) of each row's events in `places`

    @classmethod
    def of(cls, items: IntArray, first_variants: IntArray | None, num_items: int) -> "_EventsOfRows":
        own = items if first_variants is None else first_variants.astype(items.dtype)[items]
        places = stable_order(own, num_items).astype(np.uint32)
        starts = np.concatenate([[0], np.cumsum(np.bincount(own, minlength=num_items))]).astype(np.int64)
        return cls(own, places, starts)

    def events(self, first: int, last: int) -> IntArray:
        """The places of the events of the rows from `first` to below `last`, row by row."""
        return self.places[self.starts[first] : self.starts[last]].astype(np.int64)

    def rows(self, events: IntArray) -> IntArray:
        """The row of each of some events (e,), int64."""
        return self.row_of_event[events].astype(np.int64)

    def sums(self, number: Callable[[IntArray], IntArray]) -> IntArray:
        """(N,) for each row the sum of a number of its events."""
        total = np.zeros(len(self.starts) - 1, dtype=np.int64)
        for first in range(0, len(self.places), BLOCK_PAIRS):
            events = np.arange(first, min(first + BLOCK_PAIRS, len(self.places)))
            np.add.at(total, self.row_of_event[events], number(events))
        return total


def _blocks(costs: IntArray, limit: int) -> Iterator[tuple[int, int]]:
    """Divides rows into ranges (first, last + 1) whose costs sum to at most `limit`, or of one row."""
    ends = np.cumsum(costs)
    first = 0
    while first < len(costs):
        before = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, before + limit, side="right")), first + 1)
        yield first, last
        first = last


def _of_other_products(items: IntArray, left: IntArray, right: IntArray, first_variants: IntArray | None) -> BoolArray:
    """(p,) bool: whether the two items of a pair are not variants of one product."""
    if first_variants is None:
        return np.ones(len(left), dtype=np.bool_)
    return np.not_equal(first_variants[items[left]], first_variants[items[right]])


def _lists_of(pairs: _Pairs, num_rows: int, num_items: int, length: int) -> CountedLists:
    """The lists of a block of rows, from pairs that ascend by key."""
    keys, weights = sums_by_key(*pairs)
    return heaviest_of_rows(keys // num_items, keys % num_items, weights, num_rows=num_rows, length=length)


def _joined(parts: list[CountedLists], first_variants: IntArray | None) -> CountedLists:
    """The lists of all rows; each variant of a product has those of its first variant. It empties `parts`."""
    counts = [np.diff(part.lists.indptr) for part in parts]
    indptr = np.concatenate([[0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *counts]))]).astype(np.int64)
    indices, weights = np.empty(indptr[-1], dtype=np.int32), np.empty(indptr[-1], dtype=np.float32)
    totals = np.concatenate([np.zeros(0, np.float32), *(part.totals for part in parts)])
    end = len(indices)
    while parts:  # backwards, so that each part's memory is free once it is copied
        lists = parts.pop().lists
        part = slice(end - len(lists.indices), end)
        indices[part], weights[part], end = lists.indices, lists.weights, part.start
    counted = CountedLists(SparseLists(indptr, indices, weights), totals)
    if first_variants is None:
        return counted
    return CountedLists(counted.lists.select(first_variants), counted.totals[first_variants])


def _latest_distinct(items: IntArray, limit: int) -> IntArray:
    """The `limit` distinct items whose last event is latest, in ascending order. (e,) oldest first → (≤ limit,)."""
    distinct, first = np.unique(items[::-1], return_index=True)
    return distinct if len(distinct) <= limit else np.sort(distinct[np.argsort(first)[:limit]])
