"""ErasedUsers users in Redis: a tombstone under a keyed hash, and no byte of what was known of them.

The hash's secret is the operator's (`ISRF_ERASURE_KEY`), or made once and kept in the store; it is never logged. It
knows no release: whoever opens one asks `ErasedUsers` about its users.
"""

import contextlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from redis.exceptions import ResponseError

from isrf.contract.errors import ConfigError, StoreError
from isrf.contract.event_log import (
    ERASE_SCRIPT,
    META_KEY,
    PURGE_SCRIPT,
    TOMBSTONE_COUNT,
    TOMBSTONE_SECRET,
    erasure_call,
    new_secret_record,
    purge_call,
    read_tombstone,
    secret_of,
    tombstone_name,
)
from service.state.redis.failures import foreign
from service.state.redis.keys import NUM_BUCKETS, bucket_of, tombstone_key
from service.state.redis.scripts import Scripts, mark_key
from service.state.user_store import ErasedUsers

_log = structlog.get_logger("service")


class Erasure:
    """The tombstones behind two clients of one store.

    The secret of their names stands in the store, and this process remembers it. A store that lost its data is told it
    again by whoever erases first; where somebody who never knew it was faster with another one, that one counts for
    all: every bucket says under which secret its names stand.
    """

    def __init__(self, reads: Any, scripts: Scripts, writes: Any, *, key: str | None) -> None:
        """`key` is the operator's secret, None for one that the store keeps."""
        self._reads, self._scripts, self._writes, self._key = reads, scripts, writes, key
        self._known: tuple[str, bytes] | None = None  # record, secret
        self._was_told = False  # by the last `refresh`: the store had no secret
        self._erased: ErasedUsers | None = None
        # Tombstones that this process saw or made, and under which secret their names stand.
        self._seen: list[dict[bytes, bytes]] = [{} for _ in range(NUM_BUCKETS)]
        self._seen_under: bytes | None = None

    @property
    def record(self) -> str:
        """Of the secret as it is known here; "" for none."""
        return "" if self._known is None else self._known[0]

    async def secret(self) -> bytes | None:
        """The secret; None where the store has none and takes none now, so that nobody is erased either.

        Raises:
            StoreError: the store was first used under another key, or what it holds is no secret.
        """
        if self._known is None:
            await self.refresh(self._reads)
        return None if self._known is None else self._known[1]

    async def secret_for_writes(self) -> bytes:
        """As `secret`; without one nothing can be written either."""
        secret = await self.secret()
        if secret is None:
            raise ResponseError("the store takes no secret now")
        return secret

    async def refresh(self, client: Any = None) -> bool:
        """Reads the store's secret again, and tells it one where it has none; whether it is another than before."""
        client = client or self._writes
        record = await client.hget(META_KEY, "secret")
        self._was_told = record is None
        if record is None:
            known = self.record or await self._of_a_bucket(client)
            # A store that is full or read-only takes none: that is no failure of a read.
            with contextlib.suppress(ResponseError):
                await client.hsetnx(META_KEY, "id", secrets.token_hex(8))
                await client.hsetnx(META_KEY, "secret", known or new_secret_record(self._key))
            record = await client.hget(META_KEY, "secret")
        if record is None:
            return False
        before, self._known = self.record, _read_secret(record, self._key)
        return self.record != before

    async def _of_a_bucket(self, client: Any) -> str:
        """The record under which names stand already, "" where nobody was erased."""
        pipe = client.pipeline(transaction=False)
        for bucket in range(NUM_BUCKETS):
            pipe.hget(tombstone_key(bucket), TOMBSTONE_SECRET)
        for record in await pipe.execute():
            if record is not None:
                _read_secret(record, self._key)
                return str(record.decode())
        return ""

    async def name(self, user_id: str) -> str:
        """The user's field among the tombstones."""
        secret = await self.secret()
        return "-" if secret is None else tombstone_name(secret, user_id)

    async def is_stale(self, bucket_record: bytes | None) -> bool:
        """Whether a bucket's names stand under another secret than was known here; then it is known now."""
        return bucket_record is not None and bucket_record != self.record.encode() and await self.refresh(self._reads)

    async def erase(self, user_id: str) -> None:
        """Raises the client's errors; once the script ran, the user is gone whatever comes after."""
        await self.refresh()
        while True:
            secret = await self.secret_for_writes()
            call = erasure_call(self.record, secret, user_id)
            position = await self._scripts.run_one(ERASE_SCRIPT, call)
            # The store may lose its data at any moment: the name must stand there, under the secret that counts.
            if not await self.refresh() and not self._was_told:
                break
        await self._remember(user_id, secret)
        await self._scripts.confirm_one(mark_key(bucket_of(user_id)))
        start = b"-"
        while start:
            start = await self._scripts.run_one(PURGE_SCRIPT, purge_call(user_id, start.decode(), position.decode()))

    async def _remember(self, user_id: str, secret: bytes) -> None:
        """A store that loses its data before the next look is told of this one again."""
        bucket, name = bucket_of(user_id), tombstone_name(secret, user_id)
        text = await self._writes.hget(tombstone_key(bucket), name)
        if secret != self._seen_under:
            self._seen, self._seen_under = [{} for _ in range(NUM_BUCKETS)], secret
        if text is not None:
            self._seen[bucket][name.encode()] = text

    async def everyone(self) -> ErasedUsers | None:
        """All tombstones, None where there are none; asks for the names only after another erasure.

        Tombstones are for ever: those that the store had and has no more, because it lost its data, are written back.
        """
        counts, record = await self._counts()
        if await self.is_stale(record):
            counts, record = await self._counts()
        secret = await self.secret()
        before = self._erased
        if secret is None or (before is None and not any(counts) and not any(self._seen)):
            return None
        if before is None or (counts, secret) != (before.counts, before.secret):
            stones = await self._stones()
            if secret == self._seen_under and await self._write_back(stones):
                counts, stones = (await self._counts())[0], await self._stones()
            self._seen, self._seen_under = stones, secret
            names = frozenset(name.decode() for bucket in stones for name in bucket)
            self._erased = ErasedUsers(secret, names, counts)
        return self._erased

    async def _stones(self) -> list[dict[bytes, bytes]]:
        """Per bucket the tombstones by name."""
        pipe = self._writes.pipeline(transaction=False)
        for bucket in range(NUM_BUCKETS):
            pipe.hgetall(tombstone_key(bucket))
        no_users = (TOMBSTONE_COUNT.encode(), TOMBSTONE_SECRET.encode())
        return [{name: text for name, text in one.items() if name not in no_users} for one in await pipe.execute()]

    async def _write_back(self, stones: Sequence[Mapping[bytes, bytes]]) -> bool:
        """Writes tombstones that were seen and are not there any more; whether there were any."""
        lost = [
            {name: text for name, text in seen.items() if name not in there}
            for seen, there in zip(self._seen, stones, strict=True)
        ]
        if not any(lost) or await self.refresh():
            return False
        pipe = self._writes.pipeline(transaction=False)
        for bucket, some in enumerate(lost):
            if some:
                # Of no position any more: the stream that it was in is lost too.
                pipe.hset(tombstone_key(bucket), TOMBSTONE_SECRET, self.record)
                for name, text in some.items():
                    # Not over one that somebody wrote meanwhile.
                    pipe.hsetnx(tombstone_key(bucket), name, read_tombstone(text)._replace(position=(0, 0)).text())
                pipe.hincrby(tombstone_key(bucket), TOMBSTONE_COUNT, secrets.randbelow(2**40) + 1)
        await pipe.execute()
        _log.warning("erasures_written_back", count=sum(map(len, lost)))
        return True

    async def _counts(self) -> tuple[tuple[int, ...], bytes | None]:
        """Per bucket a number that moves with every erasure, and under which secret a bucket's names stand."""
        pipe = self._writes.pipeline(transaction=False)
        for bucket in range(NUM_BUCKETS):
            pipe.hmget(tombstone_key(bucket), [TOMBSTONE_COUNT, TOMBSTONE_SECRET])
        found = await pipe.execute()
        records = {record for _, record in found if record is not None}
        other = next((record for record in records if record != self.record.encode()), None)
        return tuple(int(count or 0) for count, _ in found), other


def _read_secret(record: bytes, key: str | None) -> tuple[str, bytes]:
    try:
        text = record.decode()
        return text, secret_of(text, key)
    except ConfigError as error:
        raise StoreError("store.erasure_key", error.message, fix=error.fix) from None
    except ValueError:
        raise foreign("the secret of the tombstones") from None
