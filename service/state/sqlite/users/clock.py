"""The time by which an embedded store remembers: how long an event id is known, and when a user was erased.

Read from the machine once, and counted on from there: a clock that is set while the process runs moves none of it.
Events' own timestamps are not read here.
"""

import time

_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Counts on while the machine sleeps, where there is such a clock."""


class Clock:
    """One per store."""

    def __init__(self) -> None:
        self.booted_at = time.time() - time.clock_gettime(_SINCE_BOOT)

    def now(self) -> float:
        """Seconds since 1970, never less than before."""
        return self.booted_at + time.clock_gettime(_SINCE_BOOT)
