"""Coroutines under a clock that jumps to the next timer: what waits for an hour is tested in no time, and exactly.

Only for what neither threads nor other processes take part in: their time would not pass.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


class _Jumping(selectors.DefaultSelector):
    """Where the loop would sleep until its next timer, that much time has passed."""

    now_s = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "nothing is going to happen any more"
        ready = super().select(0)
        if not ready:
            self.now_s += max(timeout, 0.0)
        return ready


class _VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Jumping()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now_s


def run(main: Coroutine[Any, Any, ResultT]) -> ResultT:
    """`asyncio.run` in virtual seconds, which `asyncio.get_running_loop().time()` tells."""
    with asyncio.Runner(loop_factory=_VirtualTimeLoop) as runner:
        return runner.run(main)
