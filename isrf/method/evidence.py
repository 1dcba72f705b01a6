"""What the two graphs say by themselves: four evidence channels as sparse lists, gathered in microseconds.

transition (what followed the last items), cooccurrence (what was taken together with them), content (semantic-feature
neighbours of them) and group (what the most similar users took). Each channel yields a distribution over items that
`isrf.method.ranking.fusion` weighs, and each entry can be traced back to the items or users it came from.

Counts are of users, not of events: one account counts once for an item and once for a pair, however often it came.

It knows neither files nor models. Building counts and gathering them are both here, so that they cannot drift apart.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from isrf.method.interest import BoolArray, FloatArray, IntArray

ItemChannel = Literal["transition", "cooccurrence", "content"]
ITEM_CHANNELS: tuple[ItemChannel, ...] = get_args(ItemChannel)

RECENT_ITEMS = 5
"""Items at the end of a history that the item channels start from."""
AGE_DECAY = 0.7
"""Weight of a start item by its age; both values measured for the design (floor of the quality table)."""
GROUP_POWER = 4.0
"""A neighbour's weight is its calibrated similarity to this power."""
GROUP_RECENCY = 0.8
"""Weight of a neighbour's item by its age in the neighbour's history."""
COOCCURRENCE_ITEMS = 200
"""Latest distinct items of a user that count as taken together: pairs are this squared, whatever a reseller bought."""


CONTENT_LENGTH = 100
"""Entries of an item's content list."""
CONTENT_POWER = 2.0
"""Sharpens cosine into the weight of a neighbour; 2 and 4 were tried, chosen on validation."""


class SparseLists(NamedTuple):
    """Rows of (index, weight) pairs in CSR form."""

    indptr: NDArray[np.int64]  # (rows + 1,)
    indices: NDArray[np.int32]  # (entries,)
    weights: NDArray[np.float32]  # (entries,)

    def row(self, row: int) -> slice:
        return slice(int(self.indptr[row]), int(self.indptr[row + 1]))


class Evidence(NamedTuple):
    """One channel's distribution over items: distinct item rows in any order, probabilities summing to ≤ 1."""

    items: IntArray  # (c,)
    probability: FloatArray  # (c,)


NOTHING = Evidence(np.zeros(0, np.int64), np.zeros(0, np.float32))


def _sum_by_item(items: NDArray[np.int32], weights: FloatArray, total: float, limit: int) -> Evidence:
    """Adds up the weights of equal items and keeps the `limit` heaviest (ties: lower row), divided by `total`."""
    if not len(items) or total <= 0:
        return NOTHING
    # Sorted by item, equal ones in their order: one sort of plain numbers, cheaper than a stable one of places.
    keys = items.astype(np.int64) << 32
    keys += np.arange(len(items))
    keys.sort()
    rows, places = keys >> 32, keys & 0xFFFFFFFF
    begins = np.ones(len(rows), dtype=np.bool_)
    np.not_equal(rows[1:], rows[:-1], out=begins[1:])
    starts = np.flatnonzero(begins)
    distinct, summed = rows[starts], np.add.reduceat(weights[places], starts, dtype=np.float64)
    if len(distinct) > limit:
        heaviest = np.argsort(-summed, kind="stable")[:limit]
        distinct, summed = distinct[heaviest], summed[heaviest]
    return Evidence(distinct, (summed / total).astype(np.float32))


def _entries_of(lists: SparseLists, rows: IntArray) -> tuple[IntArray, IntArray]:
    """The places of all entries of `rows` (r,), one row after the other, and how many each has (r,)."""
    start = lists.indptr[rows]
    counts = lists.indptr[rows + 1] - start
    ends = np.cumsum(counts)
    return np.arange(ends[-1]) + np.repeat(start - ends + counts, counts), counts


