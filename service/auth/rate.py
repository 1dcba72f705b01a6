"""Limits how often a key may call, counted in Redis over all replicas, or in this process where there is no Redis.

A round trip to Redis reserves several calls (a hundredth of the limit, one for limits below 200), and a refusal is
remembered until the limit allows calls again, so that under load most requests need no round trip. A request that
counts as several calls has a round trip of its own. Other replicas lack what a replica reserves and does not use, at
most a hundredth of the limit.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cachetools import LRUCache
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisClusterStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.exceptions import RedisClusterException, RedisError

from isrf.contract.errors import AccessError
from service.settings import Settings

PREFIX = "isrf:rate"
MOST_BUDGETS = 10_000
"""Keys, or addresses, whose reserved calls this process remembers; what it forgets is counted as used."""
ASK_S = 0.1
"""How long to wait for Redis: counting must not delay an answer."""
BREAK_S = 1.0
_FAILURES = (RedisError, RedisClusterException, OSError, asyncio.TimeoutError, ValueError)
"""The errors of a question to Redis: it is gone, or a key has foreign content."""


class RateError(AccessError):
    """The error for a caller who has reached the rate limit."""

    def __init__(self, calls: int, retry_after_s: int, whose: str = "this key") -> None:
        """calls: as how many calls the request counts."""
        counted = "" if calls == 1 else f"; this request counts as {calls} calls more than one"
        fewer = "" if calls == 1 else "ask for less in one request, "
        super().__init__(
            "rate.limited",
            f"{whose} has reached its rate limit{counted}.",
            fix=f"Try again in {retry_after_s} s, {fewer}or ask the operator for a higher rate.",
        )
        self.retry_after_s = retry_after_s


@dataclass
class _KeyBudget:
    """The calls that this process has reserved for one key."""

    held: int = 0
    held_until: float = 0.0
    closed_until: float = 0.0
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class RateLimiter:
    """Limits the rates of keys; the app has one."""

    def __init__(self, default: str | None) -> None:
        """default: for keys without a rate of their own; None for no limit. Until `share` it counts in this process."""
        self._default = default
        self._redis: RedisStorage | None = None
        self._shared: SlidingWindowCounterRateLimiter | None = None
        self._alone = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._shared_again_at = 0.0
        self._budgets: LRUCache[tuple[str, str], _KeyBudget] = LRUCache(MOST_BUDGETS)

    def share(self, settings: Settings) -> None:
        """Counts over all replicas from now on, where the settings name a Redis; connects at the first question."""
        if settings.redis_url is not None:
            self._redis = _storage(settings.redis_url.get_secret_value(), cluster=settings.redis_cluster)
            self._shared = SlidingWindowCounterRateLimiter(self._redis)

    async def close(self) -> None:
        if self._redis is not None:
            bridge: Any = self._redis.bridge
            await bridge.get_connection().aclose()

    def closed_s(self, key_id: str, rate: str | None = None) -> int | None:
        """Returns the seconds to wait where this process was refused calls before, and counts nothing; else None."""
        budget = self._budgets.get((key_id, rate or self._default or ""))
        left_s = 0.0 if budget is None else budget.closed_until - time.monotonic()
        return math.ceil(left_s) if left_s > 0 else None

    async def wait_s(self, key_id: str, rate: str | None, calls: int = 1) -> int | None:
        """Counts calls and returns None where the limit allows them, else the seconds to wait, rounded up."""
        text = rate or self._default
        if text is None:
            return None
        if calls > 1:
            item = parse(text)
            # More calls than the whole limit count as the whole limit.
            granted, wait_s = await self._reserve(item, key_id, (min(calls, item.amount),))
            return None if granted else max(1, math.ceil(wait_s))
        budget = self._budgets.setdefault((key_id, text), _KeyBudget())
        async with budget.asking:
            now = time.monotonic()
            if budget.held > 0 and now < budget.held_until:
                budget.held -= 1
                return None
            if now >= budget.closed_until:
                item = parse(text)
                granted, wait_s = await self._reserve(item, key_id, (max(1, item.amount // 100), 1))
                now = time.monotonic()
                if granted:
                    budget.held, budget.held_until = granted - 1, now + item.get_expiry()
                    return None
                budget.held, budget.closed_until = 0, now + wait_s
            return max(1, math.ceil(budget.closed_until - now))

    async def _reserve(self, item: RateLimitItem, key_id: str, amounts: Sequence[int]) -> tuple[int, float]:
        """Reserves the first of `amounts` that the limit allows; returns it, or 0 and the seconds to wait."""
        for limiter in self._limiters():
            try:
                async with asyncio.timeout(ASK_S):
                    for amount in dict.fromkeys(amounts):
                        if await limiter.hit(item, key_id, cost=amount):
                            return amount, 0.0
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
