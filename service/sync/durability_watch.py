"""Checks that Redis cannot lose accepted events; refuses to start, or warns, where it can.

The service refuses to start on a Redis that could lose events, unless its setting says to warn only. Where Redis starts
later, the store refuses writes until it is checked. A change while the service runs gives a log line, a metric and a
warning of `/readyz`: to stop the service would lose more.
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
"""How long the start waits for Redis, which may start later."""

_log = structlog.get_logger("service")

Requirement = Literal["require", "warn"]


class DurabilityWatch:
    """Checks Redis' durability at the start and every `EVERY_S`; the app has one where its state is in Redis."""

    def __init__(self, store: RedisStore, metrics: Metrics, requirement: Requirement) -> None:
        self._store, self._metrics, self._requirement = store, metrics, requirement
        self._found: Durability | None = None  # None: not known yet
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Checks for the first time, and starts the periodic checks.

        Raises:
            ConfigError: Redis could lose accepted events, and the setting is "require".
        """
        try:
            async with asyncio.timeout(START_S):
                found = await self._store.durability()
        except (StoreError, TimeoutError):
            found = None
        if found is not None and found.problems and self._requirement == "require":
            raise ConfigError(
                "config.redis_durability",
                f"this Redis could lose accepted events: {'; '.join(found.problems)}.",
                fix=FIX,
            )
        self._take(found)
        self._task = asyncio.create_task(self._run())

    def warnings(self) -> list[dict[str, str]]:
        """Returns the warnings for answers; empty where Redis says that it keeps all accepted events."""
        if self._found is None or not any(self._found):
            return []
        if self._found.problems:
            message = f"Redis could lose accepted events: {'; '.join(self._found.problems)}."
            return [{"code": "redis_not_durable", "message": message}]
        message = f"Redis does not say whether it keeps accepted events: {', '.join(self._found.unknown)}."
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
                continue  # reads, writes and probes report the failure

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
