"""New items: first seen lately, and near a user's interest where there is a user.

What *first seen* means: an item that the shop added since the release was first seen when the shop sent it. An item of
the release was first seen at its first event in the release's histories, because neither the shop's files nor the
release say when an item was added. An item of the release without a timed event has no such moment and is not listed.
"""

import numpy as np
from numpy.typing import NDArray

from isrf.method.interest import BoolArray, FloatArray
from isrf.method.recommend.request import SCORE_DIGITS, RankedItem
from service.release.catalogue import Catalogue
from service.release.history_facts import HistoryFacts

NEWEST_SHARE = 0.1
"""Share of the allowed items that count as new, the latest ones, so that interest chooses among new items alone."""
LEAST_NEWEST = 50


def first_seen(catalogue: Catalogue, facts: HistoryFacts) -> NDArray[np.float64]:
    """(N,) seconds when each item of the catalogue was first seen; NaN where nobody knows."""
    of_release = facts.first_seen
    seen = np.full(len(catalogue), np.nan)
    seen[: len(of_release)] = np.where(np.isfinite(of_release), of_release, np.nan)
    for row, at in catalogue.added_at.items():
        seen[row] = at
    return seen


def new_items(
    seen: NDArray[np.float64], allowed: BoolArray, *, interest: FloatArray | None, count: int
) -> list[RankedItem]:
    """Returns new items, the newest first; for a user, by the mean of two places: newest, and nearest to the interest.

    Args:
        seen: (N,) seconds, NaN where unknown.
        allowed: (N,).
        interest: (N,) cosine of each item to the user's interest; None without a user.
    """
    rows = np.flatnonzero(allowed & np.isfinite(seen))
    rows = rows[np.lexsort((rows, -seen[rows]))][: max(count, LEAST_NEWEST, round(NEWEST_SHARE * len(rows)))]
    if not len(rows):
        return []
    scores = 1.0 - np.arange(len(rows)) / len(rows)
    if interest is not None:
        nearness = np.empty(len(rows))
        nearness[np.argsort(-interest[rows], kind="stable")] = scores
        scores = (scores + nearness) / 2
    best = np.argsort(-scores, kind="stable")[:count]
    return [RankedItem(int(rows[at]), round(float(scores[at]), SCORE_DIGITS), "new") for at in best]
