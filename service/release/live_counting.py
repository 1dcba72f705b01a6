"""Counts accepted events into the live evidence of an open release, and names its state in the keys of cached answers.

What an event does follows from its effect (`service.state.events`): what was bought or looked at counts, by the weight
that the release gives its type; a `remove` takes back the user's events on the item up to its timestamp, even those
that arrive after it; a dislike counts nothing.
It knows neither store nor clock: `service.sync.live_sync` reads the entries and counts them in their order.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from isrf.contract.event_log import NUM_BUCKETS, StoredEvent
from isrf.method.interest import IntArray
from isrf.method.recommend.live.live_counts import BYTES_PER_EVENT
from isrf.method.recommend.live.live_events import LiveBatch, whole_weight
from isrf.method.recommend.live.live_evidence import LiveEvidence
from isrf.method.recommend.product_groups import ProductGroups
from service.release.mapped_entries import MappedEntries, user_hash_of
from service.release.opening import Release

EntryOutcome = Literal[
    "counted", "remove", "dislike", "limit", "learned", "removed", "unknown_item", "unreadable", "no_weight"
]
"""What became of an entry: `limit` where its user has counted for the item or often enough that day, `learned` where
the release's history has the event, `removed` where a later `remove` has arrived before it, `no_weight` where its type
has the weight 0."""
REMOVES_PER_BUCKET = 500
"""The latest removes of a bucket's users that are remembered, for events that arrive after them."""

_Past = frozenset[tuple[str, float | None]]
"""What the release has of a user: (item_id, seconds)."""


class LiveCounting:
    """Counts for one release. One thread counts at a time; others may read meanwhile."""

    def __init__(self, evidence: LiveEvidence, release: Release) -> None:
        self.evidence = evidence
        self.num_changes = 0
        """Changes so far: an equal number means an equal state, in this process."""
        self._users, self._learned_until = release.users, release.learned_until
        self._vocabulary = release.vocabulary
        # By bucket, as replicas read buckets in different order: (user_id, item_id) → seconds.
        self._removes: list[dict[tuple[str, str], float]] = [{} for _ in range(NUM_BUCKETS)]

    @property
    def num_events(self) -> int:
        """Events in the window."""
        return len(self.evidence.counts)

    @property
    def num_bytes(self) -> int:
        """Memory of the events in the window, about."""
        return self.num_events * BYTES_PER_EVENT

    def version(self, rows: Sequence[int], groups: ProductGroups) -> str:
        """Returns a text that equal live events beside the items and their variants make equal, on every replica."""
        return self.evidence.version(rows, groups)

    def count(self, mapped: MappedEntries) -> Counter[EntryOutcome]:
        """Counts entries, those of a bucket in their order; returns how many had each outcome."""
        outcomes: Counter[EntryOutcome] = Counter(
            {"unreadable": mapped.num_unreadable} if mapped.num_unreadable else {}
        )
        pasts: dict[str, _Past] = {}
        waiting: list[int] = []  # places of events that are counted together
        batch = mapped.batch._replace(weights=self._weights(mapped.events))
        rows, weights = batch.items.tolist(), batch.weights.tolist()
        for place, (bucket, event, row) in enumerate(zip(mapped.buckets, mapped.events, rows, strict=True)):
            outcome = self._outcome(bucket, event, row, pasts)
            if outcome is None and not weights[place]:
                outcome = "no_weight"
            if outcome is None:
                waiting.append(place)
                continue
            outcomes[outcome] += 1
            if outcome == "remove":
                outcomes += self._add(batch, waiting)  # what was taken before it is taken back
                waiting = []
                self._remove(bucket, event, row)
        return outcomes + self._add(batch, waiting)

    def take_out_bucket(self, bucket: int) -> None:
        """Takes out all events of a bucket's users, so that they can be counted again."""
        self._removes[bucket].clear()
        self.evidence.take_out_bucket(bucket)
        self.num_changes += 1

    def _outcome(self, bucket: int, event: StoredEvent, row: int, pasts: dict[str, _Past]) -> EntryOutcome | None:
        """What becomes of an entry; None where it counts, if its user has not counted often enough."""
        if event.effect == "D":
            return "dislike"
        if event.effect == "R":
            return "remove"
        if row < 0:
            return "unknown_item"
        removes = self._removes[bucket]
        if removes and event.timestamp <= removes.get((event.user_id, event.item_id), -1.0):
            return "removed"
        if event.timestamp <= self._learned_until and self._is_learned(event, pasts):
            return "learned"
        return None

    def _weights(self, events: Sequence[StoredEvent]) -> IntArray:
        """(E,) the weights of the events' types in this release, whatever release was served when they came."""
        vocabulary = self._vocabulary
        types = {event.event for event in events}
        weights = {kind: whole_weight(vocabulary.weight(vocabulary.read(kind))) for kind in types}
        return np.fromiter((weights[event.event] for event in events), np.int64, len(events))

    def _add(self, batch: LiveBatch, places: Sequence[int]) -> Counter[EntryOutcome]:
        """Counts the events at some places."""
        if not places:
            return Counter()
        counted = self.evidence.add_all(batch.where(np.array(places)))
        # After the change: what is read meanwhile belongs to the number before it, which nobody asks for again.
        self.num_changes += 1
        return Counter("counted" if one else "limit" for one in counted.tolist())

    def _remove(self, bucket: int, event: StoredEvent, row: int) -> None:
        name, removes = (event.user_id, event.item_id), self._removes[bucket]
        removes[name] = max(event.timestamp, removes.pop(name, event.timestamp))
        if len(removes) > REMOVES_PER_BUCKET:
            del removes[next(iter(removes))]
        if row >= 0:
            self.evidence.take_back(row, user_hash_of(event.user_id), event.timestamp)
            self.num_changes += 1

    def _is_learned(self, event: StoredEvent, pasts: dict[str, _Past]) -> bool:
        past = pasts.get(event.user_id)
        if past is None:
            history = self._users.past(event.user_id, lambda _: False).history
            past = pasts[event.user_id] = frozenset((entry.item_id, entry.timestamp) for entry in history)
        return (event.item_id, event.timestamp) in past
