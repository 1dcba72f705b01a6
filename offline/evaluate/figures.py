"""What the lists are worth: hit rates, NDCG and coverage with their intervals, and the protocol's words beside them."""

from typing import Any

import numpy as np

from isrf.interest import IntArray
from isrf.metrics import bootstrap_mean, hit_rate, ndcg, ranks_of
from offline.config import RunConfig
from offline.evaluate.lists import Lists
from offline.evaluate.split import Split

CUTOFFS = (5, 10, 20)


def measure(lists: IntArray, targets: IntArray, *, samples: int, seed: int) -> dict[str, Any]:
    """HR and NDCG at `CUTOFFS` with 95% bootstrap intervals over users, and how much of the catalogue is shown."""
    ranks = ranks_of(lists, targets)
    result: dict[str, Any] = {}
    for k in CUTOFFS:
        for name, values in (("HR", hit_rate(ranks, k)), ("NDCG", ndcg(ranks, k))):
            mean, low, high = bootstrap_mean(values, samples=samples, seed=seed)
            result[f"{name}@{k}"] = round(mean, 5)
            result[f"{name}@{k}_95"] = [round(low, 5), round(high, 5)]
    top = lists[:, :10]
    result["items_recommended@10"] = len(np.unique(top[top >= 0]))
    return result


def split_figures(lists: Lists, split: Split, config: RunConfig) -> dict[str, Any]:
    """Fused and single-channel figures of one split."""

    def of(own: IntArray) -> dict[str, Any]:
        return measure(own, split.targets, samples=config.evaluate.bootstrap_samples, seed=config.seed)

    return {
        "users": len(split.users),
        "fused": of(lists.fused),
        "channels": {name: of(own) for name, own in lists.channels.items()},
    }


def protocol(tie_seed: int | None, *, include_seen: bool, typed: bool) -> str:
    """The words that stand with every figure; in typed data only purchases are excluded, as in serving."""
    order = "ties in file order" if tie_seed is None else f"ties shuffled with seed {tie_seed}"
    excluded = "bought items excluded" if typed else "seen items excluded"
    seen = "seen items included" if include_seen else excluded
    return f"leave-one-out, full ranking, {order}, {seen}"
