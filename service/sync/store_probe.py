"""Whether the store can be read and written now, asked once for all who ask at the same time.

Probes need no key, and a store that hangs keeps each of them waiting. It knows no HTTP.
"""

import asyncio

from isrf.contract.errors import StoreError
from service.inference.task_cancellation import end
from service.state.store import Store
from service.telemetry.metrics import Metrics

MAX_WAITING = 64
"""Callers who wait for an answer of the store; others are told at once what it said last."""


class StoreProbe:
    """One per app, on its event loop."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store, self._up = store, metrics.store_up.labels(store.kind)
        self._asking: asyncio.Task[bool] | None = None
        self._waiting = 0
        self._said_last = False

    async def is_up(self) -> bool:
        """What the store says now, or began to be asked a moment ago; False where it was never heard."""
        if self._waiting >= MAX_WAITING:
            return self._said_last
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        self._waiting += 1
        try:
            # Who hangs up must not take the answer from the others.
            return await asyncio.shield(self._asking)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        if self._asking is not None:
            await end(self._asking)

    async def _ask(self) -> bool:
        try:
            await self._store.ping()
            self._said_last = True
        except StoreError:
            self._said_last = False
        self._up.set(self._said_last)
        return self._said_last
