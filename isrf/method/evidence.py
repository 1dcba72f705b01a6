"""The evidence channels: what data says without a model, stored as sparse lists and gathered in microseconds.

Its channels are transition (items that followed the last items), cooccurrence (items taken together with them),
content (items with similar semantic features) and group (items that the most similar users took); the fifth, popular,
is `isrf.method.recommend.live.recent_popularity`. Each channel gives a distribution over items, which
`isrf.method.ranking.fusion` weighs. Each entry can be traced back to its items or users.

Counts are of users, not of events: one account counts once for an item and once for a pair, however many events it has.
An event has a weight, which it brings to all that it adds: to its item, and to the pairs with items before it, whatever
their events weighed. A user counts by the heaviest event; one of weight 0 adds nothing. Arguments `weights` are (E,),
beside users and items; None: all are 1.

It knows neither files nor models. `isrf.method.pair_counts` counts transitions and co-occurrence.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from isrf.method.interest import BoolArray, FloatArray, IntArray

ItemChannel = Literal["transition", "cooccurrence", "content"]
ITEM_CHANNELS: tuple[ItemChannel, ...] = get_args(ItemChannel)

RECENT_ITEMS = 5
"""Items at the end of a history that the item channels start from."""
AGE_DECAY = 0.7
"""Weight of a start item is this to the power of its age. Both values were measured for the design (the floor of the
quality table)."""
GROUP_POWER = 4.0
"""A neighbour's weight is its calibrated similarity to this power."""
GROUP_RECENCY = 0.8
"""Weight of a neighbour's item is this to the power of its age in the neighbour's history."""
CONTENT_LENGTH = 100
"""Entries of an item's content list."""
CONTENT_POWER = 2.0
"""Sharpens cosine into the weight of a neighbour; 2 and 4 were tried, chosen on validation."""


BLOCK_EVENTS = 1 << 22
"""Events whose users are worked through at once, so that what one step needs does not grow with the data."""

WeightArray: TypeAlias = NDArray[np.float64]


class SparseLists(NamedTuple):
    """Rows of (index, weight) pairs in CSR form."""

    indptr: NDArray[np.int64]  # (rows + 1,)
    indices: NDArray[np.int32]  # (entries,)
    weights: NDArray[np.float32]  # (entries,)

    def row(self, row: int) -> slice:
        return slice(int(self.indptr[row]), int(self.indptr[row + 1]))

    def entries(self, row: int) -> "Entries":
        part = self.row(row)
        return Entries(self.indices[part], self.weights[part])

    def gather(self, rows: IntArray) -> tuple["Entries", IntArray]:
        starts = self.indptr[rows]
        counts = self.indptr[rows + 1] - starts
        at = ranges(starts, counts)
        return Entries(self.indices[at], self.weights[at]), counts

    def select(self, rows: IntArray) -> "SparseLists":
        """New lists whose row k is `rows[k]`; rows: (r,), r > 0."""
        entries, counts = self.gather(rows)
        return SparseLists(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), *entries)

    def with_rows(self, count: int) -> "SparseLists":
        return self._replace(indptr=np.concatenate([self.indptr, np.full(count, self.indptr[-1])]))


class Entries(NamedTuple):
    """Entries of one or several rows of lists."""

    indices: NDArray[np.int32]  # (entries,)
    weights: NDArray[np.float32]  # (entries,)


class ItemLists(Protocol):
    """An item channel's lists: a row per item, whose weights sum to at most 1."""

    def entries(self, row: int) -> Entries:
        """The entries of one row."""

    def gather(self, rows: IntArray) -> tuple[Entries, IntArray]:
        """The entries of `rows` (r,), r > 0, one row after the other, and the number of entries of each row (r,)."""

    def with_rows(self, count: int) -> "ItemLists":
        """The same lists and `count` more rows, for items that came since; they are empty as far as is known."""


class Evidence(NamedTuple):
    """One channel's distribution over items: distinct item rows in any order, probabilities summing to ≤ 1."""

    items: IntArray  # (c,)
    probability: FloatArray  # (c,)


NOTHING = Evidence(np.zeros(0, np.int64), np.zeros(0, np.float32))


