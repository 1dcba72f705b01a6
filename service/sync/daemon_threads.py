"""Work that may never come back: nobody waits for it beyond a deadline, and it does not keep the process from ending.

A hanging disk, or a graph without an end, cannot be taken from a thread. So such work gets a daemon thread of its own,
its callers wait for as long as they are told, and a process that ends with one left behind leaves without it.
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
from isrf.runtime.time_limit import late

T = TypeVar("T")

MOST_HANGING = 8
"""Threads at work on releases at once, beyond which no more are begun."""
_NAMED = "release: "
_SLACK_S = 2.0
"""Given beyond the deadline to work that looks at the clock by itself, and says more."""


async def in_daemon_thread(work: Callable[[], T], *, within_s: float, part: str) -> T:
    """What `work` returns or raises.

    Args:
        work: called in a thread of its own.
        within_s: how long it is waited for.
        part: what it does, in words.

    Raises:
        BundleError: `bundle.deadline` where it had not come back; it is left to itself.
    """
    done: Future[T] = Future()

    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - all of it is told to who waits
            done.set_exception(error)

    hanging = sum(thread.name.startswith(_NAMED) for thread in threading.enumerate())
    if hanging >= MOST_HANGING:
        raise BundleError(
            "bundle.opening_hangs",
            f"{hanging} earlier looks at releases have not come back.",
            fix="See to the disk that the releases are on, then start the service again.",
        )
    threading.Thread(target=run, name=f"{_NAMED}{part}", daemon=True).start()
    try:
        return await asyncio.wait_for(asyncio.wrap_future(done), within_s + _SLACK_S)
    except TimeoutError:
        if done.done():
            raise
        raise late(within_s, part) from None


def leave(code: int) -> int:
    """The exit code of a process that has drained; ends it here and now where a thread hangs in something native.

    Python would wait for its threads, and tear down libraries that a daemon thread is still at work in.
    """
    until = time.monotonic() + _SLACK_S
    while _left():
        if time.monotonic() > until:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        time.sleep(0.05)
    return code


def _left() -> bool:
    """Whether a thread is at work that would hold up the end, or be disturbed by it."""
    others = (thread for thread in threading.enumerate() if thread is not threading.main_thread())
    return any(not thread.daemon or thread.name.startswith(_NAMED) for thread in others)
