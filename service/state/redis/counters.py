"""The counts of answers, shown items and clicks, in Redis. They have no user ids.

isrf:m:<digest>              string  mark of an item of a list that was clicked or bought, with a TTL
isrf:{b0}:exposure           hash    counts (`service.recommend.click_stats`)
"""

import hashlib
from collections.abc import Mapping, Sequence

from service.state.redis.clients import OnRedis

COUNTS_KEY = "isrf:{b0}:exposure"


class RedisCounters(OnRedis):
    """The `Counters` in Redis."""

    async def first(self, marks: Sequence[str], ttl_s: int) -> list[bool]:
        pipe = self.clients.writes.pipeline(transaction=False)
        for mark in marks:
            pipe.set(f"isrf:m:{hashlib.blake2b(mark.encode(), digest_size=12).hexdigest()}", b"", ex=ttl_s, nx=True)
        return [bool(answer) for answer in await self.clients.write(pipe.execute())]

    async def count(self, counts: Mapping[str, int]) -> None:
        pipe = self.clients.writes.pipeline(transaction=False)
        for name, count in counts.items():
            pipe.hincrby(COUNTS_KEY, name, count)
        await self.clients.write(pipe.execute())

    async def counts(self) -> dict[str, int]:
        async def ask() -> dict[str, int]:
            found = await self.clients.writes.hgetall(COUNTS_KEY)
            return {name.decode(): int(count) for name, count in found.items()}

        return await self.clients.write(ask())