def ranges(starts: IntArray, counts: IntArray) -> IntArray:
    """(sum of the counts,) the `counts` (r,) integers from each of `starts` (r,) on, r > 0, one range after another."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1]) + np.repeat(starts - ends + counts, counts)


def heaviest(weights: NDArray[np.floating], limit: int) -> IntArray:
    """The places of the `limit` largest weights (c,), largest first, ties in their order."""
    return np.argsort(-weights, kind="stable")[:limit]


def _sum_by_item(items: NDArray[np.int32], weights: FloatArray, total: float, limit: int) -> Evidence:
    """Adds up the weights of equal items and keeps the `limit` heaviest (ties: lower row), divided by `total`."""
    if not len(items) or total <= 0:
        return NOTHING
    # Sorted by item, equal items in their order. One sort of plain integers is cheaper than a stable argsort.
    keys = items.astype(np.int64) << 32
    keys += np.arange(len(items))
    keys.sort()
    rows, places = keys >> 32, keys & 0xFFFFFFFF
    begins = np.ones(len(rows), dtype=np.bool_)
    np.not_equal(rows[1:], rows[:-1], out=begins[1:])
    starts = np.flatnonzero(begins)
    distinct, summed = rows[starts], np.add.reduceat(weights[places], starts, dtype=np.float64)
    if len(distinct) > limit:
        kept = heaviest(summed, limit)
        distinct, summed = distinct[kept], summed[kept]
    return Evidence(distinct, (summed / total).astype(np.float32))


def item_evidence(lists: ItemLists, history: Sequence[int], *, limit: int) -> Evidence:
    """One item channel's evidence for a history: the lists of its last `RECENT_ITEMS` items, weighted by age.

    Args:
        lists: a row per item whose weights sum to at most 1.
        history: item rows, oldest first.
        limit: most entries of the result.
    """
    recent = np.array(history[-RECENT_ITEMS:][::-1], dtype=np.int64)
    if not len(recent):
        return NOTHING
    entries, counts = lists.gather(recent)
    ages = AGE_DECAY ** np.arange(len(recent))
    return _sum_by_item(entries.indices, entries.weights * np.repeat(ages, counts), float(ages.sum()), limit)


def last_item_evidence(lists: ItemLists, item: int, *, limit: int) -> Evidence:
    """The same as `item_evidence` for a history of one item, but faster: it returns the item's list."""
    entries = lists.entries(item)
    if len(entries.indices) > limit:
        return item_evidence(lists, [item], limit=limit)
    return Evidence(entries.indices.astype(np.int64), entries.weights)


def group_evidence(user_items: SparseLists, users: IntArray, similarity: FloatArray, *, limit: int) -> Evidence:
    """The group channel's evidence for one query: items that its similar users took.

    Args:
        user_items: a row per base user, weighted as in `user_item_lists`.
        users: (M,) int64 base user rows, −1 padded.
        similarity: (M,) float32 calibrated.
        limit: most entries of the result.
    """
    real = (users >= 0) & (similarity > 0)
    rows = users[real]
    if not len(rows):
        return NOTHING
    entries, counts = user_items.gather(rows)
    flat = entries.weights * np.repeat(similarity[real] ** GROUP_POWER, counts)
    return _sum_by_item(entries.indices, flat, float(flat.sum()), limit)


class CountedLists(NamedTuple):
    """Lists scaled to sum to 1, and what they were scaled from."""

    lists: SparseLists
    totals: FloatArray  # (rows,) the sum of each row's weights before scaling


def counted_lists(
    rows: IntArray, columns: IntArray, weights: NDArray[np.float64], *, num_rows: int, length: int
) -> CountedLists:
    """The `length` heaviest columns of each row, heaviest first (ties: lower column), scaled to sum to 1.

    Equal (row, column) pairs are added up first, in their order. rows, columns, weights: (entries,).
    """
    num_columns = int(columns.max(initial=0)) + 1
    keys = rows.astype(np.int64) * num_columns + columns
    order = stable_order(keys, num_rows * num_columns)
    keys, weights = sums_by_key(keys[order], weights[order])
    return heaviest_of_rows(keys // num_columns, keys % num_columns, weights, num_rows=num_rows, length=length)


def stable_order(keys: IntArray, bound: int) -> IntArray:
    """The stable permutation (k,) that sorts `keys` (k,), whole numbers from 0 to below `bound`."""
    bits = max(len(keys) - 1, 0).bit_length()
    if bound << bits >= 1 << 63:
        return np.argsort(keys, kind="stable")
    # One sort of plain integers is several times faster than a stable argsort, and needs less memory.
    packed = keys.astype(np.int64) << bits
    for first in range(0, len(keys), BLOCK_EVENTS):
        block = packed[first : first + BLOCK_EVENTS]
        block |= np.arange(first, first + len(block))
    packed.sort()
    packed &= (1 << bits) - 1
    return packed


def sums_by_key(keys: IntArray, weights: NDArray[np.float64]) -> tuple[IntArray, NDArray[np.float64]]:
    """The distinct keys and the sum of each one's weights, added in their order. keys: (k,) ascending."""
    first = np.ones(len(keys), dtype=np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    starts = np.flatnonzero(first)
    return keys[starts], np.add.reduceat(weights, starts) if len(keys) else weights


def heaviest_of_rows(
    rows: IntArray, columns: IntArray, weights: NDArray[np.float64], *, num_rows: int, length: int
) -> CountedLists:
    """As `counted_lists`, of pairs that are distinct and ascending by row, then column."""
    sizes = np.bincount(rows, minlength=num_rows)
    ends = np.cumsum(sizes)
    kept = np.ones(len(rows), dtype=np.bool_)
    for row in np.flatnonzero(sizes > length):
        part = slice(ends[row] - sizes[row], ends[row])
        least = np.partition(weights[part], sizes[row] - length)[sizes[row] - length]
        kept[part] = weights[part] >= least
    rows, columns, weights = rows[kept], columns[kept], weights[kept]
    order = np.lexsort((-weights, rows))  # stable: of equal weights the lower column comes first
    rows, columns, weights = rows[order], columns[order], weights[order]
    kept = np.arange(len(rows)) - np.searchsorted(rows, rows) < length
    rows, columns, weights = rows[kept], columns[kept], weights[kept]
    totals = np.bincount(rows, weights=weights, minlength=num_rows)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=num_rows))]).astype(np.int64)
    scaled = weights / np.maximum(totals[rows], 1e-12)
    lists = SparseLists(indptr, columns.astype(np.int32), scaled.astype(np.float32))
    return CountedLists(lists, totals.astype(np.float32))


