"""Computes figures of ranked lists: HR, NDCG, differences and coverage, with 95% bootstrap intervals over users.

Lists and targets in, a JSON-ready table out. All metrics of all lists use the same draws of users, so that differences
are paired.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from isrf.method.evidence import ItemLists
from isrf.method.interest import FloatArray, IntArray
from isrf.method.metrics import Interval, bootstrap_means, hit_rate, ndcg, ranks_of
from offline.stages.evaluate.lists import FUSED, LOG_LINEAR, WITHOUT_GENERATIVE, RankedLists
from offline.stages.evaluate.split import EvaluationSplit

CUTOFFS = (5, 10, 20)
COMPARED = ("HR@10", "NDCG@10")
"""The metrics for differences and slices."""

HISTORY_LENGTHS = (1, 5, 10, 20, 50)
POPULARITIES = (0, 1, 5, 20, 100, 1000)
"""Starts of the slices: by the number of items before the held-out item, and by the number of users who took the
held-out item in training (0: a cold item)."""
TRANSITIONS = ("never seen", "seen")
"""Slices by whether the held-out item followed the last one within the training split, as far as the last item's
transition list reaches."""

KeyT = TypeVar("KeyT", bound=Hashable)


def describe_lists(lists: RankedLists, targets: IntArray, *, samples: int, seed: int) -> dict[str, Any]:
    """HR and NDCG at `CUTOFFS` of every list, and the fused list's gain over each other list.

    Returns:
        "fused", "log_linear_fusion", "without_generative" and "channels" by name, each with every metric and its
        interval; "fused_minus" by the other list's name.
    """
    values = {name: _values(items, targets) for name, items in lists.items()}
    columns = {(name, metric): column for name, metrics in values.items() for metric, column in metrics.items()}
    differences = {
        (name, metric): values[FUSED][metric] - metrics[metric]
        for name, metrics in values.items()
        if name != FUSED
        for metric in COMPARED
    }
    intervals = _bootstrap([columns, differences], samples=samples, seed=seed)
    figures, minus = (_by_name(part) for part in intervals)
    result: dict[str, Any] = {
        name: figures.pop(name) for name in (FUSED, LOG_LINEAR, WITHOUT_GENERATIVE) if name in figures
    }
    return {**result, "channels": figures, "fused_minus": minus}


def describe_coverage(items: IntArray, popularity: FloatArray) -> dict[str, Any]:
    """The share of the catalogue in the lists' first ten places, and the share of these places with cold items."""
    top = items[:, :10]
    shown = top[top >= 0]
    distinct = len(np.unique(shown))
    return {
        "items_recommended@10": distinct,
        "coverage@10": round(distinct / len(popularity), 5),
        "cold_share@10": round(float((popularity[shown] == 0).mean()) if len(shown) else 0.0, 5),
    }


def describe_slices(
    lists: RankedLists,
    split: EvaluationSplit,
    *,
    popularity: FloatArray,
    transitions: ItemLists,
    samples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """The fused list's figures by `HISTORY_LENGTHS`, `POPULARITIES` and `TRANSITIONS`, for slices that have users.

    Each slice also has the fused list's gain over the one without the generative path, "minus_without_generative".

    Args:
        popularity: (N,) users who took each item in training.
        transitions: the items that followed each item there.
    """
    fused, without = (_values(lists[name], split.targets) for name in (FUSED, WITHOUT_GENERATIVE))
    lengths = np.array([len(history) for history in split.histories])
    keys = {
        "history_length": _ranges(lengths, HISTORY_LENGTHS),
        "target_popularity": _ranges(popularity[split.targets], POPULARITIES),
        "last_to_target": (_transitions(split, transitions), TRANSITIONS),
    }
    result: dict[str, dict[str, Any]] = {}
    for title, (place, names) in keys.items():
        result[title] = {}
        for number in np.unique(place).tolist():
            rows = place == number
            part = {(FUSED, metric): fused[metric][rows] for metric in COMPARED}
            gain = {(WITHOUT_GENERATIVE, metric): (fused[metric] - without[metric])[rows] for metric in COMPARED}
            figures, gains = (_by_name(one) for one in _bootstrap([part, gain], samples=samples, seed=seed))
            result[title][names[number]] = {
                "users": int(rows.sum()),
                **figures[FUSED],
                "minus_without_generative": gains[WITHOUT_GENERATIVE],
            }
    return result


def _transitions(split: EvaluationSplit, lists: ItemLists) -> IntArray:
    """(R,) place in `TRANSITIONS` of every user's held-out item."""
    followed = [
        bool(history) and target in lists.entries(history[-1]).indices
        for history, target in zip(split.histories, split.targets.tolist(), strict=True)
    ]
    return np.array(followed, dtype=np.int64)


def _ranges(values: NDArray[Any], starts: Sequence[int]) -> tuple[IntArray, Sequence[str]]:
    """The place (R,) of each value (R,) among the ranges that begin at `starts`, and the ranges' names."""
    lasts = [start - 1 for start in starts[1:]]
    names = [str(start) if last == start else f"{start}-{last}" for start, last in zip(starts, lasts, strict=False)]
    return np.searchsorted(starts, values, side="right") - 1, [*names, f"{starts[-1]}+"]


def _values(items: IntArray, targets: IntArray) -> dict[str, NDArray[np.float64]]:
    """The values of every metric for every user, (R,)."""
    ranks = ranks_of(items, targets)
    return {f"{name}@{k}": metric(ranks, k) for k in CUTOFFS for name, metric in (("HR", hit_rate), ("NDCG", ndcg))}


def _bootstrap(
    parts: Sequence[Mapping[KeyT, NDArray[np.float64]]], *, samples: int, seed: int
) -> list[dict[KeyT, Interval]]:
    """The intervals of all columns of all parts, from the same draws of users."""
    columns = [column for part in parts for column in part.values()]
    intervals = iter(bootstrap_means(np.stack(columns, axis=1), samples=samples, seed=seed))
    return [{key: next(intervals) for key in part} for part in parts]


def _by_name(intervals: Mapping[tuple[str, str], Interval]) -> dict[str, dict[str, Any]]:
    result: dict[str, dict[str, Any]] = {}
    for (name, metric), (mean, low, high) in intervals.items():
        figures = result.setdefault(name, {})
        figures[metric] = round(mean, 5)
        figures[f"{metric}_95"] = [round(low, 5), round(high, 5)]
    return result
