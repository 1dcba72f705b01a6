"""By item, the events that name it: linked lists through a ring of events, so that nothing is deleted one by one.

Each event has `NAMES` slots, one for every item that it may name. A slot holds the distance to the item's slot before
it. Slots are numbered without end; those of events that fell out of the ring have low numbers, where a list ends.
"""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.contract.event_log import FOLLOWED_ITEMS
from isrf.method.interest import IntArray

NAMES = 1 + FOLLOWED_ITEMS
"""The items that an event may name: its own first, then those before it."""
MAX_EVENTS = (1 << 32) // NAMES - 1
"""A ring may not be larger: a distance has 32 bits."""
REMEMBERED = 1_000
"""Long lists that are remembered, so that only what is new is followed."""
LONG = 64
"""Steps from which a list is remembered."""
FEW_ITEMS = 16
"""Up to so many items are read one after the other, which is faster where their lists are remembered."""


class NamedItems(NamedTuple):
    """The items that some events name, the slots of equal ones together."""

    slots: IntArray  # (m,) by item, then ascending; slot 0 is the first event's first
    starts: IntArray  # (i,) where each item's slots begin
    items: IntArray  # (i,) ascending

    @classmethod
    def of(cls, rows: NDArray[np.int32]) -> "NamedItems":
        """rows: (E, NAMES) item rows; −1 names nothing."""
        flat = rows.ravel()
        slots = np.flatnonzero(flat >= 0)
        # One sort of plain integers is cheaper than a stable argsort.
        keys = (flat[slots].astype(np.int64) << 32) + slots
        keys.sort()
        items = keys >> 32
        starts = np.flatnonzero(np.diff(items, prepend=-1))
        return cls(keys & 0xFFFFFFFF, starts, items[starts])


class EventChains:
    """The lists of all items. Whoever changes or reads them takes care that nobody else does at the same time."""

    def __init__(self, max_events: int) -> None:
        """max_events: size of the ring, at most `MAX_EVENTS`."""
        self._max_events = max_events
        # Pages that nothing was written to take no memory.
        self._distances = np.zeros(max_events * NAMES, np.uint32)  # 0: the item's first
        self._steps = self._distances.data  # one element is read several times as fast
        self._last = np.full(1024, -1, np.int64)  # by item
        self._remembered: dict[int, IntArray] = {}

    def append(self, number: int, rows: Sequence[int]) -> None:
        """Adds an event, the ring's newest, and the distinct items that it names."""
        self._grow(max(rows))
        slots = number * NAMES + np.arange(len(rows))
        before = self._last[rows]
        at = number % self._max_events * NAMES
        self._distances[at : at + len(rows)] = np.where(before >= self._oldest(number), slots - before, 0)
        self._last[rows] = slots

    def append_all(self, number: int, named: NamedItems, *, num_events: int) -> None:
        """Adds events, the first of which has the number; no more than the ring holds."""
        if not len(named.items):
            return
        self._grow(int(named.items[-1]))
        slots = number * NAMES + named.slots
        before = np.empty_like(slots)
        before[1:] = slots[:-1]
        before[named.starts] = self._last[named.items]
        oldest = self._oldest(number + num_events - 1)
        self._distances[slots % len(self._distances)] = np.where(before >= oldest, slots - before, 0)
        self._last[named.items] = slots[np.append(named.starts[1:], len(slots)) - 1]

    def slots(self, item: int, number: int, *, limit: int) -> IntArray:
        """The latest slots that name an item, the newest first.

        Args:
            number: of the ring's newest event.
            limit: the most slots; always the same.
        """
        if item >= len(self._last):
            return np.zeros(0, np.int64)
        oldest, size, steps = self._oldest(number), len(self._distances), self._steps
        known = self._remembered.get(item)
        end = oldest if known is None else max(oldest, int(known[0]) + 1)
        slot = int(self._last[item])
        found: list[int] = []
        for _ in range(limit):
            if slot < end:
                break
            found.append(slot)
            distance = steps[slot % size]
            if not distance:
                break
            slot -= distance
        slots = np.array(found, np.int64)
        if known is not None:
            slots = np.concatenate([slots, known])[:limit]
            slots = slots[slots >= oldest]
        if len(found) >= LONG:
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            self._remembered[item] = slots
        return slots

    def slots_of_all(self, items: IntArray, number: int, *, limit: int) -> IntArray:
        """The latest slots that name any of some items, the newest first.

        Its work is bounded by `limit`, however many items there are. Arguments as in `slots`.
        """
        if len(items) <= FEW_ITEMS:
            found = [self.slots(item, number, limit=limit) for item in items.tolist()]
            return found[0] if len(found) == 1 else -np.sort(-np.concatenate(found))[:limit]
        oldest, size, steps = self._oldest(number), len(self._distances), self._steps
        last = self._last[items[items < len(self._last)]]
        # Negative slots, because a heap gives the smallest first; sorted ones are a heap.
        heap = np.sort(-last[last >= oldest])[:limit].tolist()
        slots: list[int] = []
        while heap and len(slots) < limit:
            slot = -heap[0]
            slots.append(slot)
            distance = steps[slot % size]
            if distance and slot - distance >= oldest:
                heapq.heapreplace(heap, distance - slot)
            else:
                heapq.heappop(heap)
        return np.array(slots, np.int64)

    def _oldest(self, number: int) -> int:
        """The first slot of the ring's oldest event where its newest has the number."""
        return max(0, number + 1 - self._max_events) * NAMES

    def _grow(self, item: int) -> None:
        if item >= len(self._last):
            self._last = np.concatenate([self._last, np.full(item + 1, -1, np.int64)])
