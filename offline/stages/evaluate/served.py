"""Chooses the scorer that is served: on candidates as a running service has them, or else by leave-one-out.

The leave-one-out scorer judges by evidence that stands still. Where recent events tell more, weights that were fitted
with live evidence win (docs/benchmarks.md); in a shop where the world stands still they hardly differ.
"""

from typing import Any, NamedTuple

import polars as pl

from isrf.method.recommend.recommender import Recommender
from isrf.method.text.encoder import item_fields
from offline.context import StageContext
from offline.runtime.text_reading import text_reading
from offline.stages.evaluate.items_as_new import CatalogueReading
from offline.stages.evaluate.lists import Scorer
from offline.stages.evaluate.live_sample import MIN_REQUESTS, SHARE_BEFORE, live_sample
from offline.stages.evaluate.weights import choose_scorer, ndcg_at_10


class Served(NamedTuple):
    scorer: Scorer
    report: dict[str, Any]


def choose_served(recommender: Recommender, leave_one_out: Scorer, ctx: StageContext) -> Served:
    """The scorer fitted with live evidence where it is better there than the leave-one-out scorer, else that one.

    Args:
        recommender: the release's, trained on the training split.
        leave_one_out: the scorer chosen on validation users.
        ctx: of the stage.
    """
    config = ctx.config
    sample = live_sample(
        recommender,
        ctx.inputs["ingest"],
        reading=_reading(ctx),
        config=config.evidence,
        limit=config.evaluate.validation_users,
        progress=ctx.progress,
        engine=ctx.engine,
    )
    if sample is None:
        reason = (
            f"fewer than {MIN_REQUESTS} held-out events in the last part of training, no event before that part, or "
            "events without a time"
        )
        return Served(leave_one_out, {"fitted_with_live_evidence": False, "reason": reason})
    candidates, targets = sample
    fitted = choose_scorer(
        candidates, targets, config=config, beams="generative" not in config.evaluate.without, live=True
    )
    own = ndcg_at_10(leave_one_out, candidates, targets)
    # The ranker's figure is cross-validated; the fusion has too few weights to fit the sample by heart.
    best = max(fitted.ndcg_at_10, fitted.ranker.get("NDCG@10", 0.0) if fitted.scorer.ranker is not None else 0.0)
    report = {
        "fitted_with_live_evidence": best > own,
        "protocol": f"held-out events after the first {SHARE_BEFORE:.0%} of all events, each asked for just before it",
        "requests": len(targets),
        "NDCG@10_leave_one_out_weights": round(own, 5),
        "NDCG@10_log_linear": round(fitted.ndcg_at_10, 5),
        "ranker": fitted.ranker,
    }
    return Served(fitted.scorer if best > own else leave_one_out, report)


def _reading(ctx: StageContext) -> CatalogueReading | None:
    reading = text_reading(ctx.inputs, ctx.config)
    if reading is None:
        return None
    columns = ["title", "brand", "categories", "description"]
    items = pl.read_parquet(ctx.inputs["ingest"] / "items.parquet", columns=columns)
    return CatalogueReading(reading, [item_fields(**row) for row in items.iter_rows(named=True)])
