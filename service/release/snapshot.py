"""Makes snapshots: the users among whom a request finds neighbours.

They are the release's base users and the users active since, without erased users. A `Snapshot` is frozen; a request
uses the same one until its end, because rows belong to one snapshot. `isrf.runtime.active_users` computes an active
user from their history.
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
    """The users who can be neighbours, and the items on offer; rows of both belong to this snapshot.

    Attributes:
        release: the release of the base users, with the items that are on offer.
        recommender: the release's recommender, with these users as neighbours.
        token: equal tokens mean the same users with the same histories in the same rows.
        erased: rows of base users who were erased.
        active_users: user_id → row.
    """

    release: Release
    recommender: Recommender
    token: str
    erased: frozenset[int]
    active_users: Mapping[str, int]

    def with_items_of(self, release: Release) -> "Snapshot":
        """Returns a snapshot of the same users with the release's items of now."""
        return replace(self, release=release, recommender=self.recommender.with_items_of(release.recommender))

    def row(self, user_id: str) -> int:
        """Returns the row of a user, to leave them out of their own neighbours; −1 for an unknown user."""
        return self.active_users.get(user_id, self.release.users.row(user_id))


def base_snapshot(release: Release) -> Snapshot:
    """Returns the snapshot of the base users alone."""
    return Snapshot(release=release, recommender=release.recommender, token=_BASE, erased=frozenset(), active_users={})


def make_snapshot(release: Release, erased: Iterable[int], active_users: Mapping[str, ActiveUser]) -> Snapshot:
    """Returns the snapshot of a release without erased base users; active users replace their own base rows."""
    erased_rows = frozenset(erased)
    if not erased_rows and not active_users:
        return base_snapshot(release)
    # In the order of their ids: replicas that know the same users must give them the same rows.
    names = sorted(active_users)
    num_base = len(release.users)
    present: BoolArray = np.ones(num_base, dtype=np.bool_)
    present[list(erased_rows)] = False
    superseded = [row for row in map(release.users.row, names) if row >= 0]
    present[superseded] = False
    users = [active_users[name] for name in names]
    return Snapshot(
        release=release,
        recommender=with_active_users(release.recommender, release.user_index, present, users),
        token=_token(erased_rows, names, users),
        erased=erased_rows,
        active_users={name: num_base + index for index, name in enumerate(names)},
    )


def _token(erased_rows: frozenset[int], names: Sequence[str], users: Sequence[ActiveUser]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    digest.update(repr(sorted(erased_rows)).encode())
    for name, user in zip(names, users, strict=True):
        digest.update(repr((name, user.version)).encode())
    return digest.hexdigest()
