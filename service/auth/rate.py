"""How often a key may call: counted in Redis over all replicas, in this process alone where there is no Redis.

A round trip to Redis buys a handful of admissions (a hundredth of the limit, one for limits below 200), and a refusal
is remembered until the limit lets somebody in again: under load neither costs a request anything. What counts as
several calls is bought by itself, with a round trip of its own. What a replica bought and does not use, a hundredth of
the limit at most, the others lack.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisClusterStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.exceptions import RedisClusterException, RedisError

from isrf.contract.errors import AccessError
from service.settings import Settings

PREFIX = "isrf:rate"
ASK_S = 0.1
"""Redis is waited for this long: an answer must not be late because it was counted."""
BREAK_S = 1.0
_FAILURES = (RedisError, RedisClusterException, OSError, asyncio.TimeoutError, ValueError)
"""What asking Redis raises: it is gone, or holds no numbers under our keys."""


class RateError(AccessError):
    """A caller who has called as often as they may."""

    def __init__(self, calls: int, retry_after_s: int) -> None:
        """`calls` is what the request counts as."""
        counted = "" if calls == 1 else f"; this request counts as {calls} calls more than one"
        fewer = "" if calls == 1 else "ask for less in one request, "
        super().__init__(
            "rate.limited",
            f"this key has called as often as it may{counted}.",
            fix=f"Try again in {retry_after_s} s, {fewer}or ask the operator for a higher rate.",
        )
        self.retry_after_s = retry_after_s


@dataclass
class _Purse:
    """What this process knows of one key's limit."""

    held: int = 0
    held_until: float = 0.0
    closed_until: float = 0.0
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class RateLimiter:
    """One per app."""

    def __init__(self, default: str | None) -> None:
        """`default` is of keys without a rate of their own; None for no limit. It counts for this process alone."""
        self._default = default
        self._redis: RedisStorage | None = None
        self._shared: SlidingWindowCounterRateLimiter | None = None
        self._alone = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._shared_again_at = 0.0
        self._purses: dict[tuple[str, str], _Purse] = {}

    def share(self, settings: Settings) -> None:
        """Counts over all replicas from now on, where the settings name a Redis; connects when it is first asked."""
        if settings.redis_url is not None:
            self._redis = _storage(settings.redis_url.get_secret_value(), cluster=settings.redis_cluster)
            self._shared = SlidingWindowCounterRateLimiter(self._redis)

    async def close(self) -> None:
        if self._redis is not None:
            bridge: Any = self._redis.bridge
            await bridge.get_connection().aclose()

    async def wait_s(self, key_id: str, rate: str | None, calls: int = 1) -> int | None:
        """None where so many calls are admitted (and counted), else the whole seconds after which more may be."""
        text = rate or self._default
        if text is None:
            return None
        if calls > 1:
            item = parse(text)
            # What no wait could buy counts as all that there is.
            granted, wait_s = await self._buy(item, key_id, (min(calls, item.amount),))
            return None if granted else max(1, math.ceil(wait_s))
        purse = self._purses.setdefault((key_id, text), _Purse())
        async with purse.asking:
            now = time.monotonic()
            if purse.held > 0 and now < purse.held_until:
                purse.held -= 1
                return None
            if now >= purse.closed_until:
                item = parse(text)
                granted, wait_s = await self._buy(item, key_id, (max(1, item.amount // 100), 1))
                now = time.monotonic()
                if granted:
                    purse.held, purse.held_until = granted - 1, now + item.get_expiry()
                    return None
                purse.held, purse.closed_until = 0, now + wait_s
            return max(1, math.ceil(purse.closed_until - now))

    async def _buy(self, item: RateLimitItem, key_id: str, amounts: Sequence[int]) -> tuple[int, float]:
        """How many calls were granted, the first of `amounts` that can be; else 0, and the seconds to wait."""
        for limiter in self._limiters():
            try:
                async with asyncio.timeout(ASK_S):
                    for wanted in dict.fromkeys(amounts):
                        if await limiter.hit(item, key_id, cost=wanted):
                            return wanted, 0.0
                    stats = await limiter.get_window_stats(item, key_id)
            except _FAILURES:
                if limiter is self._alone:
                    raise
                self._shared_again_at = time.monotonic() + BREAK_S
                continue
            return 0, max(0.0, stats.reset_time - time.time())
        return 0, BREAK_S

    def _limiters(self) -> Sequence[SlidingWindowCounterRateLimiter]:
        if self._shared is None or time.monotonic() < self._shared_again_at:
            return (self._alone,)
        return (self._shared, self._alone)


def _storage(url: str, *, cluster: bool) -> RedisStorage:
    scheme, address = url.split("://", 1)
    options: dict[str, Any] = {"socket_timeout": ASK_S, "socket_connect_timeout": ASK_S, "protocol": 2}
    if cluster:
        encrypted = {"ssl": True} if scheme == "rediss" else {}
        uri = f"async+redis+cluster://{address}"
        return RedisClusterStorage(uri, implementation="redispy", key_prefix=PREFIX, **options | encrypted)
    scheme = "redis+unix" if scheme == "unix" else scheme
    return RedisStorage(f"async+{scheme}://{address}", implementation="redispy", key_prefix=PREFIX, **options)
