"""Items that a user may need again: bought before, and due by the item's own usual interval."""

from collections.abc import Mapping

import numpy as np

from isrf.method.interest import BoolArray
from isrf.method.kinds.repurchase import Repurchases, due
from isrf.method.recommend.request import SCORE_DIGITS, RankedItem
from service.state.merge import Purchases

LEAST_USERS = 2
"""Users who must have bought an item again before one purchase of it makes it due."""
LEAST_DUE = 0.25
"""Items further from their moment are left out: a quarter of the interval has not passed, or four of them have."""


def buy_again_items(
    bought: Mapping[int, Purchases], again: Repurchases, allowed: BoolArray, *, now_s: float, count: int
) -> list[RankedItem]:
    """Returns the items that the user bought more than once, or whose buyers buy again, the most due first.

    Args:
        bought: the user's purchases by item row.
        again: what the release's users buy again; items that came since are in none of its intervals.
        allowed: (N,) without regard to what the user bought.
    """
    rows = [
        row
        for row, purchases in bought.items()
        if row < len(again.users)
        and allowed[row]
        and np.isfinite(again.intervals[row])
        and (purchases.times > 1 or again.users[row] >= LEAST_USERS)
    ]
    elapsed = np.array([now_s - bought[row].latest_s for row in rows])
    scores = due(elapsed, again.intervals[rows])
    best = [at for at in np.lexsort((np.array(rows), -scores)).tolist() if scores[at] >= LEAST_DUE][:count]
    return [RankedItem(rows[at], round(float(scores[at]), SCORE_DIGITS), "buy-again") for at in best]
