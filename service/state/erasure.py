"""Erased users in Redis: a tombstone under a keyed hash, and no byte of what was known of them.

The hash's secret is the operator's (`ISRF_ERASURE_KEY`), or made once and kept in the store; it is never logged. It
knows no release: whoever opens one asks `Erased` about its users.
"""

import contextlib
import secrets
import time
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from isrf.stream import (
    ERASE_SCRIPT,
    EVENT_FIELD,
    META_KEY,
    TOMBSTONE_COUNT,
    erasure_call,
    new_secret_record,
    secret_of,
    tombstone_name,
)
from service.state import payload
from service.state.keys import NUM_BUCKETS, bucket_of, stream_key, tombstone_key

PAGE = 500


class Erased(NamedTuple):
    """Everyone who was ever erased; they stay in it when events posted later start a fresh user."""

    secret: bytes
    names: frozenset[str]
    counts: tuple[int, ...]  # per bucket: erasures so far

    def holds(self, user_id: str) -> bool:
        return tombstone_name(self.secret, user_id) in self.names


class Erasure:
    """The tombstones behind two clients of one store."""

    def __init__(self, reads: Any, writes: Any, *, key: str | None) -> None:
        """`key` is the operator's secret, None for one that the store keeps."""
        self._reads, self._writes, self._key = reads, writes, key
        self._secret: bytes | None = None
        self._erased: Erased | None = None

    async def secret(self) -> bytes | None:
        """The secret; None where the store has none and takes none now, so that nobody is erased either.

        Raises:
            ConfigError: the store was first used under another key.
        """
        if self._secret is None:
            record = await self._reads.hget(META_KEY, "secret")
            if record is None:
                # A store that is full or read-only takes none: that is no failure of a read.
                with contextlib.suppress(ResponseError):
                    await self._reads.hsetnx(META_KEY, "id", secrets.token_hex(8))
                    await self._reads.hsetnx(META_KEY, "secret", new_secret_record(self._key))
                record = await self._reads.hget(META_KEY, "secret")
            if record is None:
                return None
            self._secret = secret_of(record.decode(), self._key)
        return self._secret

    async def name(self, user_id: str) -> str:
        """The user's field among the tombstones."""
        secret = await self.secret()
        return "-" if secret is None else tombstone_name(secret, user_id)

    async def erase(self, user_id: str) -> None:
        """Raises the client's errors; once the script ran, the user is gone whatever comes after."""
        bucket = bucket_of(user_id)
        secret = await self.secret()
        if secret is None:
            raise ResponseError("the store takes no secret now")
        num_keys, arguments = erasure_call(secret, user_id, time.time())
        position = await self._writes.eval(ERASE_SCRIPT, num_keys, *arguments)
        await self._purge(bucket, user_id, position)

    async def _purge(self, bucket: int, user_id: str, position: bytes) -> None:
        """Takes their entries up to `position` out of the stream; later ones are of a fresh user."""
        start: bytes = b"-"
        while page := await self._writes.xrange(stream_key(bucket), min=start, max=position, count=PAGE):
            theirs = [entry for entry, fields in page if payload.decode(fields[EVENT_FIELD]).user_id == user_id]
            if theirs:
                await self._writes.xdel(stream_key(bucket), *theirs)
            start = b"(" + page[-1][0]

    async def everyone(self) -> Erased | None:
        """All tombstones, None where there are none; asks for the names only after another erasure."""
        secret = await self.secret()
        pipe = self._writes.pipeline(transaction=False)
        for bucket in range(NUM_BUCKETS):
            pipe.hget(tombstone_key(bucket), TOMBSTONE_COUNT)
        counts = tuple(int(count or 0) for count in await pipe.execute())
        if secret is None or not any(counts):
            return None
        if self._erased is None or counts != self._erased.counts:
            pipe = self._writes.pipeline(transaction=False)
            for bucket in range(NUM_BUCKETS):
                pipe.hkeys(tombstone_key(bucket))
            names = frozenset(name.decode() for page in await pipe.execute() for name in page)
            self._erased = Erased(secret, names - {TOMBSTONE_COUNT}, counts)
        return self._erased
