"""Ending a task that works until it is cancelled, however often that takes."""

import asyncio
import time
from typing import Any

AGAIN_S = 1.0
"""How long a cancelled task may clean up, before it counts as one that did not hear of it."""


async def end(task: asyncio.Task[Any], *, within_s: float = float("inf")) -> None:
    """Cancels until the task has ended, or for so long; its outcome is nobody's.

    Once is not enough: `asyncio.wait_for` of Python 3.11, by which redis' client sends, gives its result and forgets
    the cancellation where both come at the same moment, and a loop around it would go on for ever.
    """
    until = time.monotonic() + within_s
    while not task.done() and time.monotonic() < until:
        task.cancel()
        await asyncio.wait([task], timeout=min(AGAIN_S, within_s))