def item_evidence(lists: SparseLists, history: Sequence[int], *, limit: int) -> Evidence:
    """One item channel: the lists of the last `RECENT_ITEMS` items, weighted by age.

    Args:
        lists: a row per item whose weights sum to at most 1.
        history: item rows, oldest first.
        limit: entries kept.
    """
    recent = np.array(history[-RECENT_ITEMS:][::-1], dtype=np.int64)
    if not len(recent):
        return NOTHING
    entries, counts = _entries_of(lists, recent)
    ages = AGE_DECAY ** np.arange(len(recent))
    weights = lists.weights[entries] * np.repeat(ages, counts)
    return _sum_by_item(lists.indices[entries], weights, float(ages.sum()), limit)


def last_item_evidence(lists: SparseLists, item: int, *, limit: int) -> Evidence:
    """`item_evidence` of a history of one item: its list as it stands."""
    row = lists.row(item)
    if row.stop - row.start > limit:
        return item_evidence(lists, [item], limit=limit)
    return Evidence(lists.indices[row].astype(np.int64), lists.weights[row])


def group_evidence(user_items: SparseLists, users: IntArray, similarity: FloatArray, *, limit: int) -> Evidence:
    """The group channel: what one query's similar users took.

    Args:
        user_items: a row per base user, weights as `user_item_lists` makes them.
        users: (M,) int64 base user rows, −1 padded.
        similarity: (M,) float32 calibrated.
        limit: entries kept.
    """
    real = (users >= 0) & (similarity > 0)
    rows = users[real]
    if not len(rows):
        return NOTHING
    entries, counts = _entries_of(user_items, rows)
    flat = user_items.weights[entries] * np.repeat(similarity[real] ** GROUP_POWER, counts)
    return _sum_by_item(user_items.indices[entries], flat, float(flat.sum()), limit)


def sparse_lists(
    rows: IntArray, columns: IntArray, weights: NDArray[np.float64], *, num_rows: int, length: int
) -> SparseLists:
    """The `length` heaviest columns of each row, heaviest first (ties: lower column), scaled to sum to 1.

    Equal (row, column) pairs are added up first. rows, columns, weights: (entries,).
    """
    order = np.lexsort((columns, rows))
    rows, columns, weights = rows[order], columns[order], weights[order]
    first = np.ones(len(rows), dtype=np.bool_)
    first[1:] = (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])
    weights = np.add.reduceat(weights, np.flatnonzero(first)) if len(rows) else weights
    rows, columns = rows[first], columns[first]
    order = np.lexsort((columns, -weights, rows))
    rows, columns, weights = rows[order], columns[order], weights[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = place < length
    rows, columns, weights = rows[kept], columns[kept], weights[kept]
    totals = np.bincount(rows, weights=weights, minlength=num_rows)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=num_rows))]).astype(np.int64)
    scaled = weights / np.maximum(totals[rows], 1e-12)
    return SparseLists(indptr, columns.astype(np.int32), scaled.astype(np.float32))


def latest_of_each(users: IntArray, items: IntArray) -> BoolArray:
    """Of (E,) events in order, (E,) bool: those after which the user did not come back to the item."""
    _, from_end = np.unique((users * (items.max(initial=0) + 1) + items)[::-1], return_index=True)
    latest = np.zeros(len(users), dtype=np.bool_)
    latest[len(users) - 1 - from_end] = True
    return latest


def num_takers(users: IntArray, items: IntArray, *, num_items: int) -> IntArray:
    """How many users took each item, (N,); users and items are (E,) rows of events."""
    return np.bincount(items[latest_of_each(users, items)], minlength=num_items)


