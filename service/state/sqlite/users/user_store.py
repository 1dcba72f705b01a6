"""Reads and writes users in the embedded store, with caches in memory so that most reads need no database.

The process holds the set of users with state, the records of the last used users, and the recently active and the
erased users. It updates them after each commit, in the order of the commits.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple, TypeVar

from cachetools import LRUCache

from isrf.contract.event_log import NUM_BUCKETS, bucket_of, tombstone_name
from isrf.contract.ids import SESSION_PREFIX, session_of
from service.state.events import Event
from service.state.records import NOBODY, Applied, Cached, Learned, UserRecord
from service.state.sqlite.database import Database, OnDatabase
from service.state.sqlite.users.clock import Clock
from service.state.sqlite.users.effects import Effects
from service.state.sqlite.users.entries import journal_page, rows_after, seq_before
from service.state.sqlite.users.held_records import HeldRecords
from service.state.sqlite.users.tables import (
    collect_user,
    compact_record,
    erase_user,
    event_page,
    read_user,
    user_page,
)
from service.state.user_store import (
    MAX_RECENT,
    RECENT_PER_BUCKET,
    ActivityLook,
    EntryPage,
    ErasedUsers,
    RecentUsers,
)

STARTS_KEPT = 8
"""Moments whose place in the journal is remembered: one of each open release."""
STEP = 20
"""Users that one background read reads: a request that arrives meanwhile waits for one read at most."""
VACUUMED_AT_ONCE = 500  # pages

T = TypeVar("T")
_PageOf = Callable[[sqlite3.Connection, int], tuple[int, list[T]]]
"""Returns the page after a number, and the number after which the next page starts."""


class _AppliedEvents(NamedTuple):
    results: list[Applied]
    user_ids: list[str]  # users with accepted events, most recently active last


class EmbeddedUserStore(OnDatabase):
    """The `UserStore` of the embedded store."""

    kind: Literal["redis", "embedded"] = "embedded"

    def __init__(self, database: Database) -> None:
        """Reads the known users from the database; errors as `Database` raises them."""
        super().__init__(database)
        self._secret = database.secret
        self.clock = Clock()
        self._records = HeldRecords()
        self._known: set[str] = set()
        self._recent: list[dict[str, int]] = [{} for _ in range(NUM_BUCKETS)]
        self._count = 0
        self._erased_names: set[str] = set()
        self._erasures = [0] * NUM_BUCKETS
        self._erased: ErasedUsers | None = None
        self._left: tuple[int, int] | None = None  # a seq of the journal, about how many rows are after it
        # By moment: a seq up to which all rows are older. New rows come behind it, and removed ones do not move it.
        self._starts: LRUCache[float, int] = LRUCache(STARTS_KEPT)
        for name, bucket in database.ask_now(lambda db: db.execute("SELECT name, bucket FROM tombstones").fetchall()):
            self._erased_names.add(name)
            self._erasures[bucket] += 1
        self._known.update(database.ask_now(_known_users))
        self._note(database.ask_now(_last_active))

    async def read(self, user_id: str) -> UserRecord:
        ready = self._ready(user_id)
        if ready is not None:
            return ready
        return await self._records.read(
            user_id, lambda: self.database.read(lambda db: read_user(db, self._secret, user_id))
        )

    async def read_many(self, user_ids: Sequence[str]) -> list[UserRecord]:
        records: list[UserRecord] = []
        for start in range(0, len(user_ids), STEP):
            page = user_ids[start : start + STEP]
            found = {user_id: self._ready(user_id) for user_id in page}
            missing = [user_id for user_id, record in found.items() if record is None]
            if missing:
                found |= zip(missing, await self.database.read_behind(self._reads(missing)), strict=True)
            records += [record for user_id in page if (record := found[user_id]) is not None]
            await asyncio.sleep(0)
        return records

    def _ready(self, user_id: str) -> UserRecord | None:
        return self._records.get(user_id) or (None if self._may_know(user_id) else NOBODY)

    def _reads(self, user_ids: Sequence[str]) -> Callable[[sqlite3.Connection], list[UserRecord]]:
        return lambda db: [read_user(db, self._secret, user_id) for user_id in user_ids]

    def _may_know(self, user_id: str) -> bool:
        """Whether a user may have state: most of a shop's users have no events since the release."""
        if user_id in self._known:
            return True
        return bool(self._erased_names) and tombstone_name(self._secret, user_id) in self._erased_names

    async def erased(self) -> ErasedUsers | None:
        if self._erased is None and self._erased_names:
            self._erased = ErasedUsers(self._secret, frozenset(self._erased_names), tuple(self._erasures))
        return self._erased

    async def recent(self, known: RecentUsers, after: Sequence[bytes | None], _before_ms: int) -> ActivityLook:
        # This process has accepted all events itself.
        moved: set[str] = set()
        for bucket, users in enumerate(self._recent):
            last = int(after[bucket] or 0)
            if any(count > last for count in users.values()):
                known[bucket].clear()
                known[bucket].update(dict.fromkeys(users))
                moved |= {user_id for user_id, count in users.items() if count > last}
        return ActivityLook([str(self._count).encode()] * len(self._recent), moved)

    def _note(self, user_ids: Iterable[str]) -> None:
        """Records that users were active, in this order; a session has state, and is nobody's similar user."""
        for user_id in user_ids:
            self._known.add(user_id)
            if session_of(user_id) is not None:
                continue
            users = self._recent[bucket_of(user_id)]
            users.pop(user_id, None)
            self._count += 1
            users[user_id] = self._count
            if len(users) > RECENT_PER_BUCKET:
                del users[next(iter(users))]

    async def apply(self, events: Sequence[Event]) -> list[Applied]:
        copied = list(events)

        def apply_events(db: sqlite3.Connection) -> _AppliedEvents:
            effects = Effects(db, self._secret, self.clock.now())
            return _AppliedEvents(effects.take(copied), effects.accepted_of)

        def then(applied: _AppliedEvents) -> None:
            self._records.drop(applied.user_ids)
            self._note(applied.user_ids)

        return (await self.database.write(apply_events, then)).results

    async def keep(
        self,
        user_id: str,
        version: str,
        *,
        group: Cached | None = None,
        answer: Cached | None = None,
    ) -> None:
        """Does nothing: this process caches both in memory, and there is no other process."""

    async def erase(self, user_id: str) -> None:
        def then(_: None) -> None:
            self._records.drop([user_id])
            self._known.discard(user_id)  # from now on the tombstone answers `_may_know`
            self._recent[bucket_of(user_id)].pop(user_id, None)
            self._erased_names.add(tombstone_name(self._secret, user_id))
            self._erasures[bucket_of(user_id)] += 1
            self._erased = None

        # Even for a user without state: bytes may still be in the log, from a removal or an interrupted call.
        await self.database.write(
            lambda db: erase_user(db, self._secret, user_id, self.clock.now()), then, scrubs=user_id
        )

    def user_ids(self) -> AsyncIterator[list[str]]:
        return self._pages(user_page)

    def accepted(self) -> AsyncIterator[list[Event]]:
        return self._pages(event_page)

    async def _pages(self, page_of: _PageOf[T]) -> AsyncIterator[list[T]]:
        async def page_after(start: int) -> tuple[int, list[T]]:
            return await self.database.read_behind(lambda db: page_of(db, start))

        after, page = await page_after(0)
        while page:
            yield page
            after, page = await page_after(after)

    async def entries(self, after: Mapping[int, bytes], *, since: float, limit: int) -> EntryPage:
        read = self.database.read_behind
        seqs = {bucket: int(position) for bucket, position in after.items() if position}
        if len(seqs) < len(after):
            start, found = self._starts.get(since, 0), False
            while not found:
                start, found = await read(partial(seq_before, after=start, since=since))
            self._starts[since] = start
            seqs = {bucket: seqs.get(bucket, start) for bucket in after}
        if not seqs:
            return EntryPage([], {}, 0, 0.0)
        before = min(seqs.values())
        page = await read(partial(journal_page, after=seqs, limit=max(limit, 1)))
        # Counted once: a count of a long journal takes long, and later pages continue from here.
        if not page.is_full:
            left = 0
        elif self._left is not None and self._left[0] == before:
            left = max(self._left[1] - limit, 1)
        else:
            left = await read(partial(rows_after, seq=page.last))
        self._left = page.last, left
        positions = {bucket: str(max(seq, page.last)).encode() for bucket, seq in seqs.items()}
        return EntryPage(page.entries, positions, left, page.trimmed_until)

    async def claim(self, _name: str, _ttl_s: int) -> bool:
        return True

    async def collect(self, user_id: str, version: str, learned: Learned) -> None:
        def then(left: bool) -> None:
            self._records.drop([user_id])
            if not left:
                self._known.discard(user_id)

        await self.database.write(lambda db: collect_user(db, user_id, version, learned), then)

    async def compact(self) -> None:
        """Deletes events that the offline job has used, that are in no state any more and older than a day.

        It works in steps: events that arrive meanwhile wait for one step at most.
        """
        checked: int | None = 0
        while checked is not None:
            checked = await self.database.write(partial(compact_record, after=checked, now=self.clock.now()))
        while await self.database.write(_vacuum):
            pass


def _known_users(db: sqlite3.Connection) -> list[str]:
    return [user_id for (user_id,) in db.execute("SELECT user_id FROM users")]


def _last_active(db: sqlite3.Connection) -> list[str]:
    """Returns more users than can count as recent, most recently active last; no sessions."""
    query = "SELECT user_id FROM users WHERE user_id NOT GLOB ? ORDER BY active DESC LIMIT ?"
    return [user_id for (user_id,) in db.execute(query, (f"{SESSION_PREFIX}*", 2 * MAX_RECENT))][::-1]


def _vacuum(db: sqlite3.Connection) -> bool:
    """Gives some free pages back to the disk; returns whether there are more."""

    def free() -> int:
        return int(db.execute("PRAGMA freelist_count").fetchone()[0])

    before = free()
    db.execute(f"PRAGMA incremental_vacuum({VACUUMED_AT_ONCE})").fetchall()
    return 0 < free() < before
