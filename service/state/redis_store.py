"""User state in Redis (or a Redis Cluster): one pipeline per read, one script call per bucket and write.

Reads give up early and, after failures in a row, do not ask at all for a moment, so that a request without Redis is
answered from the release in time. Writes wait longer: `appendfsync always` is allowed to be slow.
It does not know what events mean for a history; `service.state.merge` does.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Literal, TypeVar

from redis.exceptions import NoScriptError, RedisError, ResponseError

from isrf.errors import StoreError
from isrf.item_changes import Entry as ItemEntry
from service.state import exposure_keys
from service.state.commands import ASKED, ask_user, history_member, read_record, script_call
from service.state.erasure import Erased, Erasure
from service.state.events import Event
from service.state.everything import accepted_events, all_users
from service.state.items import ItemChange, ItemOutcome, ItemsCursor, ItemsLook, ItemStates
from service.state.keys import bucket_of, user_keys
from service.state.merge import Learned
from service.state.recent import Look, Recent, read_recent
from service.state.store import Applied, Cached, UserRecord

BREAK_AFTER = 3
BREAK_S = 0.25
READ_TOGETHER = 100
PING_KEY = "isrf:{b0}:ping"
PING_S = 0.8
"""Probes are given about a second."""

SCRIPT = files("service.state").joinpath("script.lua").read_text(encoding="utf-8")
COLLECT_SCRIPT = files("service.state").joinpath("collect.lua").read_text(encoding="utf-8")
_FAILURES = (RedisError, OSError, asyncio.TimeoutError)

T = TypeVar("T")
Client = Any  # redis.asyncio.Redis | RedisCluster | fakeredis: one interface, no common type


class RedisStore:
    """User state behind two clients of one server: `reads` with a short timeout, `writes` with a long one."""

    kind: Literal["redis", "embedded"] = "redis"

    def __init__(self, reads: Client, writes: Client, *, erasure_key: str | None = None, streamed: bool = True) -> None:
        """Args:
        reads, writes: of one store.
        erasure_key: the operator's secret of tombstones, None for one that the store keeps.
        streamed: whether accepted events go into the streams, too.
        """
        self._streamed = streamed
        self._reads, self._writes = reads, writes
        self._erasure = Erasure(reads, writes, key=erasure_key)
        self.item_states = ItemStates(writes)
        self._script_sha: str | None = None
        self._failures = 0
        self._asks_again_at = 0.0

    async def read(self, user_id: str) -> UserRecord:
        async def ask() -> list[Any]:
            name = await self._erasure.name(user_id)
            pipe = self._reads.pipeline(transaction=False)
            ask_user(pipe, user_id, name)
            keys = user_keys(user_id)
            pipe.get(keys.group)
            pipe.get(keys.answer)
            answers: list[Any] = await pipe.execute()
            return answers

        *known, group, answer = await self._guarded(ask)
        return read_record(known, group, answer)

    async def read_many(self, user_ids: Sequence[str]) -> list[UserRecord]:
        records: list[UserRecord] = []
        try:
            for start in range(0, len(user_ids), READ_TOGETHER):
                pipe = self._writes.pipeline(transaction=False)
                for user_id in user_ids[start : start + READ_TOGETHER]:
                    ask_user(pipe, user_id, await self._erasure.name(user_id))
                answers = await pipe.execute()
                records += [read_record(answers[at : at + ASKED]) for at in range(0, len(answers), ASKED)]
        except _FAILURES as error:
            raise _unavailable(error) from error
        return records

    async def erased(self) -> Erased | None:
        try:
            return await self._erasure.everyone()
        except _FAILURES as error:
            raise _unavailable(error) from error

    async def recent(self, known: Recent, after: Sequence[bytes | None], before_ms: int) -> Look:
        try:
            return await read_recent(self._writes, known, after, before_ms)
        except _FAILURES as error:
            raise _unavailable(error) from error

    async def apply(self, events: Sequence[Event]) -> list[Applied]:
        by_bucket: dict[int, list[int]] = {}
        for place, event in enumerate(events):
            by_bucket.setdefault(bucket_of(event.user_id), []).append(place)
        calls = [
            script_call(bucket, [events[p] for p in places], streamed=self._streamed)
            for bucket, places in by_bucket.items()
        ]
        try:
            answers = await self._run_scripts(calls)
        except _FAILURES as error:
            raise _unavailable(error) from error
        outcomes = [Applied("unavailable")] * len(events)
        errors: list[Exception] = []
        for places, answer in zip(by_bucket.values(), answers, strict=True):
            if isinstance(answer, Exception):
                errors.append(answer)
                continue
            for place, accepted in zip(places, answer, strict=True):
                outcomes[place] = Applied("accepted" if accepted else "duplicate")
        if errors and len(errors) == len(answers):
            raise _unavailable(errors[0]) from errors[0]
        # What was accepted must be in the next read.
        self._close_breaker()
        return outcomes

    async def _run_scripts(self, calls: Sequence[tuple[int, list[Any]]]) -> list[Any]:
        """The answer or the exception of every call, sent together; a server that forgot the script is told again."""
        if self._script_sha is None:
            self._script_sha = await self._load()
        pipe = self._writes.pipeline(transaction=False)
        for num_keys, arguments in calls:
            # Spelled out: redis-py keeps a cluster's pipeline from the method, not from the command.
            pipe.execute_command("EVALSHA", self._script_sha, num_keys, *arguments)
        answers: list[Any] = await pipe.execute(raise_on_error=False)
        forgotten = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        for at in forgotten:
            num_keys, arguments = calls[at]
            try:
                answers[at] = await self._writes.eval(SCRIPT, num_keys, *arguments)
            except _FAILURES as error:
                answers[at] = error
        return answers

    async def _load(self) -> str:
        sha = await self._writes.script_load(SCRIPT)
        return sha.decode() if isinstance(sha, bytes) else str(sha)

    async def keep(self, user_id: str, *, group: Cached | None = None, answer: Cached | None = None) -> None:
        keys = user_keys(user_id)
        # A write: with `appendfsync always` it may take longer than a read is given.
        pipe = self._writes.pipeline(transaction=False)
        for key, cached in ((keys.group, group), (keys.answer, answer)):
            if cached is not None:
                pipe.set(key, cached.payload, ex=cached.ttl_s)
        with contextlib.suppress(*_FAILURES):
            await pipe.execute()

    async def erase(self, user_id: str) -> None:
        try:
            await self._erasure.erase(user_id)
        except _FAILURES as error:
            raise _unavailable(error) from error

    async def change_items(self, changes: Sequence[ItemChange], *, limit: int) -> list[ItemOutcome]:
        return await self._written(self.item_states.change(changes, limit=limit))

    async def items(self, after: ItemsCursor | None) -> ItemsLook:
        return await self._written(self.item_states.look(after))

    async def collect_items(self, doomed: Mapping[str, ItemEntry]) -> int:
        return await self._written(self.item_states.collect(doomed))

    async def user_ids(self) -> AsyncIterator[list[str]]:
        try:
            async for page in all_users(self._writes):
                yield page
        except _FAILURES as error:
            raise _unavailable(error) from error

    async def accepted(self) -> AsyncIterator[list[Event]]:
        try:
            async for page in accepted_events(self._writes, self._erasure):
                yield page
        except _FAILURES as error:
            raise _unavailable(error) from error

    async def keep_lists(self, lists: Mapping[str, bytes], ttl_s: int) -> None:
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
        try:
            return bool(await self._writes.set(f"isrf:{{b0}}:{name}", "1", ex=ttl_s, nx=True))
        except _FAILURES as error:
            raise _unavailable(error) from error

    async def collect(self, user_id: str, version: str, learned: Learned) -> None:
        keys = user_keys(user_id)
        members = [history_member(entry) for entry in learned.entries]
        arguments = [version, len(members), *members, *learned.items]
        try:
            await self._writes.eval(COLLECT_SCRIPT, 3, keys.version, keys.history, keys.marks, *arguments)
        except _FAILURES as error:
            raise _unavailable(error) from error

    async def compact(self) -> None:
        """Nothing: the streams are trimmed by the offline job."""

    async def ping(self) -> None:
        try:
            async with asyncio.timeout(PING_S):
                await self._writes.set(PING_KEY, "1", ex=60)
        except _FAILURES as error:
            raise _unavailable(error) from error
        self._close_breaker()

    async def close(self) -> None:
        for client in (self._reads, self._writes):
            await client.aclose()

    async def _written(self, work: Awaitable[T]) -> T:
        """Of the client that may be slow; `StoreError` where it fails."""
        try:
            return await work
        except _FAILURES as error:
            raise _unavailable(error) from error

    async def _guarded(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Runs a read; after `BREAK_AFTER` failures in a row fails at once for `BREAK_S`."""
        if time.monotonic() < self._asks_again_at:
            raise _unavailable(TimeoutError("the last reads failed"))
        try:
            answer = await ask()
        except _FAILURES as error:
            # A server that refuses a write (full, read-only) still reads well; only silence opens the breaker.
            if not isinstance(error, ResponseError):
                self._failures += 1
            if self._failures >= BREAK_AFTER:
                self._asks_again_at = time.monotonic() + BREAK_S
            raise _unavailable(error) from error
        self._close_breaker()
        return answer

    def _close_breaker(self) -> None:
        self._failures, self._asks_again_at = 0, 0.0


def _unavailable(error: Exception) -> StoreError:
    # The server's own words may hold addresses or credentials; the type is enough to act on.
    return StoreError(
        "store.unavailable",
        f"user state cannot be reached or written now ({type(error).__name__}).",
        fix="Send the request again after the time in Retry-After.",
    )
