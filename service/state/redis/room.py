"""Whether a Redis has room for what can be made again: it must not take the place of what is accepted.

A Redis that keeps state refuses every write when it is full (`noeviction`), whoever filled it: lists that were given
and cached answers are 2 to 6 KB each, and a thousand new ones a second are usual.
"""

import time
from typing import Any

import structlog

from service.state.redis.durability import info_of_every_master
from service.state.redis.failures import FAILURES

SHARE = 0.75
"""Of the memory that Redis may use."""
EVERY_S = 1.0

_log = structlog.get_logger("service")


class Room:
    """One per store."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._is_left = True
        self._asks_at = 0.0

    async def is_left(self) -> bool:
        """As Redis said within the last second; a Redis that does not say has room."""
        if time.monotonic() >= self._asks_at:
            # Who comes meanwhile goes by what is known.
            self._asks_at = time.monotonic() + EVERY_S
            try:
                used = await self._fullest()
            except (*FAILURES, ValueError):
                return self._is_left
            if (used < SHARE) != self._is_left:
                self._is_left = used < SHARE
                told = _log.info if self._is_left else _log.warning
                told("redis_takes_caches" if self._is_left else "redis_has_no_room_for_caches", used=round(used, 2))
        return self._is_left

    async def _fullest(self) -> float:
        """The largest share that a server uses of what it may use, 0 where there is no limit."""
        shares = [0.0]
        for memory in await info_of_every_master(self._client, "memory"):
            most = int(memory.get("maxmemory", 0))
            if most:
                shares.append(int(memory["used_memory"]) / most)
        return max(shares)
