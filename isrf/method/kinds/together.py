"""Scores what is taken together with given items: complements of a product, or of a whole cart.

    score(j) = log(b(j) + ε_b) + log(c(j) + ε_c) + w · log(t(j) + ε_t) + v · log(r(j) + ε_r) − p · [j is alike]

b, c and t are the means over the given items of their lists of baskets (taken on one day by one user), cooccurrence and
transition, r is the item's share of recent events: the lists are cosines, which leave out how often anybody takes an
item at all. An item is alike, and rather a substitute, where the cosine of its vector to that of a given item is above
`ALIKE`. What people take on one day is mostly alike on Amazon Beauty, so a larger p finds fewer of their next baskets
(docs/benchmarks.md has the figures). Arrays in, arrays out; `benchmarks/together.py` chose the constants on earlier
days than it reports on.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.method.evidence import ItemLists, SparseLists
from isrf.method.interest import BoolArray, FloatArray, IntArray, unit_rows

DAY_S = 86_400.0
MOST_TOGETHER = 20
"""Distinct items of a basket that tell what goes together; larger ones are a reseller's, or a whole history."""
LIST_LENGTH = 100
"""Entries of an item's list of baskets."""
ALIKE = 0.7
"""Cosine from which an item counts as a substitute of a given item."""


class TogetherWeights(NamedTuple):
    """The constants of the score."""

    basket_epsilon: float = 0.03
    cooccurrence_epsilon: float = 0.003
    transition: float = 0.25
    transition_epsilon: float = 0.01
    popularity: float = 0.3
    popularity_epsilon: float = 1e-5
    alike_penalty: float = 0.3


CHOSEN = TogetherWeights()


class Complements(NamedTuple):
    """How well every item goes with the given items."""

    scores: FloatArray  # (N,)
    found: BoolArray  # (N,) whether anybody took the item together with a given one
    alike: BoolArray  # (N,) whether it is rather a substitute


def complements(
    given: Sequence[int],
    lists: Mapping[str, ItemLists],
    *,
    baskets: ItemLists,
    vectors: FloatArray,
    popularity: FloatArray,
    weights: TogetherWeights = CHOSEN,
) -> Complements:
    """Scores every item beside the given ones (which are scored too).

    Args:
        given: distinct item rows, at least one.
        lists: with the channels cooccurrence and transition, a row per item.
        baskets: of `basket_lists`, a row per item.
        vectors: (N, D); a zero row is like nothing.
        popularity: (N,) shares of recent events.
    """
    size = len(vectors)
    basket = _mean(baskets, given, size)
    cooccurrence, transition = (_mean(lists[name], given, size) for name in ("cooccurrence", "transition"))
    unit = unit_rows(vectors)
    alike: BoolArray = (unit @ unit[list(given)].T).max(axis=1) > ALIKE
    scores = (
        np.log(basket + weights.basket_epsilon)
        + np.log(cooccurrence + weights.cooccurrence_epsilon)
        + weights.transition * np.log(transition + weights.transition_epsilon)
        + weights.popularity * np.log(popularity + weights.popularity_epsilon)
        - weights.alike_penalty * alike
    )
    return Complements(scores.astype(np.float32), (basket + cooccurrence + transition) > 0, alike)


def basket_lists(
    indptr: IntArray,
    items: NDArray[np.int32],
    timestamps: NDArray[np.float64],
    *,
    num_items: int,
    first_variants: IntArray | None = None,
) -> SparseLists:
    """Counts what users took on one day (UTC), as lists of the strongest `LIST_LENGTH` items per item.

    A pair counts 1/log2(2 + n) for a basket of n distinct items, 2 to `MOST_TOGETHER`, divided by √(d_i · d_j), d the
    number of baskets with the item. As in `isrf.method.pair_counts`, an item i is counted with all its variants.

    Args:
        indptr: (U + 1,) the users' events.
        items: (E,) item rows.
        timestamps: (E,) seconds; NaN where an event has no time, and belongs to no basket.
        first_variants: (N,) the lowest row among each item's variants; None: no item has others.
    """
    users = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    timed = np.isfinite(timestamps)
    days = np.floor(timestamps[timed] / DAY_S).astype(np.int64)
    rows = np.unique(np.stack([users[timed], days, items[timed].astype(np.int64)], axis=1), axis=0)
    if not len(rows):
        return _sparse(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), num_items)
    new = np.any(rows[1:, :2] != rows[:-1, :2], axis=1)
    basket = np.concatenate([[0], np.cumsum(new)])
    taken, sizes = rows[:, 2], np.bincount(basket)[basket]
    degrees = np.bincount(taken, minlength=num_items)
    first, own_degrees = np.arange(num_items), degrees
    if first_variants is not None:
        first = first_variants
        of_products = np.unique(np.stack([basket, first[taken]], axis=1), axis=0)
        own_degrees = np.bincount(of_products[:, 1], minlength=num_items)
    few = (sizes >= 2) & (sizes <= MOST_TOGETHER)
    basket, taken, sizes = basket[few], taken[few], sizes[few]
    firsts, seconds, counts = [], [], []
    for step in range(1, MOST_TOGETHER):
        pairs = np.flatnonzero(basket[step:] == basket[:-step])
        if not len(pairs):
            break
        firsts.append(taken[pairs])
        seconds.append(taken[pairs + step])
        counts.append(1.0 / np.log2(2.0 + sizes[pairs]))
    if not firsts:
        return _sparse(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), num_items)
    one, other = np.concatenate(firsts), np.concatenate(seconds)
    left, right = first[np.concatenate([one, other])], np.concatenate([other, one])
    others = left != first[right]
    keys, places = np.unique((left * num_items + right)[others], return_inverse=True)
    summed = np.bincount(places, weights=np.tile(np.concatenate(counts), 2)[others])
    left, right = np.divmod(keys, num_items)
    lists = _sparse(left, right, summed / np.sqrt(own_degrees[left] * degrees[right]), num_items)
    return lists if first_variants is None else lists.select(first)


def _sparse(left: IntArray, right: IntArray, values: NDArray[np.float64], num_items: int) -> SparseLists:
    """Pairs in any order → the strongest `LIST_LENGTH` of each row (ties: lower row)."""
    order = np.lexsort((right, -values, left))
    left, right, values = left[order], right[order], values[order]
    starts = np.searchsorted(left, np.arange(num_items))
    kept = np.arange(len(left)) - starts[left] < LIST_LENGTH
    indptr = np.concatenate([[0], np.cumsum(np.bincount(left[kept], minlength=num_items))]).astype(np.int64)
    return SparseLists(indptr, right[kept].astype(np.int32), values[kept].astype(np.float32))


def _mean(lists: ItemLists, given: Sequence[int], size: int) -> NDArray[np.float64]:
    """(N,) the mean of the given items' lists."""
    total = np.zeros(size)
    for row in given:
        entries = lists.entries(row)
        known = entries.indices < size  # live evidence may name items that came after these
        np.add.at(total, entries.indices[known], entries.weights[known])
    return total / len(given)
