"""The clock of an embedded store, which decides how long an event id is known and when a user was erased.

It reads the machine's clock once and counts from there, so that setting the machine's clock changes nothing. Events'
timestamps do not use it.
"""

import time

_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Also counts while the machine sleeps, where the system has such a clock."""


class Clock:
    """A clock that never goes back; a store has one."""

    def __init__(self) -> None:
        self.booted_at = time.time() - time.clock_gettime(_SINCE_BOOT)

    def now(self) -> float:
        """Returns seconds since 1970, never less than before."""
        return self.booted_at + time.clock_gettime(_SINCE_BOOT)
