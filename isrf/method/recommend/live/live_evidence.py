"""What a replica keeps of live events: it counts them, and tells a recommender and its caller what they say.

It knows neither stores nor streams.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from isrf.contract.manifest import LiveEvidenceSpec
from isrf.method.interest import BoolArray
from isrf.method.recommend.live.daily_limit import DailyLimit
from isrf.method.recommend.live.live_counts import BYTES_PER_EVENT, PART, LiveCounts
from isrf.method.recommend.live.live_events import UNIT_WEIGHT, CountedEvent, LiveBatch, LiveEvent, TakenItems
from isrf.method.recommend.live.live_lists import BaseCounts, LiveLists
from isrf.method.recommend.live.recent_popularity import RecentPopularity, newcomer_share, newcomer_shares
from isrf.method.recommend.product_groups import ProductGroups, Products

TREND_PRIOR = 3.0
"""Events that every item is given in both windows of a trend, so that one event after none is none."""

EventsBetween: TypeAlias = Callable[[float, float], TakenItems]
"""(start, end) in seconds → the events with start ≤ timestamp < end."""

WORTH_A_BATCH = 16
"""Events from which counting them together is faster than one by one."""


class LiveEvidence:
    """All that live events say: what a recommender reads in place of its release's lists and popularity."""

    def __init__(
        self,
        spec: LiveEvidenceSpec,
        *,
        transition: BaseCounts,
        cooccurrence: BaseCounts,
        popularity: RecentPopularity,
        newcomers: RecentPopularity,
        memory_bytes: int,
        products: Products | None = None,
    ) -> None:
        """
        Args:
            spec: of the release.
            transition, cooccurrence: the release's own counts.
            popularity: of the release's events, for this evidence alone.
            newcomers: the same of newcomers' events.
            memory_bytes: that the events take at most.
            products: of the release; None where no item has a variant.
        """
        self.counts = LiveCounts(
            reference_s=spec.reference_s,
            half_life_s=spec.half_life_s,
            window=spec.window,
            max_events=max(1, memory_bytes // BYTES_PER_EVENT),
        )
        self.popularity, self.newcomers = popularity, newcomers
        self.transition = LiveLists("transition", transition, self.counts, products)
        self.cooccurrence = LiveLists("cooccurrence", cooccurrence, self.counts, products)
        self._limit = DailyLimit()

    def add(self, event: LiveEvent) -> bool:
        """Counts an event; returns False where its user has been counted for the item or often enough that day.

        A heavier event than was counted for the item adds the difference. One of weight 0 does not count.
        """
        added = self._limit.added_weight(event)
        if not added:
            return False
        self.counts.add(event if added == event.weight else event._replace(weight=added))
        share = added / UNIT_WEIGHT
        self.popularity.add(event.item, event.timestamp, share)
        self.newcomers.add(event.item, event.timestamp, share * newcomer_share(len(event.followed)))
        return True

    def add_all(self, batch: LiveBatch) -> BoolArray:
        """Counts events as `add` does, one after the other; returns (E,) what `add` returns for each.

        It is several times as fast for hundreds of events, and slower for a few.
        """
        if batch.num_events < WORTH_A_BATCH:
            return np.array([self.add(event) for event in batch.events()], np.bool_)
        parts = [slice(start, start + PART) for start in range(0, batch.num_events, PART)]
        return np.concatenate([self._add_part(batch.where(part)) for part in parts])

    def _add_part(self, batch: LiveBatch) -> BoolArray:
        added = self._limit.added_weights(batch)
        counted: BoolArray = added > 0
        batch = batch._replace(weights=added).where(counted)
        if batch.num_events:
            self.counts.add_all(batch)
            shares = batch.weights / UNIT_WEIGHT
            self.popularity.add_all(batch.items, batch.timestamps, shares)
            shares = shares * newcomer_shares((batch.followed >= 0).sum(axis=1))
            self.newcomers.add_all(batch.items, batch.timestamps, shares)
        return counted

    def take_out_bucket(self, bucket: int) -> None:
        """Takes out all events of a bucket's users, so that they can be counted again."""
        self._limit.forget_bucket(bucket)
        self._take_out(self.counts.take_out_bucket(bucket))

    def take_back(self, item: int, user_hash: int, until_s: float) -> None:
        """Takes out a user's events on an item up to a moment, seconds (a return, or a click in error)."""
        self._take_out(self.counts.take_back(item, user_hash, until_s))

    def version(self, rows: Sequence[int], groups: ProductGroups | None = None) -> str:
        """Equal texts mean that equal live events stand beside each of the items and their variants."""
        return ".".join(f"{self.counts.version(row, groups):x}" for row in rows)

    def trending(
        self, until_s: float, *, window_s: float, limit: int, learned: EventsBetween | None = None
    ) -> list[tuple[int, float]]:
        """Items whose events in the window before `until_s` exceed those in the window before it.

        Args:
            learned: the release's own events, which are not counted here.

        Returns:
            (item row, ratio of the two, by weight, with `TREND_PRIOR` added to both), the highest first, ratios above 1
            only.
        """
        windows = (until_s - window_s, until_s), (until_s - 2 * window_s, until_s - window_s)
        now, before = (self.counts.between(*window) for window in windows)
        if learned is not None:
            now, before = (
                TakenItems(*map(np.concatenate, zip(live, learned(*window), strict=True)))
                for live, window in zip((now, before), windows, strict=True)
            )
        size = int(max(now.items.max(initial=-1), before.items.max(initial=-1))) + 1
        # Sums of whole numbers: equal in any order.
        rising, falling = (
            np.bincount(one.items, weights=one.weights, minlength=size) / UNIT_WEIGHT + TREND_PRIOR
            for one in (now, before)
        )
        ratios = rising / falling
        best = np.lexsort((np.arange(size), -ratios))[:limit]
        return [(int(item), float(ratios[item])) for item in best if ratios[item] > 1]

    def _take_out(self, events: Sequence[CountedEvent]) -> None:
        for item, timestamp, num_followed, weight in events:
            share = weight / UNIT_WEIGHT
            self.popularity.take_out(item, timestamp, share)
            self.newcomers.take_out(item, timestamp, share * newcomer_share(num_followed))
        if events:
            latest_s = self.counts.latest_s()
            self.popularity.refresh(latest_s)
            self.newcomers.refresh(latest_s)
