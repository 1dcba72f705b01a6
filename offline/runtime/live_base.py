"""Counts what live evidence is added to: totals of the lists, and each item's weight of recent events."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.contract.manifest import LiveEvidenceSpec
from isrf.method.evidence import WeightArray
from isrf.method.interest import IntArray
from isrf.method.recommend.live.recent_popularity import RecentPopularity, decayed_counts, newcomer_shares
from isrf.method.recommend.tables import LiveBase
from offline.config import EvidenceConfig
from offline.runtime.evidence import Counted, TimedEvents

DAY_S = 86_400.0
HALF_LIVES_DAYS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
JUDGED_EVENTS = 50_000
CUTOFF = 10


def count_live_base(
    counted: Counted, events: TimedEvents, *, config: EvidenceConfig, until_s: float = math.inf
) -> LiveBase | None:
    """What live counts are added to; None where an event has no time.

    Args:
        counted: the evidence of the events.
        events: the interactions.
        config: the transition window and the half-life.
        until_s: seconds; a later time is one that nobody can have read, and counts as this moment.
    """
    users, items, times, weights = events.counted()
    if not len(times) or not np.isfinite(times).all():
        return None
    times = np.minimum(times, until_s)
    half_life_s = choose_half_life(items, times, weights)
    spec = LiveEvidenceSpec(
        reference_s=float(times.max()),
        half_life_s=config.half_life_days * DAY_S,
        popularity_half_life_s=half_life_s,
        window=config.window,
    )
    num_before = np.arange(len(users)) - np.searchsorted(users, users)
    recent, newcomers = (
        decayed_counts(
            users,
            items,
            times,
            weights=weights,
            shares=shares,
            num_items=len(counted.popularity),
            half_life_s=half_life_s,
        )
        for shares in (None, newcomer_shares(num_before))
    )
    return LiveBase(spec, counted.totals["transition"], counted.totals["cooccurrence"], recent, newcomers)


def choose_half_life(items: IntArray, times: NDArray[np.float64], weights: WeightArray) -> float:
    """The half-life of popularity, seconds, that ranks each of the last events' items best before it happened.

    Measured by NDCG@10 over the last fifth of the events, at most `JUDGED_EVENTS` of them, each by its weight; ties go
    to the longer one.

    Args:
        items: (E,) rows.
        times: (E,) seconds.
        weights: (E,).
    """
    order = np.argsort(times, kind="stable")
    judged = max(len(order) - JUDGED_EVENTS, len(order) * 4 // 5)
    before, after = order[:judged], order[judged:]
    events = _Events(items, times, weights)
    best, best_score = HALF_LIVES_DAYS[-1], -1.0
    for days in reversed(HALF_LIVES_DAYS):
        score = _score(events.rows(before), events.rows(after), days * DAY_S)
        if score > best_score:
            best, best_score = days, score
    return best * DAY_S


class _Events(NamedTuple):
    """Events whose users do not matter."""

    items: IntArray  # (e,) rows
    times: NDArray[np.float64]  # (e,) seconds
    weights: WeightArray  # (e,)

    def rows(self, chosen: IntArray) -> "_Events":
        return _Events(self.items[chosen], self.times[chosen], self.weights[chosen])


def _score(before: _Events, after: _Events, half_life_s: float) -> float:
    reference = float(before.times.max(initial=after.times.min(initial=0.0)))
    size = int(max(before.items.max(initial=0), after.items.max(initial=0))) + 1
    decay = np.exp2((before.times - reference) / half_life_s)
    base = np.bincount(before.items, weights=before.weights * decay, minlength=size)
    popularity = RecentPopularity(base.astype(np.float64), reference_s=reference, half_life_s=half_life_s)
    total = 0.0
    for item, time, weight in zip(*(column.tolist() for column in after), strict=True):
        rank = popularity.rank(item)
        total += 0.0 if rank is None or rank >= CUTOFF else weight / math.log2(rank + 2)
        if weight > 0:
            popularity.add(item, time, weight)
    return total


def live_arrays(base: LiveBase) -> dict[str, NDArray[Any]]:
    """The arrays that live counts are added to, by file name (`isrf.contract.manifest.LIVE_ARRAYS`)."""
    return {f"evidence/{name}.npy": array for name, array in base._asdict().items() if name != "spec"}
