"""Ends a task that runs until it is cancelled; cancels it again until it has ended."""

import asyncio
import time
from typing import Any

AGAIN_S = 1.0
"""How long a cancelled task may clean up before it is cancelled again."""


async def end(task: asyncio.Task[Any], *, within_s: float = float("inf")) -> None:
    """Cancels a task until it has ended, or until `within_s` have passed; ignores its outcome.

    One cancellation is not enough: redis' client sends by `asyncio.wait_for`, which in Python 3.11 returns its result
    and forgets a cancellation of the same moment. A loop around it would never end.
    """
    until = time.monotonic() + within_s
    while not task.done() and time.monotonic() < until:
        task.cancel()
        await asyncio.wait([task], timeout=min(AGAIN_S, within_s))
