"""Limits what one user's events can move: each item once a day, and so many events a day.

A table of fixed size remembers who was counted. Two entries that fall on one place overwrite each other, so that very
rarely an event counts twice; whoever reads the same events finds the same.
"""

import numpy as np

from isrf.contract.event_log import NUM_BUCKETS
from isrf.method.recommend.live_counts import LiveEvent

EVENTS_A_DAY = 200
"""Events of one user that count a day; further ones move nothing."""
DAY_S = 86_400
_PLACES = 1 << 20
_64_BITS = (1 << 64) - 1
_MIX = 0x9E3779B97F4A7C15  # 2^64 / φ: spreads consecutive numbers


class DailyLimit:
    """Who was counted for which item, and how often, each day."""

    def __init__(self) -> None:
        # Pages that nothing was written to take no memory.
        self._items = np.zeros(_PLACES, np.uint64)
        self._days = np.zeros(_PLACES >> 2, np.uint64)
        self._counts = np.zeros(_PLACES >> 2, np.int32)
        self._forgotten = [0] * NUM_BUCKETS  # by bucket: a number that makes its earlier entries differ

    def admits(self, event: LiveEvent) -> bool:
        """Whether an event counts; it counts as seen from then on."""
        bucket = event.user_hash % NUM_BUCKETS
        day = int(event.timestamp // DAY_S) + (self._forgotten[bucket] << 32)
        user = ((event.user_hash + 1) * _MIX ^ day * 0xC2B2AE3D27D4EB4F) & _64_BITS
        name = ((user ^ (event.item + 1)) * _MIX) & _64_BITS | 1
        place = name >> 44
        if int(self._items[place]) == name:
            return False
        user |= 1
        at = (user * _MIX & _64_BITS) >> 46
        if int(self._days[at]) != user:
            self._days[at], self._counts[at] = user, 0
        if self._counts[at] >= EVENTS_A_DAY:
            return False
        self._counts[at] += 1
        self._items[place] = name
        return True

    def forget_bucket(self, bucket: int) -> None:
        """Forgets a bucket's users, whose events are counted again."""
        self._forgotten[bucket] += 1
