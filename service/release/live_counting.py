"""Counts accepted events into the live evidence of an open release, and names its state in the keys of cached answers.

What an event does follows from its effect (`service.state.events`): what was bought or looked at counts; a `remove`
takes back the user's events on the item up to its timestamp, even those that arrive after it; a dislike counts nothing.
It knows neither store nor clock: `service.sync.live_sync` reads the entries and counts them in their order.
"""

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from cachetools import LRUCache

from isrf.contract.event_log import NUM_BUCKETS, StoredEvent
from isrf.contract.ids import ItemId
from isrf.method.recommend.live_counts import BYTES_PER_EVENT
from isrf.method.recommend.live_events import LiveEvent
from isrf.method.recommend.live_evidence import LiveEvidence
from service.release.catalogue import Catalogue
from service.release.opening import Release
from service.state.user_store import AcceptedEntry

EntryOutcome = Literal["counted", "remove", "dislike", "limit", "learned", "removed", "unknown_item", "unreadable"]
"""What became of an entry: `limit` where its user has counted for the item or often enough that day, `learned` where
the release's history has the event, `removed` where a later `remove` has arrived before it."""
REMOVES_PER_BUCKET = 500
"""The latest removes of a bucket's users that are remembered, for events that arrive after them."""


class LiveCounting:
    """Counts for one release. One thread counts at a time; others may read meanwhile."""

    def __init__(self, evidence: LiveEvidence, release: Release) -> None:
        self.evidence = evidence
        self.num_changes = 0
        """Changes so far: an equal number means an equal state, in this process."""
        self._users, self._learned_until = release.users, release.learned_until
        # (user_id, item_id) → seconds. One cache a bucket: replicas read buckets in different order.
        self._removes: list[LRUCache[tuple[str, str], float]] = [
            LRUCache(REMOVES_PER_BUCKET) for _ in range(NUM_BUCKETS)
        ]

    @property
    def num_events(self) -> int:
        """Events in the window."""
        return len(self.evidence.counts)

    @property
    def num_bytes(self) -> int:
        """Memory of the events in the window, about."""
        return self.num_events * BYTES_PER_EVENT

    def version(self, rows: Sequence[int]) -> str:
        """Returns a text that equal live events beside the items make equal, on every replica."""
        return self.evidence.version(rows)

    def count(self, entries: Sequence[AcceptedEntry], catalogue: Catalogue) -> Counter[EntryOutcome]:
        """Counts entries, those of a bucket in their order; returns how many had each outcome."""
        pasts: dict[str, frozenset[tuple[str, float | None]]] = {}
        outcomes: Counter[EntryOutcome] = Counter()
        for bucket, event in entries:
            outcomes["unreadable" if event is None else self._count(bucket, event, catalogue, pasts)] += 1
        return outcomes

    def take_out_bucket(self, bucket: int) -> None:
        """Takes out all events of a bucket's users, so that they can be counted again."""
        self.num_changes += 1
        self._removes[bucket].clear()
        self.evidence.take_out_bucket(bucket)

    def _count(
        self,
        bucket: int,
        event: StoredEvent,
        catalogue: Catalogue,
        pasts: dict[str, frozenset[tuple[str, float | None]]],
    ) -> EntryOutcome:
        if event.effect == "D":
            return "dislike"
        user_hash, name = zlib.crc32(event.user_id.encode()), (event.user_id, event.item_id)
        row = catalogue.ids.index(ItemId(event.item_id))
        removes = self._removes[bucket]
        if event.effect == "R":
            removes[name] = max(event.timestamp, removes.get(name, event.timestamp))
            if row is not None:
                self.num_changes += 1
                self.evidence.take_back(int(row), user_hash, event.timestamp)
            return "remove"
        if row is None:
            return "unknown_item"
        if event.timestamp <= removes.get(name, -1.0):
            return "removed"
        if event.timestamp <= self._learned_until and self._is_learned(event, pasts):
            return "learned"
        identity = hash((user_hash, zlib.crc32(event.item_id.encode()), round(event.timestamp * 1000)))
        followed = catalogue.rows(event.followed)
        self.num_changes += 1
        counted = self.evidence.add(LiveEvent(int(row), followed, event.timestamp, user_hash, identity))
        return "counted" if counted else "limit"

    def _is_learned(self, event: StoredEvent, pasts: dict[str, frozenset[tuple[str, float | None]]]) -> bool:
        past = pasts.get(event.user_id)
        if past is None:
            history = self._users.past(event.user_id, lambda _: False).history
            past = pasts[event.user_id] = frozenset((entry.item_id, entry.timestamp) for entry in history)
        return (event.item_id, event.timestamp) in past
