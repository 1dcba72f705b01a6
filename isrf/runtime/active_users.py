"""Adds users who were active since the release to the users that can be neighbours, from their current histories.

The interest graph computes their features and explicit vectors, as for a query. LightGCN has not connected them to
other users yet, so their group layer is their explicit vector. The service's snapshot and the replay call it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from isrf.method.evidence import SparseLists, user_item_lists
from isrf.method.interest import BoolArray, FloatArray
from isrf.method.recommend.recommender import Recommender
from isrf.runtime.neighbour_index import NeighbourIndex, joined

READ_TOGETHER = 64
"""Histories in one run of the interest graph."""


class ActiveUser(NamedTuple):
    """A user who was active since the release, whether the release knows the user or not."""

    version: str
    history: Sequence[int]  # item rows, oldest first; at least one
    feature: FloatArray  # (F,)
    explicit: FloatArray  # (E,), as wide as the group layers


def read_active_users(
    recommender: Recommender, versions: Sequence[str], histories: Sequence[Sequence[int]]
) -> list[ActiveUser]:
    """The active users with these histories (item rows, oldest first, none empty)."""
    active_users: list[ActiveUser] = []
    for start in range(0, len(histories), READ_TOGETHER):
        part = histories[start : start + READ_TOGETHER]
        interest = recommender.interest(part)
        active_users += [
            ActiveUser(version, history, feature, explicit)
            for version, history, feature, explicit in zip(
                versions[start : start + READ_TOGETHER], part, interest.feature, interest.explicit, strict=True
            )
        ]
    return active_users


def with_active_users(
    recommender: Recommender, base_index: NeighbourIndex, present: BoolArray, active_users: Sequence[ActiveUser]
) -> Recommender:
    """The recommender whose neighbours are the present base users and the active users.

    Args:
        recommender: the recommender of the base users alone.
        base_index: the index of the base users.
        present: (U,) which base users may be neighbours.
        active_users: in the order of their rows, which follow the base users' rows.
    """
    tables = recommender.tables
    base = base_index if present.all() else base_index.among(present)
    if not active_users:
        return recommender.with_users(
            group_layers=tables.group_layers, user_items=tables.user_items, nearest_users=base
        )
    delta = NeighbourIndex(np.stack([user.feature for user in active_users]), threads=1)
    layers = np.stack([user.explicit for user in active_users]).astype(np.float16)
    return recommender.with_users(
        group_layers=np.concatenate([tables.group_layers, layers]),
        user_items=_with_histories(tables.user_items, [user.history for user in active_users]),
        nearest_users=joined(base, delta, len(present)),
    )


def _with_histories(base: SparseLists, histories: Sequence[Sequence[int]]) -> SparseLists:
    users = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    items = np.concatenate([np.asarray(history, dtype=np.int64) for history in histories])
    more = user_item_lists(users, items, num_users=len(histories))
    return SparseLists(
        np.concatenate([base.indptr, base.indptr[-1] + more.indptr[1:]]),
        np.concatenate([base.indices, more.indices]),
        np.concatenate([base.weights, more.weights]),
    )
