"""Stores result lists in Redis: `isrf:l:<recommendation_id>`, a string with a TTL. They have no user ids."""

from collections.abc import Mapping
from typing import Any

from service.state.redis.clients import OnRedis


class RedisListStore(OnRedis):
    """The `ListStore` in Redis."""

    async def keep_lists(self, lists: Mapping[str, bytes], ttl_s: int) -> None:
        if not await self.clients.room.is_left():
            return
        pipe = self.clients.writes.pipeline(transaction=False)
        for recommendation_id, payload in lists.items():
            pipe.set(_key(recommendation_id), payload, ex=ttl_s)
        await self.clients.write(pipe.execute())

    async def read_list(self, recommendation_id: str) -> bytes | None:
        async def ask() -> Any:
            return await self.clients.reads.get(_key(recommendation_id))

        payload: bytes | None = await self.clients.read(ask)
        return payload


def _key(recommendation_id: str) -> str:
    return f"isrf:l:{recommendation_id}"
