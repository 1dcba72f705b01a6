"""Small random outputs of the stages before `train`, in their file formats."""

import json
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.progress import Progress

from isrf.method.evidence import counted_lists
from isrf.method.interest import unit_rows
from offline.config import RunConfig, build_config
from offline.context import StageContext
from offline.runtime.evidence import save_lists

NUM_ITEMS, NUM_USERS, TEXT_DIM, DIM, LEVELS, CODES = 60, 40, 8, 6, 3, 8

SETTINGS = (
    f"semantic_ids.levels={LEVELS}",
    f"semantic_ids.codebook_size={CODES}",
    "model.width=16",
    "model.ff_width=24",
    "model.num_heads=2",
    "model.history_length=5",
    "model.interest_length=8",
    "train.batch_size=32",
    "train.epochs=2",
    "train.validation_users=30",
    "search.num_beams=6",
    "search.num_dense=12",
)


def small_config(*more: str) -> RunConfig:
    return build_config(assignments=(*SETTINGS, *more))


def write_inputs(folder: Path, *, events: NDArray[np.int64] | None = None) -> dict[str, Path]:
    """Output folders of ingest, embed, graph and semantic-ids; item NUM_ITEMS − 1 is cold.

    Args:
        events: (NUM_USERS, T) training items of every user in order; by default a walk with a rule to learn: the
            next item is the last one plus 1, most of the time.
    """
    rng = np.random.default_rng(0)
    if events is None:
        steps = np.where(rng.random((NUM_USERS, 7)) < 0.8, 1, rng.integers(2, NUM_ITEMS - 1, (NUM_USERS, 7)))
        events = np.cumsum(steps, axis=1) % (NUM_ITEMS - 1)
    inputs = {name: folder / name for name in ("ingest", "embed", "graph", "semantic-ids")}
    for path in inputs.values():
        path.mkdir(parents=True)
    users = np.repeat(np.arange(NUM_USERS, dtype=np.int32), events.shape[1])
    table = pl.DataFrame({"user_index": users, "item_index": events.flatten().astype(np.int32)})
    table.with_columns(event=pl.lit("purchase"), weight=pl.lit(1.0)).write_parquet(inputs["ingest"] / "train.parquet")
    pl.DataFrame({"user_id": [f"u{row}" for row in range(NUM_USERS)]}).write_parquet(inputs["ingest"] / "users.parquet")
    learning = {"users": NUM_USERS, "targets": NUM_USERS * (events.shape[1] - 1), "longest": events.shape[1] + 2}
    (inputs["ingest"] / "report.json").write_text(json.dumps({"learning": learning}))
    groups = pl.DataFrame({"group_id": [None] * NUM_ITEMS}, schema={"group_id": pl.String})
    groups.write_parquet(inputs["ingest"] / "items.parquet")
    write_held_out(inputs["ingest"], (events[:, -1] + 1) % (NUM_ITEMS - 1), rng.integers(0, NUM_ITEMS, NUM_USERS))

    def rows(count: int, width: int) -> NDArray[np.float32]:
        return unit_rows(rng.normal(size=(count, width)).astype(np.float32))

    np.save(inputs["embed"] / "item_text.npy", rows(NUM_ITEMS, TEXT_DIM))
    warm = (np.arange(NUM_ITEMS) < NUM_ITEMS - 1)[:, None]
    arrays: dict[str, NDArray[np.floating]] = {
        "item_layers": (rows(NUM_ITEMS, DIM) * warm).astype(np.float32),
        "item_embeddings": (rows(NUM_ITEMS, DIM) * warm).astype(np.float32),
        "feature_map": rng.normal(size=(TEXT_DIM, TEXT_DIM)).astype(np.float32),
        "user_features": rows(NUM_USERS, TEXT_DIM + DIM).astype(np.float16),
        "group_layers": rows(NUM_USERS, DIM).astype(np.float16),
    }
    for name, array in arrays.items():
        np.save(inputs["graph"] / f"{name}.npy", array)
    (inputs["graph"] / "group_search.json").write_text(
        '{"threshold": 0.7, "background_cosine": 0.0, "nearest_cosine": 0.6, "max_neighbours": 5, "min_neighbours": 2}'
    )
    nobody = np.zeros(0, np.int64)
    save_lists(
        inputs["embed"] / "evidence",
        {"content": counted_lists(nobody, nobody, np.zeros(0), num_rows=NUM_ITEMS, length=1).lists},
    )
    keys = rng.choice(CODES**LEVELS, NUM_ITEMS, replace=False)
    codes = np.stack([keys // CODES**2, keys // CODES % CODES, keys % CODES], axis=1)
    np.save(inputs["semantic-ids"] / "semantic_ids.npy", codes.astype(np.int32))
    return inputs


def write_held_out(ingest: Path, valid: NDArray[np.int64], test: NDArray[np.int64]) -> None:
    """One validation and one test item per user."""
    users = np.arange(NUM_USERS, dtype=np.int32)
    frames = [
        pl.DataFrame({"user_index": users, "item_index": items.astype(np.int32)}).with_columns(
            split=pl.lit(split), event=pl.lit("purchase"), weight=pl.lit(1.0)
        )
        for split, items in (("valid", valid), ("test", test))
    ]
    pl.concat(frames).write_parquet(ingest / "heldout.parquet")


def context(folder: Path, inputs: dict[str, Path], name: str, config: RunConfig) -> StageContext:
    """A stage's context with an output and a scratch folder below `folder`."""
    out, scratch = folder / name, folder / f"{name}.scratch"
    out.mkdir(exist_ok=True)
    scratch.mkdir(exist_ok=True)
    return StageContext(
        data=folder, inputs=inputs, out=out, scratch=scratch, config=config, progress=Progress(disable=True)
    )
