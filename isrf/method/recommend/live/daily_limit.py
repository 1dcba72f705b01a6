"""Limits what one user's events can move: each item once a day, by the heaviest event, and so many items a day.

A heavier event on the same item adds what it weighs more: a purchase after a view counts as a purchase.
A table of fixed size remembers who was counted. Two entries that fall on one place overwrite each other, so that very
rarely an event counts twice. Whoever reads the same events in the same order finds the same; replicas that read the
users' streams in another order may differ in such an event.
"""

import numpy as np

from isrf.contract.event_log import NUM_BUCKETS
from isrf.method.interest import IntArray
from isrf.method.recommend.live.live_events import LiveBatch, LiveEvent

ITEMS_A_DAY = 200
"""Items of one user that count a day; events on further ones move nothing."""
DAY_S = 86_400
_LAST_DAY = (1 << 31) - 1
_PLACES = 1 << 20
_64_BITS = (1 << 64) - 1
_MIX = 0x9E3779B97F4A7C15  # 2^64 / φ: spreads consecutive numbers
_MIX_DAY = 0xC2B2AE3D27D4EB4F


class DailyLimit:
    """Who was counted for which item, and how often, each day."""

    def __init__(self) -> None:
        # Pages that nothing was written to take no memory. One element of a memoryview is read several times as fast.
        self._items = np.zeros(_PLACES, np.uint64).data
        self._weights = np.zeros(_PLACES, np.int32).data  # counted for each of them
        self._days = np.zeros(_PLACES >> 2, np.uint64).data
        self._counts = np.zeros(_PLACES >> 2, np.int32).data
        self._forgotten = [0] * NUM_BUCKETS  # by bucket: a number that makes its earlier entries differ

    def added_weight(self, event: LiveEvent) -> int:
        """What an event adds to what its user has counted for its item that day; it counts as seen from then on."""
        bucket = event.user_hash % NUM_BUCKETS
        day = int(min(max(event.timestamp // DAY_S, 0), _LAST_DAY)) + (self._forgotten[bucket] << 32)
        user = ((event.user_hash + 1) * _MIX ^ day * _MIX_DAY) & _64_BITS
        name = ((user ^ (event.item + 1)) * _MIX) & _64_BITS | 1
        user |= 1
        return self._added(name, user, (user * _MIX & _64_BITS) >> 46, event.weight)

    def added_weights(self, batch: LiveBatch) -> IntArray:
        """(E,) what `added_weight` returns for one event after the other."""
        mix, one = np.uint64(_MIX), np.uint64(1)
        forgotten = np.array(self._forgotten, np.uint64)[batch.user_hashes % np.uint64(NUM_BUCKETS)]
        days = np.clip(batch.timestamps // DAY_S, 0, _LAST_DAY).astype(np.uint64) + (forgotten << np.uint64(32))
        users = (batch.user_hashes + one) * mix ^ days * np.uint64(_MIX_DAY)
        names = (users ^ (batch.items.astype(np.uint64) + one)) * mix | one
        users |= one
        at = (users * mix) >> np.uint64(46)
        added = map(self._added, names.tolist(), users.tolist(), at.tolist(), batch.weights.tolist())
        return np.fromiter(added, np.int64, batch.num_events)

    def forget_bucket(self, bucket: int) -> None:
        """Forgets a bucket's users, whose events are counted again."""
        self._forgotten[bucket] += 1

    def _added(self, name: int, user: int, at: int, weight: int) -> int:
        """
        Args:
            name: of user, day and item.
            user: of user and day.
            at: the place of `user`.
            weight: of the event.
        """
        place = name >> 44
        if self._items[place] == name:
            more = weight - self._weights[place]
            if more > 0:
                self._weights[place] = weight
            return max(more, 0)
        if not weight:
            return 0
        if self._days[at] != user:
            self._days[at], self._counts[at] = user, 0
        if self._counts[at] >= ITEMS_A_DAY:
            return 0
        self._counts[at] += 1
        self._items[place], self._weights[place] = name, weight
        return weight
