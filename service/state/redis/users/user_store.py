"""Reads and writes users in Redis: one pipeline per read, one script call per bucket and write."""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal

import structlog
from redis.exceptions import ResponseError

from isrf.contract.errors import StoreError
from service.state.events import Event
from service.state.records import NO_VERSION, NOBODY, Applied, Cached, Learned, UserRecord
from service.state.redis.clients import OnRedis, RedisClients, as_store_errors
from service.state.redis.failures import FAILURES, FOREIGN, UNREADABLE, store_error
from service.state.redis.keys import bucket_of, tombstone_key, user_keys
from service.state.redis.scripts import lua_script
from service.state.redis.users.commands import ASKED, TOMBSTONE_AT, ask_user, history_member, read_record
from service.state.redis.users.entries import read_entries
from service.state.redis.users.erasure import Erasure
from service.state.redis.users.event_writes import EventWrites
from service.state.redis.users.everything import accepted_events, all_users
from service.state.redis.users.recent import read_recent
from service.state.user_store import ActivityLook, EntryPage, ErasedUsers, RecentUsers

READ_TOGETHER = 100

KEEP_SCRIPT = lua_script("keep")
COLLECT_SCRIPT = lua_script("collect")

_log = structlog.get_logger("service")


class RedisUserStore(OnRedis):
    """The `UserStore` in Redis."""

    kind: Literal["redis", "embedded"] = "redis"

    def __init__(self, clients: RedisClients, *, erasure_key: str | None = None) -> None:
        """erasure_key: the operator's secret for tombstones, None for a secret in the store."""
        super().__init__(clients)
        self._erasure = Erasure(clients.reads, clients.scripts, clients.writes, key=erasure_key)
        self._events = EventWrites(clients.scripts, self._erasure)

    async def read(self, user_id: str) -> UserRecord:
        async def ask() -> UserRecord:
            keys = user_keys(user_id)
            while True:
                pipe = self.clients.reads.pipeline(transaction=False)
                ask_user(pipe, user_id, await self._erasure.name(user_id))
                pipe.get(keys.group)
                pipe.get(keys.answer)
                *known, group, answer = await pipe.execute()
                if not await self._erasure.is_stale(known[TOMBSTONE_AT][1]):
                    return read_record(known, group, answer)

        return await self.clients.read(ask)

    async def read_many(self, user_ids: Sequence[str]) -> list[UserRecord]:
        records: list[UserRecord] = []
        with as_store_errors():
            for start in range(0, len(user_ids), READ_TOGETHER):
                records += await self._read_some(user_ids[start : start + READ_TOGETHER])
        return records

    async def _read_some(self, user_ids: Sequence[str]) -> list[UserRecord]:
        while True:
            pipe = self.clients.writes.pipeline(transaction=False)
            for user_id in user_ids:
                ask_user(pipe, user_id, await self._erasure.name(user_id))
            answers = await pipe.execute(raise_on_error=False)
            of_users = [answers[start : start + ASKED] for start in range(0, len(answers), ASKED)]
            stones = [user[TOMBSTONE_AT] for user in of_users if not isinstance(user[TOMBSTONE_AT], Exception)]
            for record in dict.fromkeys(record for _, record in stones):
                if await self._erasure.is_stale(record):
                    break
            else:
                return [_record_of(user) for user in of_users]

    async def erased(self) -> ErasedUsers | None:
        return await self.clients.write(self._erasure.everyone())

    async def recent(self, known: RecentUsers, after: Sequence[bytes | None], before_ms: int) -> ActivityLook:
        return await self.clients.write(read_recent(self.clients.writes, known, after, before_ms))

    async def apply(self, events: Sequence[Event]) -> list[Applied]:
        results = await self.clients.write_durably(self._events.apply, events)
        # The next read must see the accepted events.
        self.clients.close_breaker()
        return results

    async def keep(
        self, user_id: str, version: str, *, group: Cached | None = None, answer: Cached | None = None
    ) -> None:
        keys = user_keys(user_id)
        entries = [(key, cached) for key, cached in ((keys.group, group), (keys.answer, answer)) if cached is not None]
        # A write: with `appendfsync always` it may take longer than a read's timeout.
        with contextlib.suppress(*FAILURES, StoreError):
            if not await self.clients.room.is_left():
                return
            names = [keys.version, tombstone_key(bucket_of(user_id)), *(key for key, _ in entries)]
            arguments: list[Any] = [version, await self._erasure.name(user_id), NO_VERSION]
            arguments += [part for _, cached in entries for part in (cached.ttl_s, cached.payload)]
            await self.clients.scripts.run_one(KEEP_SCRIPT, (len(names), [*names, *arguments]))

    async def erase(self, user_id: str) -> None:
        await self.clients.write_durably(self._erasure.erase, user_id)

    async def user_ids(self) -> AsyncIterator[list[str]]:
        with as_store_errors():
            async for page in all_users(self.clients.writes):
                yield page

    async def accepted(self) -> AsyncIterator[list[Event]]:
        with as_store_errors():
            async for page in accepted_events(self.clients.writes, self._erasure):
                yield page

    async def entries(self, after: Mapping[int, bytes], *, since: float, limit: int) -> EntryPage:
        page = read_entries(self.clients.writes, self._erasure, after, since=since, limit=limit)
        return await self.clients.write(page)

    async def claim(self, name: str, ttl_s: int) -> bool:
        return bool(await self.clients.write(self.clients.writes.set(f"isrf:{{b0}}:{name}", "1", ex=ttl_s, nx=True)))

    async def collect(self, user_id: str, version: str, learned: Learned) -> None:
        keys = user_keys(user_id)
        members = [history_member(entry) for entry in learned.entries]
        arguments = [version, len(members), *members, *learned.items]
        call = (3, [keys.version, keys.history, keys.marks, *arguments])
        await self.clients.write(self.clients.scripts.run_one(COLLECT_SCRIPT, call))

    async def compact(self) -> None:
        """Does nothing: the offline job trims the streams."""


def _record_of(answers: Sequence[Any]) -> UserRecord:
    """Reads one record of many; a user with foreign content counts as unknown, and does not fail the others."""
    try:
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return read_record(answers)
    except (UNREADABLE, ResponseError) as error:
        if store_error(error).code != FOREIGN:
            raise
        _log.warning("foreign_user_state")
        return NOBODY
