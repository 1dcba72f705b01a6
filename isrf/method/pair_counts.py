"""Counts which items users took one after the other, and which together: the lists transition and cooccurrence.

A product is counted as one on the side of the item that is asked for: each of its variants has the sum of their rows,
without columns of the product itself. Columns stay the variants that people took. `first_variants` is (N,), the lowest
row among each item's variants (`isrf.method.recommend.product_groups`); None: no item has another variant.

Arrays in, arrays out. `isrf.method.recommend.live.live_counts` counts the same from events since a release.
"""

from typing import NamedTuple

import numpy as np

from isrf.method.evidence import CountedLists, WeightArray, counted_lists, num_takers
from isrf.method.interest import IntArray

COOCCURRENCE_ITEMS = 200
"""Latest distinct items of a user that count as taken together. It bounds a user's pairs to its square, for resellers
too."""


class Pairs(NamedTuple):
    """Counted pairs of items; equal ones are to be added up."""

    rows: IntArray  # (p,)
    columns: IntArray  # (p,)
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
) -> CountedLists:
    """Lists of the items that followed each item within `window` steps of a user's training sequence.

    A nearer step weighs more, and a heavier event after it. If one item followed another several times for one user,
    only the heaviest counts, of events of equal weight the nearest step.

    Args:
        users: (E,) user rows; events of a user stand together in order.
        items: (E,) item rows.
    """
    parts = []
    for step in range(1, window + 1):
        counts = (users[step:] == users[:-step]) & (items[step:] != items[:-step])
        after = np.ones(int(counts.sum())) if weights is None else weights[step:][counts]
        parts.append((users[step:][counts], items[:-step][counts], items[step:][counts], after / step))
    owners, rows, columns, pairs = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.lexsort((-pairs, columns, rows, owners))  # stable: of equal pairs the nearest step comes first
    same = (np.diff(owners[order]) == 0) & (np.diff(rows[order]) == 0) & (np.diff(columns[order]) == 0)
    unique = np.sort(np.delete(order, np.flatnonzero(same) + 1))
    unique = unique[pairs[unique] > 0]
    counted = Pairs(rows[unique], columns[unique], pairs[unique])
    return _by_product(counted, first_variants, num_items=num_items, length=length)


def count_cooccurrence(
    users: IntArray,
    items: IntArray,
    *,
    num_items: int,
    length: int,
    weights: WeightArray | None = None,
    first_variants: IntArray | None = None,
) -> CountedLists:
    """Lists of items taken by the same users, cosine-normalised.

    weight(i, j) = Σ over common users of w_uij/log2(2 + n_u), divided by √(d_i · d_j). w_uij is the weight of the
    user's heaviest event on one of the two that came after the other; d is how many users took an item, at least 1. n_u
    and the pairs come from a user's latest `COOCCURRENCE_ITEMS` distinct items. A user's weight falls with n_u, so that
    a reseller does not connect everything with everything.

    Args:
        users: (E,) user rows; events of a user stand together in order.
        items: (E,) item rows.
        num_items: N.
        length: most entries of a row.
    """
    num_users = int(users.max()) + 1 if len(users) else 0
    starts = np.searchsorted(users, np.arange(num_users + 1))
    degree = np.maximum(num_takers(users, items, num_items=num_items, weights=weights), 1.0)
    none = np.zeros(0, np.int64)
    rows, columns, pairs = [none], [none], [np.zeros(0)]
    for user in range(num_users):
        events = slice(starts[user], starts[user + 1])
        taken = _latest_distinct(items[events], COOCCURRENCE_ITEMS)
        count = len(taken)
        if count < 2:
            continue
        left, right = np.repeat(taken, count), np.tile(taken, count)
        of_pair = np.ones(count**2) if weights is None else _pair_weights(items[events], weights[events], taken)
        counts = (left != right) & (of_pair > 0)
        rows.append(left[counts])
        columns.append(right[counts])
        pairs.append(of_pair[counts] / np.log2(2.0 + count))
    left, right = np.concatenate(rows), np.concatenate(columns)
    # All variants of a product have one row, and its scale does not matter: that of the first variant.
    own = left if first_variants is None else first_variants[left]
    scaled = np.concatenate(pairs) / np.sqrt(degree[own] * degree[right])
    return _by_product(Pairs(left, right, scaled), first_variants, num_items=num_items, length=length)


def _by_product(pairs: Pairs, first_variants: IntArray | None, *, num_items: int, length: int) -> CountedLists:
    """The lists of all items; each variant of a product has the sum of their rows, without columns of the product."""
    if first_variants is None:
        return counted_lists(*pairs, num_rows=num_items, length=length)
    products = first_variants[pairs.rows]
    others = products != first_variants[pairs.columns]
    counted = counted_lists(
        products[others], pairs.columns[others], pairs.weights[others], num_rows=num_items, length=length
    )
    return CountedLists(counted.lists.select(first_variants), counted.totals[first_variants])


def _pair_weights(items: IntArray, weights: WeightArray, taken: IntArray) -> WeightArray:
    """The heaviest event on one of two items that came after the first event on the other, for all pairs of `taken`.

    Args:
        items: (e,) rows of a user's events, oldest first.
        weights: (e,).
        taken: (t,) rows among them, ascending.

    Returns:
        (t²,) in the order of `np.repeat(taken, t), np.tile(taken, t)`.
    """
    count = len(taken)
    place = np.minimum(np.searchsorted(taken, items), count - 1)
    chosen = np.flatnonzero(taken[place] == items)
    place = place[chosen]
    first = chosen[np.unique(place, return_index=True)[1]]
    by_first = np.argsort(first)
    # Between two first events, the heaviest event on each item; then of all that came after a first event.
    largest = np.zeros((count + 1, count))
    np.maximum.at(largest, (np.searchsorted(first[by_first], chosen), place), weights[chosen])
    largest = np.maximum.accumulate(largest[::-1], axis=0)[::-1]
    after = np.empty((count, count))
    after[by_first] = largest[1:]  # row: the item that came first; column: the item of the event after it
    return np.maximum(after, after.T).ravel()


def _latest_distinct(items: IntArray, limit: int) -> IntArray:
    """The `limit` distinct items whose last event is latest, in ascending order. (e,) oldest first → (≤ limit,)."""
    distinct, first = np.unique(items[::-1], return_index=True)
    return distinct if len(distinct) <= limit else np.sort(distinct[np.argsort(first)[:limit]])
