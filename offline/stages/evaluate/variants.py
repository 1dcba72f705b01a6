"""Measures what a variant of the search graph loses against fp32, on the fused lists of all test users, in pairs."""

from typing import Any

from isrf.method.interest import IntArray
from isrf.method.metrics import bootstrap_means, ndcg, ranks_of
from isrf.method.recommend.recommender import Graph
from offline.stages.evaluate.lists import FUSED
from offline.stages.evaluate.measure import Measure
from offline.stages.evaluate.split import EvaluationSplit

CUTOFF = 10


def describe_loss(
    measure: Measure, graph: Graph, split: EvaluationSplit, exact: IntArray, *, title: str
) -> dict[str, Any]:
    """NDCG@10 of the served lists with `graph`, and with fp32, whose lists (R, LIST_LENGTH) are `exact`.

    Returns:
        the protocol, both figures, and the relative loss with its interval over users (positive: the variant is worse).
    """
    lists = measure.searching_with(graph).lists(split, title)
    before, after = (ndcg(ranks_of(items, split.targets), CUTOFF) for items in (exact, lists[FUSED]))
    settings = measure.config
    (loss,) = bootstrap_means(
        (before - after)[:, None], samples=settings.evaluate.bootstrap_samples, seed=settings.seed
    )
    scale = float(before.mean()) or 1.0
    return {
        "protocol": measure.protocol(split),
        "users": len(split.users),
        "ndcg@10": {"fp32": round(float(before.mean()), 6), "variant": round(float(after.mean()), 6)},
        "relative_loss": {name: round(value / scale, 6) for name, value in loss._asdict().items()},
        "same_first_ten": round(float((exact[:, :CUTOFF] == lists[FUSED][:, :CUTOFF]).all(axis=1).mean()), 4),
    }
