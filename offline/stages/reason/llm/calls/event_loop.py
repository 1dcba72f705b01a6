"""Runs thousands of calls in one event loop at little cost: uvloop, and the garbage collector kept off old objects.

A run makes short-lived objects by the million beside the libraries' long-lived ones; walking those again and again is a
third of its time.
"""

import gc
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

if sys.platform == "win32":
    from asyncio import run as _run
else:
    from uvloop import run as _run

ResultT = TypeVar("ResultT")

YOUNG_OBJECTS = 50_000
"""Allocated before the collector looks at the young ones."""


def run(main: Coroutine[Any, Any, ResultT]) -> ResultT:
    """`asyncio.run`, faster; the collector's settings are as before afterwards."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *thresholds[1:])
    try:
        return _run(main)
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
