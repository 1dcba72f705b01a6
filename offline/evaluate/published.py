"""Measures a published release on the shop's data again, and writes its lists for an independent scorer."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.progress import Progress

from isrf.bundle import Manifest
from isrf.errors import ConfigError, DataError
from isrf.interest import IntArray
from offline import ingest
from offline.config import RunConfig
from offline.context import StageContext
from offline.evaluate.figures import protocol, split_figures
from offline.evaluate.lists import top_lists
from offline.evaluate.split import Split, load_split
from offline.release import open_release


def evaluate_release(
    folder: Path,
    data: Path,
    *,
    split: str,
    include_seen: bool,
    predictions: Path | None,
    progress: Progress,
) -> dict[str, Any]:
    """Measures a published release on the shop's data, ordered as the release's was.

    Raises:
        DataError: `evaluate.other_data` where the data is not what the release was made from.
    """
    if split not in ("test", "valid"):
        raise ConfigError("config.split", f"{split!r} is no split.", fix="Take test or valid.")
    if predictions is not None:
        predictions.touch()  # a path that cannot be written is better known now than after the work
    release = open_release(folder)
    config = RunConfig.model_validate(release.manifest.config)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "ingest"
        out.mkdir()
        ingest.run(StageContext(data=data, inputs={}, out=out, scratch=Path(scratch), config=config, progress=progress))
        _refuse_other_data(json.loads((out / "report.json").read_text()), release.manifest, data)
        asked = load_split(out, split)
        user_ids = pl.read_parquet(out / "users.parquet")["user_id"].to_list()
    lists = top_lists(
        release.recommender,
        asked,
        release.manifest.fusion,
        include_seen=include_seen,
        progress=progress,
        title=f"evaluate: {split}",
    )
    if predictions is not None:
        write_predictions(predictions, asked, lists.fused, user_ids, release.item_ids)
    return {
        "release_id": release.manifest.release_id,
        "protocol": protocol(release.manifest.tie_seed, include_seen=include_seen, typed=asked.typed),
        "split": split,
        **split_figures(lists, asked, config),
    }


def _refuse_other_data(report: dict[str, Any], manifest: Manifest, data: Path) -> None:
    if report["fingerprint"] != manifest.data_fingerprint:
        raise DataError(
            "evaluate.other_data",
            f"{data} is not the data that {manifest.release_id} was made from.",
            fix="Evaluate a release on its own data; row numbers mean nothing in other data.",
        )
    if report["order_fingerprint"] != manifest.order_fingerprint:
        raise DataError(
            "evaluate.other_order",
            f"{data} orders events of equal timestamp otherwise than the data of {manifest.release_id}.",
            fix="Evaluate with the rows in the order that the release was made from: other items would be held out.",
        )


def write_predictions(
    path: Path, split: Split, lists: IntArray, user_ids: Sequence[str], item_ids: Sequence[str]
) -> None:
    """One JSON object a user: `{"user_id", "items"}`, best first."""
    with path.open("w", encoding="utf-8") as file:
        for user, row in zip(split.users.tolist(), lists, strict=True):
            items = [item_ids[item] for item in row.tolist() if item >= 0]
            file.write(json.dumps({"user_id": user_ids[user], "items": items}, ensure_ascii=False) + "\n")