def transition_lists(users: IntArray, items: IntArray, *, num_items: int, window: int, length: int) -> SparseLists:
    """What followed each item within `window` steps of the same user's training sequence, nearer steps heavier.

    A user for whom one item followed another several times counts once, by the nearest time.

    Args:
        users: (E,) user rows; events of a user stand together in order.
        items: (E,) item rows.
    """
    parts = []
    for step in range(1, window + 1):
        same = users[step:] == users[:-step]
        before, after = items[:-step][same], items[step:][same]
        different = before != after
        whose = users[step:][same][different]
        parts.append((whose, before[different], after[different], np.full(int(different.sum()), 1.0 / step)))
    whose, rows, columns, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.lexsort((columns, rows, whose))  # stable: of equal ones the nearest step comes first
    same = (np.diff(whose[order]) == 0) & (np.diff(rows[order]) == 0) & (np.diff(columns[order]) == 0)
    once = np.sort(np.delete(order, np.flatnonzero(same) + 1))
    return sparse_lists(rows[once], columns[once], weights[once], num_rows=num_items, length=length)


def cooccurrence_lists(users: IntArray, items: IntArray, *, num_items: int, length: int) -> SparseLists:
    """Items taken by the same users, cosine-normalised: Σ over common users of 1/log2(2 + n_u), over √(d_i · d_j).

    A user's weight falls with the length of its history, so that a reseller does not join everything with everything;
    n_u and the pairs are of its latest `COOCCURRENCE_ITEMS` distinct items, d is how many users took an item.

    Args:
        users: (E,) user rows; events of a user stand together in order.
        items: (E,) item rows.
        num_items: N.
        length: entries kept per row.
    """
    num_users = int(users.max()) + 1 if len(users) else 0
    starts = np.searchsorted(users, np.arange(num_users + 1))
    degree = np.maximum(num_takers(users, items, num_items=num_items), 1).astype(np.float64)
    rows, columns, weights = [], [], []
    for user in range(num_users):
        taken = _latest_distinct(items[starts[user] : starts[user + 1]], COOCCURRENCE_ITEMS)
        count = len(taken)
        if count < 2:
            continue
        left, right = np.repeat(taken, count), np.tile(taken, count)
        off_diagonal = left != right
        rows.append(left[off_diagonal])
        columns.append(right[off_diagonal])
        weights.append(np.full(count * (count - 1), 1.0 / np.log2(2.0 + count)))
    if not rows:
        empty = np.zeros(0, np.int64)
        return sparse_lists(empty, empty, np.zeros(0), num_rows=num_items, length=length)
    left, right = np.concatenate(rows), np.concatenate(columns)
    scaled = np.concatenate(weights) / np.sqrt(degree[left] * degree[right])
    return sparse_lists(left, right, scaled, num_rows=num_items, length=length)


def _latest_distinct(items: IntArray, limit: int) -> IntArray:
    """The `limit` distinct items whose last event is latest, in ascending order. (e,) oldest first → (≤ limit,)."""
    distinct, first = np.unique(items[::-1], return_index=True)
    return distinct if len(distinct) <= limit else np.sort(distinct[np.argsort(first)[:limit]])


def user_item_lists(users: IntArray, items: IntArray, *, num_users: int) -> SparseLists:
    """Each base user's training items, oldest first, weighted by recency: `GROUP_RECENCY ** age`, newest 1.

    An item counts where it was taken last, by how many other items were since; before that it weighs nothing.
    """
    indptr = np.searchsorted(users, np.arange(num_users + 1)).astype(np.int64)
    latest = latest_of_each(users, items)
    standing = np.concatenate([[0], np.cumsum(latest)])
    age = standing[indptr[users + 1]] - standing[1:]
    weights = np.where(latest, GROUP_RECENCY ** age.astype(np.float64), 0.0)
    return SparseLists(indptr, items.astype(np.int32), weights.astype(np.float32))


def lists_from_arrays(name: str, arrays: Mapping[str, NDArray[np.generic]]) -> SparseLists:
    """The lists `evidence/{name}_*.npy` of a bundle's arrays."""
    return SparseLists(
        arrays[f"evidence/{name}_indptr.npy"].astype(np.int64, copy=False),
        arrays[f"evidence/{name}_indices.npy"].astype(np.int32, copy=False),
        arrays[f"evidence/{name}_weights.npy"].astype(np.float32, copy=False),
    )
