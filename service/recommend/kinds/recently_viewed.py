"""The latest items of a user or a session."""

from collections.abc import Sequence

from isrf.method.interest import BoolArray
from isrf.method.recommend.request import RankedItem


def recently_viewed_items(history: Sequence[int], allowed: BoolArray, *, count: int) -> list[RankedItem]:
    """Returns the distinct items of a history that are still on offer, the latest first.

    Args:
        history: item rows, oldest first.
        allowed: (N,) without regard to what the user bought or saw.
    """
    rows = [row for row in dict.fromkeys(reversed(history)) if allowed[row]][:count]
    return [RankedItem(row, float(len(rows) - place), "recently-viewed") for place, row in enumerate(rows)]
