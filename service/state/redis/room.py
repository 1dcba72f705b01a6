"""Checks that Redis has memory for caches, which must not take the memory that accepted events need.

A Redis with `noeviction` refuses every write when its memory is full. Result lists and cached answers are 2 to 6 KB
each, and a thousand new ones a second are usual.
"""

import time
from typing import Any

import structlog

from service.state.redis.durability import info_of_every_master
from service.state.redis.failures import FAILURES

SHARE = 0.75
"""Share of Redis' memory limit up to which caches are written."""
EVERY_S = 1.0

_log = structlog.get_logger("service")


class Room:
    """Whether Redis has memory for caches; a store has one."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._is_left = True
        self._asks_at = 0.0

    async def is_left(self) -> bool:
        """Whether there was room in the last second; True where Redis does not say."""
        if time.monotonic() >= self._asks_at:
            # Set before the question: concurrent callers use the last result.
            self._asks_at = time.monotonic() + EVERY_S
            try:
                used = await self._fullest()
            except (*FAILURES, ValueError):
                return self._is_left
            if (used < SHARE) != self._is_left:
                self._is_left = used < SHARE
                log = _log.info if self._is_left else _log.warning
                log("redis_takes_caches" if self._is_left else "redis_has_no_room_for_caches", used=round(used, 2))
        return self._is_left

    async def _fullest(self) -> float:
        """Returns the largest share of its memory limit that a server uses, 0 without a limit."""
        shares = [0.0]
        for memory in await info_of_every_master(self._client, "memory"):
            most = int(memory.get("maxmemory", 0))
            if most:
                shares.append(int(memory["used_memory"]) / most)
        return max(shares)
