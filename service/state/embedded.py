"""User state inside one process: `RedisStore` over fakeredis, and a journal on disk that is replayed at start.

An event reaches the journal before memory: what was answered *accepted* is on disk, and what the disk refused has had
no effect. An event that reached the disk but not its caller is there after a restart and a duplicate when sent again.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from fakeredis import FakeAsyncRedis

from isrf.item_changes import Entry as ItemEntry
from isrf.stream import REMEMBER_S, tombstone_name
from service.state import payload as event_payload
from service.state.erasure import Erased
from service.state.events import Event
from service.state.items import PAGE, ItemChange, ItemOutcome, ItemsCursor, ItemsLook, Prepared, first_of_each
from service.state.journal import Journal
from service.state.keys import META_KEY, NUM_BUCKETS, bucket_of, tombstone_key
from service.state.merge import Learned
from service.state.recent import PER_BUCKET, Look, Recent
from service.state.redis_store import RedisStore
from service.state.store import NOBODY, Applied, Cached, UserRecord

REPLAY_BATCH = 500
STEP = 20
EVERYTHING = 2**62
RECORDS = 4096
"""Users whose state is held ready: a simulated server is not asked again for what nobody has changed."""
MAX_CONNECTIONS = 1_000_000
MOST_MARKS = 100_000


class EmbeddedStore:
    """The `Store` of one process."""

    kind: Literal["redis", "embedded"] = "embedded"

    def __init__(self, journal: Journal, memory: RedisStore) -> None:
        self._journal, self._memory = journal, memory
        # Memory takes changes in the journal's order: a restart must not find another state than the one served.
        self._changing = asyncio.Lock()
        self._changing_items = asyncio.Lock()
        self._added: set[str] = set()
        self._erased: Erased | None = None
        self._recent: list[dict[str, int]] = [{} for _ in range(NUM_BUCKETS)]
        self._count = 0
        self._records: OrderedDict[str, UserRecord] = OrderedDict()
        self._known: set[str] = set()
        self._changes = 0
        self._marks: dict[str, None] = {}

    @classmethod
    async def open(cls, folder: Path, *, erasure_key: str | None = None) -> "EmbeddedStore":
        """Locks the folder and replays its journal; errors as `Journal` and `payload.decode` raise them."""
        journal = Journal(folder, erasure_key=erasure_key)
        try:
            # Its connections are objects in this process: redis-py's limit of 100 would only refuse requests.
            client = FakeAsyncRedis(max_connections=MAX_CONNECTIONS)
            await client.hset(META_KEY, "secret", journal.secret_record)
            store = cls(journal, RedisStore(client, client, erasure_key=erasure_key, streamed=False))
            await store._replay(client)
        except BaseException:
            await journal.close()
            raise
        return store

    async def _replay(self, client: FakeAsyncRedis) -> None:
        names: set[str] = set()
        counts = [0] * NUM_BUCKETS
        for name, bucket, text in self._journal.tombstones():
            names.add(name)
            counts[bucket] += 1
            await client.hset(tombstone_key(bucket), name, text)
        if names:
            self._erased = Erased(self._journal.secret, frozenset(names), tuple(counts))
        batch: list[Event] = []
        for _, row in self._journal.rows():
            batch.append(event_payload.decode(row))
            if len(batch) == REPLAY_BATCH:
                await self._take(batch)
                batch = []
        await self._take(batch)
        items = [Prepared(item_id, b"", entry, added) for item_id, entry, added in self._journal.items()]
        self._added = {one.item_id for one in items if one.added}
        for start in range(0, len(items), PAGE):
            await self._memory.item_states.write(items[start : start + PAGE], limit=len(items))

    async def _take(self, batch: list[Event]) -> None:
        if batch:
            self._known.update(event.user_id for event in batch)
            await self._memory.apply(batch)
            self._note(batch)

    async def read(self, user_id: str) -> UserRecord:
        found = self._records.get(user_id)
        if found is not None:
            self._records.move_to_end(user_id)
            return found
        changes = self._changes
        record = await self._memory.read(user_id) if self._may_know(user_id) else NOBODY
        # Not one that somebody may have changed while it was read.
        if changes == self._changes:
            while len(self._records) >= RECORDS:
                self._records.popitem(last=False)
            self._records[user_id] = record
        return record

    def _may_know(self, user_id: str) -> bool:
        """Whether memory may hold anything of a user: most of a shop's shoppers have done nothing since the release."""
        return user_id in self._known or (self._erased is not None and self._erased.holds(user_id))

    def _changed(self, user_ids: Iterable[str]) -> None:
        """To be called when a change begins and when it has ended: what was read before, or meanwhile, is not kept."""
        self._changes += 1
        for user_id in user_ids:
            self._records.pop(user_id, None)

    async def read_many(self, user_ids: Sequence[str]) -> list[UserRecord]:
        records: list[UserRecord] = []
        for start in range(0, len(user_ids), STEP):
            some = user_ids[start : start + STEP]
            ready = {user_id: self._records[user_id] for user_id in some if user_id in self._records}
            asked = [user_id for user_id in some if user_id not in ready]
            ready |= zip(asked, await self._memory.read_many(asked), strict=True)
            records += [ready[user_id] for user_id in some]
            await asyncio.sleep(0)
        return records

    async def erased(self) -> Erased | None:
        return self._erased

    async def recent(self, known: Recent, after: Sequence[bytes | None], _before_ms: int) -> Look:
        # What this process took in itself is all there is: no need to look into the memory of a simulated server.
        moved: set[str] = set()
        for bucket, users in enumerate(self._recent):
            last = int(after[bucket] or 0)
            if any(count > last for count in users.values()):
                known[bucket].clear()
                known[bucket].update(dict.fromkeys(users))
                moved |= {user_id for user_id, count in users.items() if count > last}
        return Look([str(self._count).encode()] * len(self._recent), moved)

    def _note(self, events: Sequence[Event]) -> None:
        for event in events:
            users = self._recent[bucket_of(event.user_id)]
            users.pop(event.user_id, None)
            self._count += 1
            users[event.user_id] = self._count
            if len(users) > PER_BUCKET:
                del users[next(iter(users))]

    async def apply(self, events: Sequence[Event]) -> list[Applied]:
        await self._journal.append([(event.user_id, event_payload.encode(event)) for event in events])
        outcomes: list[Applied] = []
        async with self._changing:
            for start in range(0, len(events), STEP):
                users = {event.user_id for event in events[start : start + STEP]}
                self._known |= users
                self._changed(users)
                outcomes += await self._memory.apply(events[start : start + STEP])
                self._changed(users)
                self._note(events[start : start + STEP])
                # fakeredis computes on the event loop: others get their turn between the steps.
                await asyncio.sleep(0)
        return outcomes

    async def keep(
        self,
        user_id: str,
        *,
        group: Cached | None = None,
        answer: Cached | None = None,
    ) -> None:
        """This process remembers both itself, and there is no other."""

    async def erase(self, user_id: str) -> None:
        await self._journal.erase(user_id)
        async with self._changing:
            self._changed([user_id])
            await self._memory.erase(user_id)
            self._changed([user_id])
            names = frozenset() if self._erased is None else self._erased.names
            counts = [0] * NUM_BUCKETS if self._erased is None else list(self._erased.counts)
            counts[bucket_of(user_id)] += 1
            secret = self._journal.secret
            self._erased = Erased(secret, names | {tombstone_name(secret, user_id)}, tuple(counts))
            self._known.discard(user_id)  # by its tombstone it is known without its name

    async def change_items(self, changes: Sequence[ItemChange], *, limit: int) -> list[ItemOutcome]:
        outcomes: list[ItemOutcome] = ["accepted"] * len(changes)
        async with self._changing_items:
            waiting = list(range(len(changes)))
            while waiting:
                places = [waiting[at] for at in first_of_each([changes[place].item_id for place in waiting])[:PAGE]]
                waiting = sorted(set(waiting) - set(places))
                taken: list[ItemChange] = []
                added = set(self._added)
                for place in places:
                    change = changes[place]
                    if change.added and change.item_id not in added and len(added) >= limit:
                        outcomes[place] = "too_many"
                    else:
                        taken.append(change)
                        added |= {change.item_id} if change.added else set()
                prepared = await self._memory.item_states.prepare(taken)
                await self._journal.keep_items([(one.item_id, one.entry, one.added) for one in prepared])
                self._added = added
                await self._memory.item_states.write(prepared, limit=len(added))
        return outcomes

    async def items(self, after: ItemsCursor | None) -> ItemsLook:
        return await self._memory.items(after)

    async def collect_items(self, doomed: Mapping[str, ItemEntry]) -> int:
        async with self._changing_items:
            # Memory knows which have not changed since; what a crash brings back of them is collected again.
            count = await self._memory.item_states.collect(doomed)
            look = await self._memory.items(None)
            gone = [item_id for item_id in doomed if item_id not in look.entries]
            self._added -= set(gone)
            await self._journal.forget_items(gone)
        return count

    def user_ids(self) -> AsyncIterator[list[str]]:
        return self._memory.user_ids()

    async def accepted(self) -> AsyncIterator[list[Event]]:
        after = 0
        while page := await self._journal.page(after, EVERYTHING, REPLAY_BATCH):
            after = page[-1][0]
            yield [event_payload.decode(payload) for _, payload in page]

    async def keep_lists(self, _lists: Mapping[str, bytes], _ttl_s: int) -> None:
        """This process has them itself, and there is no other."""

    async def read_list(self, _recommendation_id: str) -> bytes | None:
        return None

    async def first(self, marks: Sequence[str], _ttl_s: int) -> list[bool]:
        known = [mark in self._marks for mark in marks]
        self._marks |= dict.fromkeys(marks)
        while len(self._marks) > MOST_MARKS:
            del self._marks[next(iter(self._marks))]
        return [not one for one in known]

    async def count(self, counts: Mapping[str, int]) -> None:
        await self._memory.count(counts)

    async def counts(self) -> dict[str, int]:
        return await self._memory.counts()

    async def claim(self, _name: str, _ttl_s: int) -> bool:
        return True

    async def collect(self, user_id: str, version: str, learned: Learned) -> None:
        async with self._changing:
            self._changed([user_id])
            await self._memory.collect(user_id, version, learned)
            self._changed([user_id])

    async def compact(self) -> None:
        """Deletes the rows that were taken into the shop's data and of which nothing is left in state.

        Not those of the last day: by them duplicates are known.
        """
        exported, before = await self._journal.exported(), time.time() - REMEMBER_S
        after = 0
        while page := await self._journal.page(after, exported, REPLAY_BATCH):
            after = page[-1][0]
            events = [(seq, event_payload.decode(payload)) for seq, payload in page]
            user_ids = sorted({event.user_id for _, event in events})
            records = dict(zip(user_ids, await self.read_many(user_ids), strict=True))
            doomed = [seq for seq, event in events if event.accepted_at < before and _is_gone(event, records)]
            if doomed:
                await self._journal.forget_rows(doomed)

    async def ping(self) -> None:
        if self._journal.failure is not None:
            raise self._journal.failure
        await self._memory.ping()

    async def close(self) -> None:
        await self._memory.close()
        await self._journal.close()


def _is_gone(event: Event, records: Mapping[str, UserRecord]) -> bool:
    record = records[event.user_id]
    stands = any((entry.item_id, entry.timestamp) == (event.item_id, event.timestamp) for entry in record.history)
    return not stands and event.item_id not in record.marks
