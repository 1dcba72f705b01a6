"""Checks whether the store can be read and written; concurrent callers share one check.

Probes need no key, and each of them would wait for a store that hangs. It knows no HTTP.
"""

import asyncio

from isrf.contract.errors import StoreError
from service.inference.task_cancellation import end
from service.state.store import Store
from service.telemetry.metrics import Metrics

MAX_WAITING = 64
"""Callers who wait for the store; further ones get the last result at once."""


class StoreProbe:
    """Checks the store of an app, on its event loop."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store, self._up = store, metrics.store_up.labels(store.kind)
        self._asking: asyncio.Task[bool] | None = None
        self._waiting = 0
        self._last_result = False

    async def is_up(self) -> bool:
        """Whether the store works, by a check that runs now; False before the first result."""
        if self._waiting >= MAX_WAITING:
            return self._last_result
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        self._waiting += 1
        try:
            # A caller that disconnects must not cancel the check that others wait for.
            return await asyncio.shield(self._asking)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        if self._asking is not None:
            await end(self._asking)

    async def _ask(self) -> bool:
        try:
            await self._store.ping()
            self._last_result = True
        except StoreError:
            self._last_result = False
        self._up.set(self._last_result)
        return self._last_result
