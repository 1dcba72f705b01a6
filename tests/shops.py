"""Shops that tests write, and stages run on them at a size of a second or two."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from rich.progress import Progress

from offline.config import RunConfig, build_config
from offline.pipeline import run_until

Event: TypeAlias = tuple[str, str, int]
"""user_id, item_id, timestamp"""

TINY = (
    "embed.dim=16", "graph.dim=8", "graph.epochs=2", "graph.batch_size=64", "graph.max_neighbours=8",
    "semantic_ids.levels=3", "semantic_ids.codebook_size=8", "model.width=16", "model.ff_width=32",
    "model.num_heads=2", "model.num_encoder_layers=1", "model.num_decoder_layers=1", "model.history_length=6",
    "model.interest_length=8", "train.epochs=2", "train.batch_size=64", "train.num_direct_negatives=5",
    "search.num_beams=5", "search.num_dense=12", "evaluate.bootstrap_samples=20",
)  # fmt: skip
"""Every stage at a size that runs in a second or two; what is claimed of it does not depend on the size."""


def write_shop(folder: Path, events: Sequence[Event], items: Sequence[Mapping[str, Any]]) -> Path:
    """The data contract's two files in a new folder."""
    folder.mkdir(parents=True)
    rows = "".join(f"{user},{item},{time}\n" for user, item, time in events)
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp\n" + rows)
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return folder


def run_stages(last: str, data: Path, releases: Path, config: RunConfig | None = None) -> dict[str, Path]:
    """Runs up to a stage without bars, at `TINY` size if nothing else is asked for."""
    with Progress(disable=True) as progress:
        return run_until(
            last, data=data, releases=releases, config=config or build_config("demo", None, TINY), progress=progress
        )
