"""Reasons for a recommended item: what in the release's graphs leads to it from this user. Evidence, not prose.

Similar users appear as a count, never as ids.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from isrf.evidence import ITEM_CHANNELS, RECENT_ITEMS
from isrf.interest import Neighbours
from isrf.recommend import RecommenderTables
from service.catalogue import Catalogue


def reasons(
    item: int, history: Sequence[int], neighbours: Neighbours, *, tables: RecommenderTables, catalogue: Catalogue
) -> list[dict[str, Any]]:
    """One entry per evidence channel that names the item; empty where only the learned paths found it.

    Args:
        item: the recommended row.
        history: item rows, oldest first.
        neighbours: of this one user (batch axis of 1).
    """
    found: list[dict[str, Any]] = []
    recent = list(dict.fromkeys(history[-RECENT_ITEMS:][::-1]))
    for channel in ITEM_CHANNELS:
        lists = tables.item_lists[channel]
        leading = [start for start in recent if item in lists.indices[lists.row(start)]]
        if leading:
            found.append({"channel": channel, "items": [catalogue.item_id(start) for start in leading]})
    users = neighbours.users[0]
    took = tables.user_items
    count = sum(bool(np.any(took.indices[took.row(int(user))] == item)) for user in users[users >= 0])
    if count:
        found.append({"channel": "group", "similar_users": int(count)})
    return found
