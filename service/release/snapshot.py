"""The people among whom neighbours are looked for: the release's base users, those active since, none who was erased.

A `Snapshot` is a frozen picture; requests take one and keep it to their end, since rows mean nothing beyond it. How an
active user is read from their history is in `isrf.runtime.active_users`.
It knows neither store nor clock; `service.sync.activity_sync` does.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from isrf.method.interest import BoolArray
from isrf.method.recommend.recommender import Recommender
from isrf.runtime.active_users import ActiveUser, with_active_users
from service.release.opening import Release

_BASE = "base"


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
    people = [active_users[name] for name in names]
    return Snapshot(
        release=release,
        recommender=with_active_users(release.recommender, release.user_index, present, people),
        token=_token(gone, names, people),
        erased=gone,
        active_users={name: num_base + place for place, name in enumerate(names)},
    )


def _token(gone: frozenset[int], names: Sequence[str], people: Sequence[ActiveUser]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    digest.update(repr(sorted(gone)).encode())
    for name, one in zip(names, people, strict=True):
        digest.update(repr((name, one.version)).encode())
    return digest.hexdigest()
