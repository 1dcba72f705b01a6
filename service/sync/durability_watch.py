"""Sees to it that the service runs on a Redis that keeps what was accepted, or that everybody is told that it does not.

It refuses to start where it is known that something can be lost, unless it was told to warn only; of a Redis that comes
later, the store refuses the writes. What changes while it runs is a line in the log, a metric and a warning of
`/readyz`: ending would lose more.
"""

import asyncio
from typing import Literal

import structlog

from isrf.contract.errors import ConfigError, StoreError
from service.inference.task_cancellation import end
from service.state.redis.durability import FIX, Durability
from service.state.redis.store import RedisStore
from service.telemetry.metrics import Metrics

EVERY_S = 30.0
START_S = 5.0
"""How long a start waits for Redis to say: it need not be there yet."""

_log = structlog.get_logger("service")

Wanted = Literal["require", "warn"]


class DurabilityWatch:
    """One per app that keeps its state in Redis."""

    def __init__(self, store: RedisStore, metrics: Metrics, wanted: Wanted) -> None:
        self._store, self._metrics, self._wanted = store, metrics, wanted
        self._found: Durability | None = None  # None: Redis has not said yet
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Looks for the first time.

        Raises:
            ConfigError: something accepted can be lost, and that was not allowed.
        """
        try:
            async with asyncio.timeout(START_S):
                found = await self._store.durability()
        except (StoreError, TimeoutError):
            found = None
        if found is not None and found.problems and self._wanted == "require":
            raise ConfigError(
                "config.redis_durability",
                f"this Redis would lose what was accepted: {'; '.join(found.problems)}.",
                fix=FIX,
            )
        self._take(found)
        self._task = asyncio.create_task(self._run())

    def warnings(self) -> list[dict[str, str]]:
        """As answers hold them; empty where everything accepted is kept, as far as Redis says."""
        if self._found is None or not any(self._found):
            return []
        if self._found.problems:
            message = f"Redis would lose what was accepted: {'; '.join(self._found.problems)}."
            return [{"code": "redis_not_durable", "message": message}]
        message = f"Redis does not say whether it keeps what was accepted: {', '.join(self._found.unknown)}."
        return [{"code": "redis_durability_unknown", "message": message}]

    async def close(self) -> None:
        if self._task is not None:
            await end(self._task)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S if self._found is not None else min(EVERY_S, 1.0))
            try:
                self._take(await self._store.durability())
            except StoreError:
                continue  # told by reads, writes and probes

    def _take(self, found: Durability | None) -> None:
        changed, self._found = found != self._found, found
        if found is not None:
            self._metrics.store_durable.set(0 if found.problems else -1 if found.unknown else 1)
        if not changed or found is None:
            return
        for warning in self.warnings():
            _log.warning(warning["code"], message=warning["message"], fix=FIX)
        if not any(found):
            _log.info("redis_durable")
