"""User state in Redis (or a Redis Cluster): one pipeline per read, one script call per bucket and write.

Reads give up early and, after failures in a row, do not ask at all for a moment, so that a request without Redis is
answered from the release in time. Writes wait longer: `appendfsync always` is allowed to be slow. Keys may hold what
others wrote: that is a `StoreError` like a server that is gone.
It does not know what events mean for a history; `service.state.merge` does.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

import structlog
from redis.exceptions import ResponseError

from isrf.contract.errors import StoreError
from isrf.contract.item_changes import ItemEntry as ItemEntry
from service.state.events import Event
from service.state.merge import Learned
from service.state.redis import exposure_keys
from service.state.redis.commands import ASKED, TOMBSTONE_AT, ask_user, history_member, read_record
from service.state.redis.durability import Durability, Required, look
from service.state.redis.erasure import Erased, Erasure
from service.state.redis.event_writes import EventWrites
from service.state.redis.everything import accepted_events, all_users
from service.state.redis.failures import FAILURES, FOREIGN, UNREADABLE, store_error
from service.state.redis.items import ItemChange, ItemOutcome, ItemsCursor, ItemsLook, ItemStates
from service.state.redis.keys import bucket_of, tombstone_key, user_keys
from service.state.redis.recent import Look, Recent, read_recent
from service.state.redis.scripts import NO_REPLICAS, Replicas, Scripts, lua_script
from service.state.room import Room
from service.state.store import NO_VERSION, NOBODY, Applied, Cached, UserRecord

BREAK_AFTER = 3
BREAK_S = 0.25
READ_TOGETHER = 100
PROBE_S = 0.8
"""Probes are given about a second."""

PROBE_SCRIPT = lua_script("probe")
KEEP_SCRIPT = lua_script("keep")
COLLECT_SCRIPT = lua_script("collect")

_log = structlog.get_logger("service")

A = TypeVar("A")
T = TypeVar("T")
RedisClient = Any  # redis.asyncio.Redis | RedisCluster: one interface, no common type


class RedisStore:
    """User state behind two clients of one server: `reads` with a short timeout, `writes` with a long one."""

    kind: Literal["redis", "embedded"] = "redis"

    def __init__(
        self,
        reads: RedisClient,
        writes: RedisClient,
        *,
        erasure_key: str | None = None,
        replicas: Replicas = NO_REPLICAS,
        must_be_durable: bool = False,
    ) -> None:
        """Args:
        reads, writes: of one store.
        erasure_key: the operator's secret of tombstones, None for one that the store keeps.
        replicas: that must have a write before it is answered.
        must_be_durable: whether nothing is written before the servers said that they keep it.
        """
        self._reads, self._writes = reads, writes
        self._scripts = Scripts(writes, replicas)
        self._erasure = Erasure(reads, self._scripts, writes, key=erasure_key)
        self._events = EventWrites(self._scripts, self._erasure)
        self._item_states = ItemStates(writes, self._scripts)
        self._room = Room(writes)
        self._required = Required(writes, required=must_be_durable)
        self._failures = 0
        self._asks_again_at = 0.0

    async def read(self, user_id: str) -> UserRecord:
        async def ask() -> UserRecord:
            keys = user_keys(user_id)
            while True:
                pipe = self._reads.pipeline(transaction=False)
                ask_user(pipe, user_id, await self._erasure.name(user_id))
                pipe.get(keys.group)
                pipe.get(keys.answer)
                *known, group, answer = await pipe.execute()
                if not await self._erasure.is_stale(known[TOMBSTONE_AT][1]):
                    return read_record(known, group, answer)

        return await self._guarded(ask)

    async def read_many(self, user_ids: Sequence[str]) -> list[UserRecord]:
        records: list[UserRecord] = []
        with _as_store_errors():
            for start in range(0, len(user_ids), READ_TOGETHER):
                records += await self._read_some(user_ids[start : start + READ_TOGETHER])
        return records

    async def _read_some(self, user_ids: Sequence[str]) -> list[UserRecord]:
        while True:
            pipe = self._writes.pipeline(transaction=False)
            for user_id in user_ids:
                ask_user(pipe, user_id, await self._erasure.name(user_id))
            answers = await pipe.execute(raise_on_error=False)
            found = [answers[at : at + ASKED] for at in range(0, len(answers), ASKED)]
            stones = [one[TOMBSTONE_AT] for one in found if not isinstance(one[TOMBSTONE_AT], Exception)]
            for record in dict.fromkeys(record for _, record in stones):
                if await self._erasure.is_stale(record):
                    break
            else:
                return [_record_of(one) for one in found]

    async def erased(self) -> Erased | None:
        return await self._written(self._erasure.everyone())

    async def recent(self, known: Recent, after: Sequence[bytes | None], before_ms: int) -> Look:
        return await self._written(read_recent(self._writes, known, after, before_ms))

    async def apply(self, events: Sequence[Event]) -> list[Applied]:
        results = await self._kept(self._events.apply, events)
        # What was accepted must be in the next read.
        self._close_breaker()
        return results

    async def keep(
        self, user_id: str, version: str, *, group: Cached | None = None, answer: Cached | None = None
    ) -> None:
        keys = user_keys(user_id)
        kept = [(key, cached) for key, cached in ((keys.group, group), (keys.answer, answer)) if cached is not None]
        # A write: with `appendfsync always` it may take longer than a read is given.
        with contextlib.suppress(*FAILURES, StoreError):
            if not await self._room.is_left():
                return
            names = [keys.version, tombstone_key(bucket_of(user_id)), *(key for key, _ in kept)]
            arguments: list[Any] = [version, await self._erasure.name(user_id), NO_VERSION]
            arguments += [part for _, cached in kept for part in (cached.ttl_s, cached.payload)]
            await self._scripts.run_one(KEEP_SCRIPT, (len(names), [*names, *arguments]))

    async def erase(self, user_id: str) -> None:
        await self._kept(self._erasure.erase, user_id)

    async def change_items(self, changes: Sequence[ItemChange], *, limit: int) -> list[ItemOutcome]:
        return await self._kept(partial(self._item_states.change, limit=limit), changes)

    async def items(self, after: ItemsCursor | None) -> ItemsLook:
        return await self._written(self._item_states.look(after))

    async def collect_items(self, doomed: Mapping[str, ItemEntry]) -> int:
        return await self._written(self._item_states.collect(doomed))

    async def user_ids(self) -> AsyncIterator[list[str]]:
        with _as_store_errors():
            async for page in all_users(self._writes):
                yield page

    async def accepted(self) -> AsyncIterator[list[Event]]:
        with _as_store_errors():
            async for page in accepted_events(self._writes, self._erasure):
                yield page

    async def keep_lists(self, lists: Mapping[str, bytes], ttl_s: int) -> None:
        if await self._room.is_left():
            await self._written(exposure_keys.keep_lists(self._writes, lists, ttl_s))

    async def read_list(self, recommendation_id: str) -> bytes | None:
        key = exposure_keys.list_key(recommendation_id)

        async def ask() -> Any:
            return await self._reads.get(key)

        payload: bytes | None = await self._guarded(ask)
        return payload

    async def first(self, marks: Sequence[str], ttl_s: int) -> list[bool]:
        return await self._written(exposure_keys.first_marks(self._writes, marks, ttl_s))

    async def count(self, counts: Mapping[str, int]) -> None:
        await self._written(exposure_keys.add_counts(self._writes, counts))

    async def counts(self) -> dict[str, int]:
        return await self._written(exposure_keys.read_counts(self._writes))

    async def claim(self, name: str, ttl_s: int) -> bool:
        return bool(await self._written(self._writes.set(f"isrf:{{b0}}:{name}", "1", ex=ttl_s, nx=True)))

    async def collect(self, user_id: str, version: str, learned: Learned) -> None:
        keys = user_keys(user_id)
        members = [history_member(entry) for entry in learned.entries]
        arguments = [version, len(members), *members, *learned.items]
        call = (3, [keys.version, keys.history, keys.marks, *arguments])
        await self._written(self._scripts.run_one(COLLECT_SCRIPT, call))

    async def durability(self) -> Durability:
        """Whether the servers are set so that what was accepted is kept."""
        return await self._written(look(self._writes))

    async def compact(self) -> None:
        """Nothing: the streams are trimmed by the offline job."""

    async def ping(self) -> None:
        """Does what a write does, on every server that takes writes."""
        with _as_store_errors():
            async with asyncio.timeout(PROBE_S):
                await self._required.check()
                calls = [(1, [mark]) for mark in await self._scripts.one_of_each_master()]
                for answer in await self._scripts.run(PROBE_SCRIPT, calls):
                    if isinstance(answer, Exception):
                        raise answer
        self._close_breaker()

    async def close(self) -> None:
        for client in (self._reads, self._writes):
            # A server that does not say goodbye in time: the connection is closed all the same.
            with contextlib.suppress(*FAILURES):
                await client.aclose()

    async def _written(self, work: Awaitable[T]) -> T:
        """Of the client that may be slow; `StoreError` where it fails."""
        with _as_store_errors():
            return await work

    async def _kept(self, work: Callable[[A], Awaitable[T]], what: A) -> T:
        """As `_written`, of what must not be lost once it is answered."""
        with _as_store_errors():
            await self._required.check()
            return await work(what)

    async def _guarded(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Runs a read; after `BREAK_AFTER` failures in a row fails at once for `BREAK_S`."""
        if time.monotonic() < self._asks_again_at:
            raise store_error(TimeoutError("the last reads failed"))
        try:
            answer = await ask()
        except (*FAILURES, UNREADABLE) as error:
            # A server that refuses a write (full, read-only) or holds foreign content still answers; only silence
            # opens the breaker.
            if isinstance(error, FAILURES) and not isinstance(error, ResponseError):
                self._failures += 1
            if self._failures >= BREAK_AFTER:
                self._asks_again_at = time.monotonic() + BREAK_S
            raise store_error(error) from error
        self._close_breaker()
        return answer

    def _close_breaker(self) -> None:
        self._failures, self._asks_again_at = 0, 0.0


def _record_of(answers: Sequence[Any]) -> UserRecord:
    """One of many: a user under whose keys others wrote is nobody, and does not stand in everybody's way."""
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


@contextlib.contextmanager
def _as_store_errors() -> Iterator[None]:
    try:
        yield
    except (*FAILURES, UNREADABLE) as error:
        raise store_error(error) from error
