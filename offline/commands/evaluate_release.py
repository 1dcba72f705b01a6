"""Measures a published release on the shop's data again, and writes its lists for an independent scorer."""

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
from offline.commands.reingest import read_again, refuse_other_data, with_bad_rows
from offline.config import RunConfig
from offline.runtime.release import OpenedRelease, open_release
from offline.stages.evaluate.lists import FUSED, Scorer, Scorers
from offline.stages.evaluate.measure import Measure
from offline.stages.evaluate.split import EvaluationSplit, load_split
from offline.stages.evaluate.weights import FUSION_WITHOUT_GENERATIVE, RANKER_WITHOUT_GENERATIVE


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
) -> dict[str, Any]:
    """Measures a published release on the shop's data, ordered as the release's was.

    Args:
        folder: the release.
        data: the shop's folder.
        split: "test" or "valid".
        include_seen: full ranking with the items that a user already has.
        whole: the other protocols on all users too, and not on `evaluate.sampled_users` of them.
        predictions: where the fused lists go, JSON lines.
        progress: bars.
        max_bad_rows: share of bad rows that is put up with; None: as when the release was made.

    Raises:
        DataError: `evaluate.other_data`, `evaluate.other_order`, where the data is not what the release was made from.
    """
    if split not in ("test", "valid"):
        raise ConfigError("config.split", f"{split!r} is no split.", fix="Take test or valid.")
    if predictions is not None:
        predictions.touch()  # a path that cannot be written is better known now than after the work
    release = open_release(folder)
    manifest = release.manifest
    config = RunConfig.model_validate(manifest.config)
    with read_again(data, with_bad_rows(config, max_bad_rows), progress) as ingested:
        refuse_other_data(ingested, manifest, data)
        asked = load_split(ingested, split)
        user_ids = pl.read_parquet(ingested / "users.parquet")["user_id"].to_list()
    measure = Measure(recommender=release.recommender, scorers=scorers_of(release), config=config, progress=progress)
    lists = measure.lists(asked, split, include_seen=include_seen)
    if predictions is not None:
        write_predictions(predictions, asked, lists[FUSED], user_ids, release.item_ids)
    return {
        "release_id": manifest.release_id,
        "protocol": measure.protocol(asked, include_seen=include_seen),
        "split": split,
        **measure.describe_ranking(lists, asked),
        **measure.beside(asked, split, num_users=len(asked.users) if whole else config.evaluate.sampled_users),
    }


def scorers_of(release: OpenedRelease) -> Scorers:
    """Both scorers of a release; one made before the second was chosen is measured with its own."""
    manifest = release.manifest
    full = Scorer(manifest.fusion, release.recommender.ranker)
    fusion = manifest.evaluation.get(FUSION_WITHOUT_GENERATIVE)
    if fusion is None:
        return Scorers(full, full)
    stored = manifest.evaluation.get(RANKER_WITHOUT_GENERATIVE)
    ranker = None if stored is None else Ranker.from_stored(StoredRanker.model_validate(stored))
    return Scorers(full, Scorer(FusionWeights.model_validate(fusion), ranker))


def write_predictions(
    path: Path, split: EvaluationSplit, lists: IntArray, user_ids: Sequence[str], item_ids: Sequence[str]
) -> None:
    """One JSON object a user: `{"user_id", "items"}`, best first."""
    with path.open("w", encoding="utf-8") as file:
        for user, row in zip(split.users.tolist(), lists, strict=True):
            items = [item_ids[item] for item in row.tolist() if item >= 0]
            file.write(json.dumps({"user_id": user_ids[user], "items": items}, ensure_ascii=False) + "\n")
