"""Runs work that may hang in daemon threads: callers wait until a deadline, and the process can end without it.

Python cannot stop a thread that hangs on a disk or in an endless graph. Such work gets a daemon thread of its own.
"""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from isrf.contract.errors import BundleError
from isrf.runtime.limits.time_limit import late

T = TypeVar("T")

MOST_HANGING = 8
"""How many threads may work on releases at once; no more are started."""
_NAMED = "release: "
_SLACK_S = 2.0
"""Extra time after the deadline for work that checks the clock itself and raises a more precise error."""


async def in_daemon_thread(work: Callable[[], T], *, within_s: float, part: str) -> T:
    """Runs `work` in a thread of its own; returns or raises what it does.

    Args:
        work: the function to call.
        within_s: how long to wait for it.
        part: what it does, in words.

    Raises:
        BundleError: `bundle.deadline` where it does not return in time; its thread goes on alone.
    """
    done: Future[T] = Future()

    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - the caller receives every error
            done.set_exception(error)

    hanging = sum(thread.name.startswith(_NAMED) for thread in threading.enumerate())
    if hanging >= MOST_HANGING:
        raise BundleError(
            "bundle.opening_hangs",
            f"{hanging} earlier attempts to read releases still hang.",
            fix="Repair the disk with the releases, then restart the service.",
        )
    threading.Thread(target=run, name=f"{_NAMED}{part}", daemon=True).start()
    try:
        return await asyncio.wait_for(asyncio.wrap_future(done), within_s + _SLACK_S)
    except TimeoutError:
        if done.done():
            raise
        raise late(within_s, part) from None


def exit_code_or_exit(code: int) -> int:
    """Returns the exit code of a drained process; ends the process at once where a thread hangs.

    Python's own exit would wait for its threads, and unload libraries that a daemon thread still uses.
    """
    until = time.monotonic() + _SLACK_S
    while _has_working_threads():
        if time.monotonic() > until:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        time.sleep(0.05)
    return code


def _has_working_threads() -> bool:
    """Whether a thread still works that would delay the exit or be disturbed by it."""
    others = (thread for thread in threading.enumerate() if thread is not threading.main_thread())
    return any(not thread.daemon or thread.name.startswith(_NAMED) for thread in others)
