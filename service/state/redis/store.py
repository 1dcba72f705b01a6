"""`RedisStore`: users, items, lists and counts behind two clients of one Redis (or Redis Cluster).

It does not know what events mean for a history; `service.state.merge` does.
"""

import asyncio

from service.state.redis.clients import RedisClient, RedisClients, as_store_errors
from service.state.redis.counters import RedisCounters
from service.state.redis.durability import Durability, look
from service.state.redis.item_store import RedisItemStore
from service.state.redis.list_store import RedisListStore
from service.state.redis.placement_store import RedisPlacementStore
from service.state.redis.scripts import NO_REPLICAS, Replicas, lua_script
from service.state.redis.users.user_store import RedisUserStore

PROBE_S = 0.8
"""How long a ping may take: probes usually wait for a second."""
PROBE_SCRIPT = lua_script("probe")


class RedisStore(RedisUserStore, RedisItemStore, RedisListStore, RedisPlacementStore, RedisCounters):
    """The `Store` in Redis, for any number of processes: `reads` with a short timeout, `writes` with a long one."""

    def __init__(
        self,
        reads: RedisClient,
        writes: RedisClient,
        *,
        erasure_key: str | None = None,
        replicas: Replicas = NO_REPLICAS,
        must_be_durable: bool = False,
    ) -> None:
        """
        Args:
            reads: a client with a short timeout.
            writes: a client of the same store with a long timeout.
            erasure_key: the operator's secret for tombstones, None for a secret in the store.
            replicas: how many must have a write before it is acknowledged.
            must_be_durable: whether writes are refused until the servers' durability is checked.
        """
        clients = RedisClients(reads, writes, replicas=replicas, must_be_durable=must_be_durable)
        super().__init__(clients, erasure_key=erasure_key)

    async def durability(self) -> Durability:
        """Returns whether the servers' settings can lose accepted events."""
        return await self.clients.write(look(self.clients.writes))

    async def ping(self) -> None:
        """Writes on every master as events do; raises `StoreError` where one fails."""
        with as_store_errors():
            async with asyncio.timeout(PROBE_S):
                await self.clients.required.check()
                scripts = self.clients.scripts
                calls = [(1, [mark]) for mark in await scripts.one_of_each_master()]
                for answer in await scripts.run(PROBE_SCRIPT, calls):
                    if isinstance(answer, Exception):
                        raise answer
        self.clients.close_breaker()

    async def close(self) -> None:
        await self.clients.close()
