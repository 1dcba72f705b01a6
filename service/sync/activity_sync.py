"""Keeps a replica's snapshot up to date: every epoch it looks who was erased and who was active, and reads them.

Epochs begin at the same moments everywhere (multiples of their length since 1970), so that replicas come to the same
snapshot and share cached interests. What the store cannot tell now stays as it was until it can.
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
from service.release.snapshot import gather
from service.state.events import EventRules
from service.state.merge import merge
from service.state.user_store import ErasedUsers, RecentUsers, UserStore, nobody_recent

HISTORY = 50
"""Items of a active_user that are read; older ones weigh nothing."""
FIRST_LOOK_S = 5.0
"""How long the start waits for the snapshot."""
READ_TOGETHER = 64
"""Newcomers in one run of the interest graph: a request that comes meanwhile waits for no more."""
REST_TIMES = 3
"""A look that nobody waits for rests so many times as long as it worked: requests share the threads with it."""
REST_SHARE = 1 / 3
"""Of an epoch, by the end of which it does not rest any more."""

_log = structlog.get_logger("service")


class ActivitySync:
    """One per release."""

    def __init__(
        self,
        engine: Engine,
        store: UserStore,
        *,
        rules: EventRules,
        epoch_s: float,
        before: "ActivitySync | None" = None,
    ) -> None:
        """`before` is the feed of another release: who is known there to be erased is so here, store or no store."""
        self._before = before
        self._engine, self._store, self._rules, self._epoch_s = engine, store, rules, epoch_s
        self._recent: RecentUsers = nobody_recent()
        self._seen: list[bytes | None] = [None] * len(self._recent)
        self._known: dict[str, ActiveUser | str] = {}  # a version alone: nothing new of them
        self._erased: tuple[ErasedUsers | None, frozenset[int]] = (None, frozenset())
        self._looking = asyncio.Lock()
        self._hurries = asyncio.Event()  # somebody waits for the look under way to end
        self._rests_until = 0.0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Looks once, if that can be done soon, and then every epoch until `close`."""
        before, self._before = self._before, None
        if before is not None:
            release = self._engine.release
            async with self._looking:
                gone = await asyncio.to_thread(before.gone_from, release)
                await self._gather(release, self._engine.snapshot.erased | gone)
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

    async def look(self, *, rests_for_s: float = 0.0) -> None:
        """Brings the snapshot up to date; not in one piece, where it may rest for so long in all."""
        async with self._looking:
            self._rests_until = time.monotonic() + rests_for_s
            try:
                await self._look()
            except IsrfError as error:
                _log.info("crowd_unchanged", code=error.code)

    async def forget(self, user_id: str) -> None:
        """Takes a user who was just erased out of this replica's snapshot at once."""
        async with self._at_once():
            release = self._engine.release
            row = release.users.row(user_id)
            if row < 0 and user_id not in self._known and user_id not in self._engine.snapshot.active_users:
                return
            self._known.pop(user_id, None)
            erased = self._engine.snapshot.erased | ({row} if row >= 0 else frozenset())
            await self._gather(release, erased)

    def gone_from(self, release: Release) -> frozenset[int]:
        """Rows of another release's users of whom this feed knows that they were erased."""
        ids, snapshot = self._engine.release.users.ids, self._engine.snapshot
        named = (release.users.row(ids.external(UserIndex(row))) for row in snapshot.erased)
        return _rows(release, self._erased[0]) | {row for row in named if row >= 0}

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._epoch_s - time.time() % self._epoch_s)
            try:
                await self.look(rests_for_s=REST_SHARE * self._epoch_s)
            except Exception as error:  # noqa: BLE001 - a snapshot that grows old must not end the service
                _log.error("crowd_failed", exc_info=error)

    async def _look(self) -> None:
        release = self._engine.release
        erased = await self._rows_of_erased(release)
        before_ms = int(time.time() // self._epoch_s * self._epoch_s * 1000)
        # On copies: a look that fails half-way must not count as done.
        recent: RecentUsers = [dict(users) for users in self._recent]
        seen, moved = await self._store.recent(recent, self._seen, before_ms)
        active = [user_id for users in recent for user_id in users]
        stale = {user_id for user_id in active if user_id in moved or user_id not in self._known}
        known = {user_id: self._known[user_id] for user_id in active if user_id in self._known}
        known |= await self._read(release, sorted(stale))
        self._recent, self._seen, self._known = recent, seen, known
        await self._gather(release, erased)

    async def _gather(self, release: Release, erased: frozenset[int]) -> None:
        active_users = {user_id: one for user_id, one in self._known.items() if isinstance(one, ActiveUser)}
        await self._engine.change_snapshot(lambda: gather(release, erased, active_users))

    async def _rows_of_erased(self, release: Release) -> frozenset[int]:
        erased = await self._store.erased()
        if erased != self._erased[0]:
            self._forget_newcomers(erased)
            self._erased = (erased, await asyncio.to_thread(_rows, release, erased))
            # Whatever becomes of the rest of this look.
            await self._gather(release, self._erased[1])
        return self._erased[1]

    def _forget_newcomers(self, erased: ErasedUsers | None) -> None:
        """Where there were erasures, everybody is read again."""
        nothing = (0,) * NUM_BUCKETS
        before = nothing if self._erased[0] is None else self._erased[0].counts
        now = nothing if erased is None else erased.counts
        moved = {bucket for bucket in range(NUM_BUCKETS) if before[bucket] != now[bucket]}
        self._known = {name: one for name, one in self._known.items() if bucket_of(name) not in moved}

    async def _read(self, release: Release, user_ids: Sequence[str]) -> dict[str, ActiveUser | str]:
        found: dict[str, ActiveUser | str] = {}
        for start in range(0, len(user_ids), READ_TOGETHER):
            began = time.monotonic()
            some = user_ids[start : start + READ_TOGETHER]
            versions, histories, names = [], [], []
            for user_id, record in zip(some, await self._store.read_many(some), strict=True):
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
                await self._hurries.wait()

    @contextlib.asynccontextmanager
    async def _at_once(self) -> AsyncIterator[None]:
        """When the look under way has ended, which does not rest any more."""
        self._hurries.set()
        async with self._looking:
            self._hurries.clear()
            yield


def _rows(release: Release, erased: ErasedUsers | None) -> frozenset[int]:
    if erased is None:
        return frozenset()
    return frozenset(row for row, user_id in enumerate(release.users.ids) if erased.holds(user_id))
