"""The people among whom neighbours are looked for: the release's base users, those active since, none who was erased.

A `Snapshot` is a frozen picture; requests take one and keep it to their end, since rows mean nothing beyond it. Who was
active since is read as a query is: the features of their current history, predicted by the interest graph. Nobody has
joined them to anyone yet, so of LightGCN's layers they have the first alone: their explicit vector.
It knows neither store nor clock; `service.sync.activity_sync` does.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from isrf.method.evidence import SparseLists, user_item_lists
from isrf.method.interest import BoolArray, FloatArray, NeighbourSearch
from isrf.method.recommend.recommender import Recommender
from isrf.runtime.neighbour_index import NeighbourIndex, joined
from service.release.opening import Release

READ_TOGETHER = 64
_BASE = "base"


class ActiveUser(NamedTuple):
    """Someone active since the release, known to it or not."""

    version: str
    history: Sequence[int]  # item rows, oldest first; at least one
    feature: FloatArray  # (F,)
    explicit: FloatArray  # (E,), as wide as the group layers


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Who may be a neighbour, and with it what is on offer: rows of both kinds are of this picture.

    Attributes:
        release: whose base users these are, with the items that are on offer.
        recommender: the release's, among these people.
        token: equal tokens mean the same people with the same histories in the same rows.
        erased: rows of base users who were erased.
        active_users: user_id → row.
    """

    release: Release
    recommender: Recommender
    token: str
    erased: frozenset[int]
    active_users: Mapping[str, int]

    def among_items_of(self, release: Release) -> "Snapshot":
        """The same people, the items that are on offer now."""
        return replace(self, release=release, recommender=self.recommender.with_items_of(release.recommender))

    def row(self, user_id: str) -> int:
        """The row of a user, who is no neighbour of their own; −1 for one that nobody knows."""
        return self.active_users.get(user_id, self.release.users.row(user_id))


def base_snapshot(release: Release) -> Snapshot:
    """The base users alone."""
    return Snapshot(release=release, recommender=release.recommender, token=_BASE, erased=frozenset(), active_users={})


def read_active_users(
    recommender: Recommender, versions: Sequence[str], histories: Sequence[Sequence[int]]
) -> list[ActiveUser]:
    """Newcomers from their histories (item rows, oldest first, none empty)."""
    found: list[ActiveUser] = []
    for start in range(0, len(histories), READ_TOGETHER):
        part = histories[start : start + READ_TOGETHER]
        interest = recommender.interest(part)
        found += [
            ActiveUser(version, history, feature, explicit)
            for version, history, feature, explicit in zip(
                versions[start : start + READ_TOGETHER], part, interest.feature, interest.explicit, strict=True
            )
        ]
    return found


def gather(release: Release, erased: Iterable[int], active_users: Mapping[str, ActiveUser]) -> Snapshot:
    """The snapshot of a release without the erased base users, and with those active since in place of their rows."""
    gone = frozenset(erased)
    if not gone and not active_users:
        return base_snapshot(release)
    # In order of their ids: replicas that know of the same people must number them equally.
    names = sorted(active_users)
    num_base = len(release.users)
    present: BoolArray = np.ones(num_base, dtype=np.bool_)
    present[list(gone)] = False
    superseded = [row for row in map(release.users.row, names) if row >= 0]
    present[superseded] = False
    base: NeighbourSearch = release.user_index if present.all() else release.user_index.among(present)
    people = [active_users[name] for name in names]
    return Snapshot(
        release=release,
        recommender=_among(release, base, people),
        token=_token(gone, names, people),
        erased=gone,
        active_users={name: num_base + place for place, name in enumerate(names)},
    )


def _among(release: Release, base: NeighbourSearch, people: Sequence[ActiveUser]) -> Recommender:
    tables = release.recommender.tables
    if not people:
        return release.recommender.with_users(
            group_layers=tables.group_layers, user_items=tables.user_items, nearest_users=base
        )
    delta = NeighbourIndex(np.stack([one.feature for one in people]), threads=1)
    layers = np.stack([one.explicit for one in people]).astype(np.float16)
    return release.recommender.with_users(
        group_layers=np.concatenate([tables.group_layers, layers]),
        user_items=_with_items(tables.user_items, [one.history for one in people]),
        nearest_users=joined(base, delta, len(release.users)),
    )


def _with_items(base: SparseLists, histories: Sequence[Sequence[int]]) -> SparseLists:
    users = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    items = np.concatenate([np.asarray(history, dtype=np.int64) for history in histories])
    more = user_item_lists(users, items, num_users=len(histories))
    return SparseLists(
        np.concatenate([base.indptr, base.indptr[-1] + more.indptr[1:]]),
        np.concatenate([base.indices, more.indices]),
        np.concatenate([base.weights, more.weights]),
    )


def _token(gone: frozenset[int], names: Sequence[str], people: Sequence[ActiveUser]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    digest.update(repr(sorted(gone)).encode())
    for name, one in zip(names, people, strict=True):
        digest.update(repr((name, one.version)).encode())
    return digest.hexdigest()
