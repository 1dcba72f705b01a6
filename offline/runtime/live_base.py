"""Counts what live evidence is added to: totals of the lists, and each item's weight of recent events."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isrf.contract.manifest import LiveEvidenceSpec
from isrf.method.interest import IntArray
from isrf.method.recommend.recent_popularity import RecentPopularity, decayed_counts, newcomer_shares
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
    users, items, times = events
    if not len(times) or not np.isfinite(times).all():
        return None
    times = np.minimum(times, until_s)
    half_life_s = choose_half_life(items, times)
    spec = LiveEvidenceSpec(
        reference_s=float(times.max()),
        half_life_s=config.half_life_days * DAY_S,
        popularity_half_life_s=half_life_s,
        window=config.window,
    )
    num_before = np.arange(len(users)) - np.searchsorted(users, users)
    recent, newcomers = (
        decayed_counts(users, items, times, shares=shares, num_items=len(counted.popularity), half_life_s=half_life_s)
        for shares in (None, newcomer_shares(num_before))
    )
    return LiveBase(spec, counted.totals["transition"], counted.totals["cooccurrence"], recent, newcomers)


def choose_half_life(items: IntArray, times: NDArray[np.float64]) -> float:
    """The half-life of popularity, seconds, that ranks each of the last events' items best before it happened.

    Measured by NDCG@10 over the last fifth of the events, at most `JUDGED_EVENTS` of them; ties go to the longer one.

    Args:
        items: (E,) rows.
        times: (E,) seconds.
    """
    order = np.argsort(times, kind="stable")
    judged = max(len(order) - JUDGED_EVENTS, len(order) * 4 // 5)
    before, after = order[:judged], order[judged:]
    best, best_score = HALF_LIVES_DAYS[-1], -1.0
    for days in reversed(HALF_LIVES_DAYS):
        score = _score(items[before], times[before], items[after], times[after], days * DAY_S)
        if score > best_score:
            best, best_score = days, score
    return best * DAY_S


def _score(
    items: IntArray,
    times: NDArray[np.float64],
    next_items: IntArray,
    next_times: NDArray[np.float64],
    half_life_s: float,
) -> float:
    reference = float(times.max(initial=next_times.min(initial=0.0)))
    size = int(max(items.max(initial=0), next_items.max(initial=0))) + 1
    base = np.bincount(items, weights=np.exp2((times - reference) / half_life_s), minlength=size)
    popularity = RecentPopularity(base.astype(np.float64), reference_s=reference, half_life_s=half_life_s)
    total = 0.0
    for item, time in zip(next_items.tolist(), next_times.tolist(), strict=True):
        rank = popularity.rank(item)
        total += 0.0 if rank is None or rank >= CUTOFF else 1.0 / math.log2(rank + 2)
        popularity.add(item, time)
    return total


def live_arrays(base: LiveBase) -> dict[str, NDArray[Any]]:
    """The arrays that live counts are added to, by file name (`isrf.contract.manifest.LIVE_ARRAYS`)."""
    return {f"evidence/{name}.npy": array for name, array in base._asdict().items() if name != "spec"}
