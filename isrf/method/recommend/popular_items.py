"""The most popular of the items that a request may show, without sorting the whole catalogue."""

import numpy as np

from isrf.method.interest import BoolArray, FloatArray, IntArray
from isrf.method.recommend.live.recent_popularity import RecentPopularity

POPULAR_BLOCK = 4096
"""Items that are checked in one step where popularity fills a list."""


def popular_items(
    popularity: RecentPopularity | None,
    takers: FloatArray,
    *,
    by_takers: IntArray,
    allowed: BoolArray,
    taken: IntArray,
    count: int,
) -> list[int]:
    """The `count` most popular items that are allowed and not in `taken`, the most popular first.

    Recent events decide, then how many users took an item in the training interactions, then the row.

    Args:
        popularity: of recent events; None: the training interactions alone decide.
        takers: (N,) users who took each item in the training interactions.
        by_takers: (N,) rows in the order of `takers`, ties in row order.
        allowed: (N,) which items may be shown.
        taken: (t,) rows that are left out.
        count: number of items.
    """
    if popularity is None:
        return first_allowed(by_takers, allowed, taken, count)
    top = popularity.most_popular().items
    top = top[are_allowed(top, allowed) & ~np.isin(top, taken)]
    rest = top if len(top) >= count else by_takers[allowed[by_takers] & ~np.isin(by_takers, taken)]
    weights = popularity.weights(rest)
    if len(rest) > count:  # the heaviest alone: to sort a large catalogue takes long
        least = np.partition(weights, -count)[-count] if count else np.inf
        heaviest = np.flatnonzero(weights >= least)
        rest, weights = rest[heaviest], weights[heaviest]
    found: list[int] = rest[np.lexsort((rest, -takers[rest], -weights))][:count].tolist()
    return found


def are_allowed(items: IntArray, allowed: BoolArray) -> BoolArray:
    """(c,) bool. Live evidence may name an item that came after this recommender's items: it is none of them."""
    inside = (items >= 0) & (items < len(allowed))
    return inside & allowed[np.where(inside, items, 0)]


def first_allowed(order: IntArray, allowed: BoolArray, taken: IntArray, count: int) -> list[int]:
    """The first `count` rows of `order` (o,) that are allowed (N,) and not in `taken`."""
    found: list[int] = []
    for start in range(0, len(order), POPULAR_BLOCK):  # mostly one block: it avoids a pass over a large catalogue
        block = order[start : start + POPULAR_BLOCK]
        found += block[allowed[block] & ~np.isin(block, taken)].tolist()
        if len(found) >= count:
            break
    return found[:count]