def blocks_of_users(users: IntArray, size: int = BLOCK_EVENTS) -> Iterator[slice]:
    """Slices of about `size` events that divide no user's events; one slice where users (E,) do not ascend."""
    if not len(users) or (users[1:] < users[:-1]).any():
        yield slice(0, len(users))
        return
    first = 0
    while first < len(users):
        last = int(np.searchsorted(users, users[min(first + size, len(users)) - 1], side="right"))
        yield slice(first, last)
        first = last


def latest_of_each(users: IntArray, items: IntArray) -> BoolArray:
    """(E,) bool: whether an event is the user's latest one with its item. users, items: (E,), events in order."""
    latest = np.zeros(len(users), dtype=np.bool_)
    for block in blocks_of_users(users):
        keys = _pair_keys(users[block], items[block])
        _, from_end = np.unique(keys[::-1], return_index=True)
        latest[block.stop - 1 - from_end] = True
    return latest


def heaviest_of_each(users: IntArray, items: IntArray, weights: WeightArray) -> WeightArray:
    """(E,) for each event the heaviest weight among the user's events on its item."""
    heaviest_weights = np.empty(len(weights))
    for block in blocks_of_users(users):
        _, pair = np.unique(_pair_keys(users[block], items[block]), return_inverse=True)
        largest = np.zeros(len(pair))
        np.maximum.at(largest, pair, weights[block])
        heaviest_weights[block] = largest[pair]
    return heaviest_weights


def _pair_keys(users: IntArray, items: IntArray) -> IntArray:
    """(E,) int64, equal for equal pairs of user and item."""
    return users.astype(np.int64) * (int(items.max(initial=0)) + 1) + items


def num_takers(
    users: IntArray, items: IntArray, *, num_items: int, weights: WeightArray | None = None
) -> NDArray[np.float64]:
    """How many users took each item, (N,), each counted by the heaviest event; users and items are (E,) rows."""
    takers = np.zeros(num_items)
    for block in blocks_of_users(users):
        of_users, of_items = users[block], items[block]
        latest = latest_of_each(of_users, of_items)
        by_user = 1.0 if weights is None else heaviest_of_each(of_users, of_items, weights[block])[latest]
        np.add.at(takers, of_items[latest], by_user)  # in the order of events, so that blocks change no bit
    return takers


def user_item_lists(users: IntArray, items: IntArray, *, num_users: int) -> SparseLists:
    """Lists of each base user's training items, oldest first, weighted by recency: `GROUP_RECENCY ** age`, newest 1.

    Only the latest event of an item has a weight. Its age is the number of other items that the user took since.
    """
    indptr = np.searchsorted(users, np.arange(num_users + 1)).astype(np.int64)
    weights = np.empty(len(users), dtype=np.float32)
    for block in blocks_of_users(users):
        of_users = users[block]
        latest = latest_of_each(of_users, items[block])
        num_latest = np.concatenate([[0], np.cumsum(latest)])
        age = num_latest[np.searchsorted(of_users, of_users, side="right")] - num_latest[1:]
        weights[block] = np.where(latest, GROUP_RECENCY ** age.astype(np.float64), 0.0)
    return SparseLists(indptr, items.astype(np.int32), weights)


def lists_from_arrays(name: str, arrays: Mapping[str, NDArray[np.generic]]) -> SparseLists:
    """The lists `evidence/{name}_*.npy` of a bundle's arrays."""
    return SparseLists(
        arrays[f"evidence/{name}_indptr.npy"].astype(np.int64, copy=False),
        arrays[f"evidence/{name}_indices.npy"].astype(np.int32, copy=False),
        arrays[f"evidence/{name}_weights.npy"].astype(np.float32, copy=False),
    )
