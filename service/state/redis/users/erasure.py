"""Erases users in Redis: leaves a tombstone under a keyed hash, and nothing else about them.

The hash's secret is the operator's (`ISRF_ERASURE_KEY`), or is made once and stored; it is never logged. It knows no
release: `service.sync.activity_sync` checks a release's users against `ErasedUsers`.
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
    """The tombstones of one store.

    The store holds the secret of their names, and this process remembers it. After the store has lost its data, the
    first process that erases writes the secret again. Where another process was faster with another secret, that one
    counts for all: every bucket records the secret of its names.
    """

    def __init__(self, reads: Any, scripts: Scripts, writes: Any, *, key: str | None) -> None:
        """key: the operator's secret, None for a secret in the store."""
        self._reads, self._scripts, self._writes, self._key = reads, scripts, writes, key
        self._known: tuple[str, bytes] | None = None  # record, secret
        self._secret_was_missing = False  # in the store, at the last `refresh`
        self._erased: ErasedUsers | None = None
        # The tombstones that this process has read or made, and the secret of their names.
        self._seen: list[dict[bytes, bytes]] = [{} for _ in range(NUM_BUCKETS)]
        self._seen_secret: bytes | None = None

    @property
    def record(self) -> str:
        """The record of the secret that this process knows; "" for none."""
        return "" if self._known is None else self._known[0]

    async def secret(self) -> bytes | None:
        """Returns the secret; None where the store has none and accepts none now, so that no user is erased either.

        Raises:
            StoreError: the store was first used with another key, or its content is not a secret.
        """
        if self._known is None:
            await self.refresh(self._reads)
        return None if self._known is None else self._known[1]

    async def secret_for_writes(self) -> bytes:
        """Returns the secret; raises the client's error where there is none, as then no write works."""
        secret = await self.secret()
        if secret is None:
            raise ResponseError("the store accepts no secret now")
        return secret

    async def refresh(self, client: Any = None) -> bool:
        """Reads the store's secret, and writes one where it is missing; returns whether it has changed."""
        client = client or self._writes
        record = await client.hget(META_KEY, "secret")
        self._secret_was_missing = record is None
        if record is None:
            known = self.record or await self._of_a_bucket(client)
            # A store that is full or read-only refuses it, which must not fail a read.
            with contextlib.suppress(ResponseError):
                await client.hsetnx(META_KEY, "id", secrets.token_hex(8))
                await client.hsetnx(META_KEY, "secret", known or new_secret_record(self._key))
            record = await client.hget(META_KEY, "secret")
        if record is None:
            return False
        before, self._known = self.record, _read_secret(record, self._key)
        return self.record != before

    async def _of_a_bucket(self, client: Any) -> str:
        """Returns the record of the secret of existing tombstones, "" where there are none."""
        pipe = client.pipeline(transaction=False)
        for bucket in range(NUM_BUCKETS):
            pipe.hget(tombstone_key(bucket), TOMBSTONE_SECRET)
        for record in await pipe.execute():
            if record is not None:
                _read_secret(record, self._key)
                return str(record.decode())
        return ""

    async def name(self, user_id: str) -> str:
        """Returns the name of the user's tombstone."""
        secret = await self.secret()
        return "-" if secret is None else tombstone_name(secret, user_id)

    async def is_stale(self, bucket_record: bytes | None) -> bool:
        """Whether a bucket's names have another secret than this process knew; reads the new secret then."""
        return bucket_record is not None and bucket_record != self.record.encode() and await self.refresh(self._reads)

    async def erase(self, user_id: str) -> None:
        """Erases a user; raises the client's errors. Once the script has run, the user stays erased."""
        await self.refresh()
        while True:
            secret = await self.secret_for_writes()
            call = erasure_call(self.record, secret, user_id)
            position = await self._scripts.run_one(ERASE_SCRIPT, call)
            # The store may lose its data at any moment: the tombstone must exist under the valid secret.
            if not await self.refresh() and not self._secret_was_missing:
                break
        await self._remember(user_id, secret)
        await self._scripts.confirm_one(mark_key(bucket_of(user_id)))
        start = b"-"
        while start:
            start = await self._scripts.run_one(PURGE_SCRIPT, purge_call(user_id, start.decode(), position.decode()))

    async def _remember(self, user_id: str, secret: bytes) -> None:
        """Remembers a new tombstone, to write it back if the store loses its data before the next look."""
        bucket, name = bucket_of(user_id), tombstone_name(secret, user_id)
        text = await self._writes.hget(tombstone_key(bucket), name)
        if secret != self._seen_secret:
            self._seen, self._seen_secret = [{} for _ in range(NUM_BUCKETS)], secret
        if text is not None:
            self._seen[bucket][name.encode()] = text

    async def everyone(self) -> ErasedUsers | None:
        """Returns all erased users, None where there are none; reads the names only after a new erasure.

        Tombstones are permanent: this writes back those that the store has lost with its data.
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
            if secret == self._seen_secret and await self._write_back(stones):
                counts, stones = (await self._counts())[0], await self._stones()
            self._seen, self._seen_secret = stones, secret
            names = frozenset(name.decode() for bucket in stones for name in bucket)
            self._erased = ErasedUsers(secret, names, counts)
        return self._erased

    async def _stones(self) -> list[dict[bytes, bytes]]:
        """Returns the tombstones of each bucket by name."""
        pipe = self._writes.pipeline(transaction=False)
        for bucket in range(NUM_BUCKETS):
            pipe.hgetall(tombstone_key(bucket))
        no_users = (TOMBSTONE_COUNT.encode(), TOMBSTONE_SECRET.encode())
        buckets = await pipe.execute()
        return [{name: text for name, text in bucket.items() if name not in no_users} for bucket in buckets]

    async def _write_back(self, stones: Sequence[Mapping[bytes, bytes]]) -> bool:
        """Writes back tombstones that the store had and has lost; returns whether there were any."""
        lost = [
            {name: text for name, text in seen.items() if name not in stored}
            for seen, stored in zip(self._seen, stones, strict=True)
        ]
        if not any(lost) or await self.refresh():
            return False
        pipe = self._writes.pipeline(transaction=False)
        for bucket, of_bucket in enumerate(lost):
            if of_bucket:
                pipe.hset(tombstone_key(bucket), TOMBSTONE_SECRET, self.record)
                for name, text in of_bucket.items():
                    # Does not replace a newer tombstone. Without a position: the stream is lost too.
                    pipe.hsetnx(tombstone_key(bucket), name, read_tombstone(text)._replace(position=(0, 0)).text())
                pipe.hincrby(tombstone_key(bucket), TOMBSTONE_COUNT, secrets.randbelow(2**40) + 1)
        await pipe.execute()
        _log.warning("erasures_written_back", count=sum(map(len, lost)))
        return True

    async def _counts(self) -> tuple[tuple[int, ...], bytes | None]:
        """Returns per bucket a number that changes with every erasure, and a record of another secret, if any."""
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
