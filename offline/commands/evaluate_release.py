"""Measures a published release again on the shop's data, and writes its lists for an independent scorer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.progress import Progress

from isrf.contract.errors import ConfigError
from isrf.contract.manifest import FusionWeights, StoredRanker
from isrf.method.interest import IntArray
from isrf.method.ranking.ranker import Ranker
from offline.commands.reingest import read_again, refuse_other_data, with_settings
from offline.config import RunConfig
from offline.engine.engine import StageEngine
from offline.engine.local import LOCAL
from offline.runtime.release import OpenedRelease, open_release
from offline.stages.evaluate.lists import FUSED, Scorer, Scorers
from offline.stages.evaluate.measure import Measure
from offline.stages.evaluate.split import EvaluationSplit, load_split
from offline.stages.evaluate.weights import (
    FUSION_LEAVE_ONE_OUT,
    FUSION_WITHOUT_GENERATIVE,
    RANKER_LEAVE_ONE_OUT,
    RANKER_WITHOUT_GENERATIVE,
)


def evaluate_release(
    folder: Path,
    data: Path,
    *,
    split: str,
    include_seen: bool,
    whole: bool,
    predictions: Path | None,
    progress: Progress,
    max_bad_rows: float | None = None,
    engine: StageEngine = LOCAL,
) -> dict[str, Any]:
    """Measures a published release on the shop's data, with equal timestamps in the release's order.

    Args:
        folder: the release.
        data: the shop's folder.
        split: "test" or "valid".
        include_seen: whether the full ranking contains items that the user already has.
        whole: whether the other protocols use all users, not a sample of `evaluate.sampled_users`.
        predictions: file for the fused lists, JSON lines; None writes none.
        progress: the progress bars.
        max_bad_rows: largest accepted share of bad rows; None uses the release's own setting.
        engine: computes the lists.

    Raises:
        DataError: `evaluate.other_data`, `evaluate.other_order` if the release was made from other data.
        ConfigError: `config.split`.
    """
    if split not in ("test", "valid"):
        raise ConfigError("config.split", f"{split!r} is not a split.", fix="Use test or valid.")
    if predictions is not None:
        predictions.touch()  # fails now, not after the work, if the path cannot be written
    release = open_release(folder)
    manifest = release.manifest
    config = RunConfig.model_validate(manifest.config)
    accepted = {} if max_bad_rows is None else {"max_bad_rows": max_bad_rows}
    with read_again(data, with_settings(config, accepted), progress) as ingested:
        refuse_other_data(ingested, manifest, data)
        evaluated = load_split(ingested, split)
        user_ids = pl.read_parquet(ingested / "users.parquet")["user_id"].to_list()
    recommender = release.recommender.without_recent_popularity()
    measure = Measure(
        recommender=recommender, scorers=scorers_of(release), config=config, progress=progress, engine=engine
    )
    lists = measure.lists(evaluated, split, include_seen=include_seen)
    if predictions is not None:
        write_predictions(predictions, evaluated, lists[FUSED], user_ids, release.item_ids)
    return {
        "release_id": manifest.release_id,
        "protocol": measure.protocol(evaluated, include_seen=include_seen),
        "split": split,
        **measure.describe_ranking(lists, evaluated),
        **measure.beside(evaluated, split, num_users=len(evaluated.users) if whole else config.evaluate.sampled_users),
    }


def scorers_of(release: OpenedRelease) -> Scorers:
    """Returns both leave-one-out scorers of a release; one that it lacks is the other, or the one that it serves."""
    manifest = release.manifest
    evaluation = manifest.evaluation
    served = Scorer(manifest.fusion, release.recommender.ranker)
    full = _scorer(evaluation, FUSION_LEAVE_ONE_OUT, RANKER_LEAVE_ONE_OUT) or served
    return Scorers(full, _scorer(evaluation, FUSION_WITHOUT_GENERATIVE, RANKER_WITHOUT_GENERATIVE) or full)


def _scorer(evaluation: dict[str, Any], fusion_key: str, ranker_key: str) -> Scorer | None:
    fusion, stored = evaluation.get(fusion_key), evaluation.get(ranker_key)
    if fusion is None:
        return None
    ranker = None if stored is None else Ranker.from_stored(StoredRanker.model_validate(stored))
    return Scorer(FusionWeights.model_validate(fusion), ranker)


def write_predictions(
    path: Path, split: EvaluationSplit, lists: IntArray, user_ids: Sequence[str], item_ids: Sequence[str]
) -> None:
    """Writes one JSON object per user: `{"user_id", "items"}`, best item first."""
    with path.open("w", encoding="utf-8") as file:
        for user, row in zip(split.users.tolist(), lists, strict=True):
            items = [item_ids[item] for item in row.tolist() if item >= 0]
            file.write(json.dumps({"user_id": user_ids[user], "items": items}, ensure_ascii=False) + "\n")
