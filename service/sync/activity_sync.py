"""Keeps a replica's snapshot up to date: every epoch it reads from the store which users were erased or active.

Epochs begin at the same moments everywhere (multiples of their length since 1970), so that replicas make the same
snapshot and share cached interests. While the store fails, the snapshot stays as it is.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

import structlog

from isrf.contract.errors import IsrfError
from isrf.contract.event_log import NUM_BUCKETS, bucket_of
from isrf.contract.ids import UserIndex
from isrf.runtime.active_users import ActiveUser, read_active_users
from service.inference.engine import Engine
from service.inference.task_cancellation import end
from service.release.opening import Release
from service.release.snapshot import make_snapshot
from service.state.events import EventRules
from service.state.merge import merge
from service.state.user_store import ErasedUsers, RecentUsers, UserStore, nobody_recent

HISTORY = 50
"""Latest items of an active user that are read; older ones have no weight."""
FIRST_LOOK_S = 5.0
"""How long the start waits for the first snapshot."""
READ_TOGETHER = 64
"""Active users in one run of the interest graph: a request that arrives meanwhile waits for one run at most."""
REST_TIMES = 3
"""A background update rests this many times as long as it works: requests share the threads with it."""
REST_SHARE = 1 / 3
"""Share of an epoch after which a background update does not rest any more."""

_log = structlog.get_logger("service")


class ActivitySync:
    """Keeps the snapshot of one release up to date."""

    def __init__(
        self,
        engine: Engine,
        store: UserStore,
        *,
        rules: EventRules,
        epoch_s: float,
        before: "ActivitySync | None" = None,
    ) -> None:
        """before: the sync of the previous release; users erased there are erased here even if the store fails."""
        self._before = before
        self._engine, self._store, self._rules, self._epoch_s = engine, store, rules, epoch_s
        self._recent: RecentUsers = nobody_recent()
        self._seen: list[bytes | None] = [None] * len(self._recent)
        self._known: dict[str, ActiveUser | str] = {}  # a version alone: the user has no new items
        self._erased: tuple[ErasedUsers | None, frozenset[int]] = (None, frozenset())
        self._looking = asyncio.Lock()
        self._urgent = asyncio.Event()  # a caller waits for the current update to end
        self._rests_until = 0.0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Updates the snapshot once, within `FIRST_LOOK_S` if possible, and then every epoch until `close`."""
        before, self._before = self._before, None
        if before is not None:
            release = self._engine.release
            async with self._looking:
                erased = await asyncio.to_thread(before.erased_rows_in, release)
                await self._make_snapshot(release, self._engine.snapshot.erased | erased)
        self._task = asyncio.create_task(self._run())
        first = asyncio.create_task(self.look())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(first), FIRST_LOOK_S)

    async def close(self) -> None:
        if self._task is not None:
            await end(self._task)
            self._task = None
        async with self._looking:
            pass

    async def look(self, *, rests_for_s: float = 0.0, until_s: float | None = None) -> None:
        """Updates the snapshot.

        Args:
            rests_for_s: the update rests in between, for so many seconds in total.
            until_s: events before this moment count; None for the beginning of the epoch.
        """
        async with self._looking:
            self._rests_until = time.monotonic() + rests_for_s
            try:
                await self._look(until_s)
            except IsrfError as error:
                _log.info("crowd_unchanged", code=error.code)

    async def forget(self, user_id: str) -> None:
        """Removes a user who was just erased from this replica's snapshot at once."""
        async with self._without_rest():
            release = self._engine.release
            row = release.users.row(user_id)
            if row < 0 and user_id not in self._known and user_id not in self._engine.snapshot.active_users:
                return
            self._known.pop(user_id, None)
            erased = self._engine.snapshot.erased | ({row} if row >= 0 else frozenset())
            await self._make_snapshot(release, erased)

    def erased_rows_in(self, release: Release) -> frozenset[int]:
        """Returns the rows in another release of the users that this sync knows as erased."""
        ids, snapshot = self._engine.release.users.ids, self._engine.snapshot
        rows = (release.users.row(ids.external(UserIndex(row))) for row in snapshot.erased)
        return _rows(release, self._erased[0]) | {row for row in rows if row >= 0}

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._epoch_s - time.time() % self._epoch_s)
            try:
                await self.look(rests_for_s=REST_SHARE * self._epoch_s)
            except Exception as error:  # noqa: BLE001 - a failed update must not end the loop
                _log.error("crowd_failed", exc_info=error)

    async def _look(self, until_s: float | None) -> None:
        release = self._engine.release
        erased = await self._rows_of_erased(release)
        if until_s is None:
            until_s = time.time() // self._epoch_s * self._epoch_s
        before_ms = int(until_s * 1000)
        # On copies: an update that fails half-way must not count as done.
        recent: RecentUsers = [dict(users) for users in self._recent]
        seen, moved = await self._store.recent(recent, self._seen, before_ms)
        active = [user_id for users in recent for user_id in users]
        stale = {user_id for user_id in active if user_id in moved or user_id not in self._known}
        known = {user_id: self._known[user_id] for user_id in active if user_id in self._known}
        known |= await self._read(release, sorted(stale))
        self._recent, self._seen, self._known = recent, seen, known
        await self._make_snapshot(release, erased)

    async def _make_snapshot(self, release: Release, erased: frozenset[int]) -> None:
        active_users = {user_id: user for user_id, user in self._known.items() if isinstance(user, ActiveUser)}
        await self._engine.change_snapshot(lambda: make_snapshot(release, erased, active_users))

    async def _rows_of_erased(self, release: Release) -> frozenset[int]:
        erased = await self._store.erased()
        if erased != self._erased[0]:
            self._drop_changed_buckets(erased)
            self._erased = (erased, await asyncio.to_thread(_rows, release, erased))
            # At once, because the rest of this update may fail.
            await self._make_snapshot(release, self._erased[1])
        return self._erased[1]

    def _drop_changed_buckets(self, erased: ErasedUsers | None) -> None:
        """Drops the known users of buckets with new erasures, so that the update reads them again."""
        nothing = (0,) * NUM_BUCKETS
        before = nothing if self._erased[0] is None else self._erased[0].counts
        now = nothing if erased is None else erased.counts
        changed = {bucket for bucket in range(NUM_BUCKETS) if before[bucket] != now[bucket]}
        self._known = {name: user for name, user in self._known.items() if bucket_of(name) not in changed}

    async def _read(self, release: Release, user_ids: Sequence[str]) -> dict[str, ActiveUser | str]:
        found: dict[str, ActiveUser | str] = {}
        for start in range(0, len(user_ids), READ_TOGETHER):
            began = time.monotonic()
            batch = user_ids[start : start + READ_TOGETHER]
            versions, histories, names = [], [], []
            for user_id, record in zip(batch, await self._store.read_many(batch), strict=True):
                past = release.users.past(user_id, lambda kind: self._rules.effect(kind) == "B")
                state = merge(record, past, release.learned_until)
                before = self._known.get(user_id)
                if isinstance(before, ActiveUser) and before.version == state.version:
                    found[user_id] = before
                    continue
                found[user_id] = state.version
                rows = release.catalogue.rows(entry.item_id for entry in state.history[-HISTORY:])
                if rows and (record.erased or len(state.history) != len(past.history)):
                    versions.append(state.version)
                    histories.append(rows)
                    names.append(user_id)
            active_users = await self._engine.run("crowd", read_active_users, release.recommender, versions, histories)
            found.update(zip(names, active_users, strict=True))
            await self._rest(time.monotonic() - began)
        return found

    async def _rest(self, worked_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(REST_TIMES * worked_s, self._rests_until - time.monotonic()))):
                await self._urgent.wait()

    @contextlib.asynccontextmanager
    async def _without_rest(self) -> AsyncIterator[None]:
        """Waits for the current update, which rests no more, and holds off the next one."""
        self._urgent.set()
        async with self._looking:
            self._urgent.clear()
            yield


def _rows(release: Release, erased: ErasedUsers | None) -> frozenset[int]:
    if erased is None:
        return frozenset()
    return frozenset(row for row, user_id in enumerate(release.users.ids) if erased.holds(user_id))
