"""Builds a user's state from release and store for a request, and caches the user's interests."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import structlog
from cachetools import LRUCache

from isrf.contract.errors import StoreError
from isrf.method.evidence import RECENT_ITEMS
from isrf.method.recommend.request import UserInterests
from service.inference.engine import Engine
from service.inference.group_cache import decode, encode
from service.recommend.query_models import UserView
from service.release.snapshot import Snapshot
from service.state.events import EventRules
from service.state.merge import merge
from service.state.records import NOBODY, Cached, UserRecord
from service.state.user_store import UserStore
from service.telemetry.metrics import Metrics

CLOSE_S = 2.0
REMEMBERED = 4096
"""How many users' latest interests this process caches (about 2 KB each)."""
REMEMBERED_ROWS = 20_000
"""How many users' latest items this process caches (about 0.5 KB each)."""

_log = structlog.get_logger("service")


class UserViews:
    """Reads users' state and interests for one release.

    This process caches new interests too: a request may read the store before they are written there.
    """

    def __init__(
        self, engine: Engine, store: UserStore, metrics: Metrics, *, rules: EventRules, group_ttl_s: int
    ) -> None:
        self._engine, self._store, self._metrics = engine, store, metrics
        self._rules, self._group_ttl_s = rules, group_ttl_s
        self._computed: LRUCache[tuple[str, str, str], UserInterests] = LRUCache(REMEMBERED)
        self._latest: LRUCache[tuple[str, str, str, str], tuple[int, ...]] = LRUCache(REMEMBERED_ROWS)
        self._store_answers = True
        self._background: set[asyncio.Task[None]] = set()

    async def view(self, user_id: str) -> UserView:
        """Returns the user's state; what the release knows of them where the store cannot be read."""
        snapshot = self._engine.snapshot
        return self.build_view(user_id, *(await self.read(user_id)), snapshot)

    def build_view(self, user_id: str, record: UserRecord, was_read: bool, snapshot: Snapshot) -> UserView:
        """Merges a store's record with the release's history.

        Args:
            was_read: False where the store could not be read.
        """
        release = snapshot.release  # with the items of this snapshot
        past = release.users.past(user_id, lambda kind: self._rules.effect(kind) == "B")
        row = release.users.row(user_id)
        if row in snapshot.erased:
            # Where the store cannot be read, the erased users that it named last stay erased.
            record = record._replace(erased=True)
        state = merge(record, past, release.learned_until)
        rows = release.catalogue.rows(entry.item_id for entry in state.history)
        in_release = not record.erased and row >= 0
        return UserView(
            user_id=user_id,
            state=state,
            rows=rows,
            snapshot=snapshot,
            user_row=snapshot.row(user_id),
            known=in_release or bool(record.history or record.marks),
            cached=record.group,
            store_was_read=was_read,
            lineage=state.version.partition(".")[0] if record.erased else "",
        )

    def latest_rows(self, user_id: str, record: UserRecord, snapshot: Snapshot) -> tuple[int, ...] | None:
        """Returns the rows of the user's last `RECENT_ITEMS` items, oldest first; None where they are not cached."""
        return self._latest.get(_state_of(user_id, record, snapshot))

    def cache_latest_rows(self, user: UserView, record: UserRecord) -> tuple[int, ...]:
        """Caches and returns the same; `record` is what the view was built from."""
        rows = tuple(user.rows[-RECENT_ITEMS:])
        self._latest[_state_of(user.user_id, record, user.snapshot)] = rows
        return rows

    async def read(self, user_id: str) -> tuple[UserRecord, bool]:
        """Returns the store's record of a user, and whether the store could be read."""
        began = time.perf_counter()
        try:
            record, was_read = await self._store.read(user_id), True
        except StoreError as error:
            record, was_read = NOBODY, False
            self._metrics.store_failures.labels("read").inc()
            if self._store_answers:
                _log.warning("store_unavailable", code=error.code, message=error.message)
        if was_read != self._store_answers:
            if was_read:
                _log.info("store_recovered")
            self._metrics.store_up.labels(self._store.kind).set(was_read)
        self._store_answers = was_read
        self._metrics.stage("store", time.perf_counter() - began)
        return record, was_read

    async def interests(self, user: UserView, *, caches: bool = True) -> UserInterests:
        """Returns a user's interests, from a cache or computed, and then cached unless `caches` is False."""
        known = self.known_interests(user)
        if known is not None:
            return known
        interests = await self._engine.read(user.rows, user.user_row, user.snapshot)
        if caches:
            self.keep(user, self.cache_entry(user, interests), None)
        return interests

    def known_interests(self, user: UserView) -> UserInterests | None:
        """Returns a user's cached interests, or None."""
        release_id, version = user.snapshot.release.manifest.release_id, _version(user)
        # Without the store the version does not identify the state.
        if not user.store_was_read:
            self._metrics.group_cache.labels("bypassed").inc()
            return None
        found = decode(user.cached, version=version, release_id=release_id, snapshot=user.snapshot.token)
        if found is None:
            found = self._computed.get((user.user_id, version, user.snapshot.token))
        self._metrics.group_cache.labels("computed" if found is None else "hit").inc()
        return found

    def cache_entry(self, user: UserView, interests: UserInterests | None) -> Cached | None:
        """Caches new interests in this process, and returns them as the store's entry."""
        if interests is None or not user.store_was_read:
            return None
        version, release_id, snapshot = _version(user), user.snapshot.release.manifest.release_id, user.snapshot.token
        self._computed[user.user_id, version, snapshot] = interests
        payload = encode(interests, version=version, release_id=release_id, snapshot=snapshot)
        return Cached(payload, self._group_ttl_s)

    def keep(self, user: UserView, group: Cached | None, answer: Cached | None) -> None:
        """Writes cache entries of a user to the store, in the background."""
        if group is not None or answer is not None:
            # The answer does not wait for the cache: with `appendfsync always` a write waits for the disk.
            self._later(self._store.keep(user.user_id, user.state.version, group=group, answer=answer))

    def forget(self, user_id: str) -> None:
        """Drops the cached interests of an erased user."""
        for cache in (self._computed, self._latest):
            for key in [key for key in cache if key[0] == user_id]:
                del cache[key]  # type: ignore[arg-type]

    def similar_items(self, interests: UserInterests, snapshot: Snapshot) -> list[list[int]]:
        """Returns for each similar user the rows of the items they took, each item once."""
        took = snapshot.recommender.tables.user_items
        users = interests.neighbours.users[0]
        return [list(dict.fromkeys(took.indices[took.row(int(user))].tolist())) for user in users[users >= 0]]

    async def close(self) -> None:
        """Waits for writes to the cache, `CLOSE_S` seconds at most: a store may hang."""
        if self._background:
            await asyncio.wait(self._background, timeout=CLOSE_S)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _state_of(user_id: str, record: UserRecord, snapshot: Snapshot) -> tuple[str, str, str, str]:
    """Equal where the user's rows are equal."""
    return user_id, record.version, snapshot.token, snapshot.release.catalogue.version


def _version(user: UserView) -> str:
    """The version of the state that interests depend on.

    It differs where this replica does not know all the items yet: its interests must not serve other replicas.
    """
    num_known, num_items = len(user.rows), len(user.state.history)
    return user.state.version if num_known == num_items else f"{user.state.version} {num_known}"
