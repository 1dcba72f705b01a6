"""Indexes the items of a large catalogue, so that a search follows links between near items instead of scoring all.

The item vectors have an index of their own, and so have the interaction graph's embeddings: HNSW (Malkov and Yashunin
2016). How many candidates a search keeps is measured, not guessed: enough to find nearly all items that an exact search
finds, for histories of the training split. `offline.runtime.hnsw` makes the indexes, `isrf.runtime.item_index` searches
them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from isrf.contract.manifest import DENSE_HNSW_FILE, EXPLICIT_HNSW_FILE, HNSW_ARRAYS, ItemSearchSpec
from isrf.method.interest import FloatArray, InterestTables, pad_histories, read_history
from isrf.nn.model import IsrfModel
from isrf.nn.search import ConstrainedSearch
from offline.context import StageContext
from offline.runtime.hnsw import MOST_EF, NUM_BEST, RECALL, Indexed, index_table

ITEM_SEARCH_FILE = "item_search.json"
SAMPLE = 256
"""Users whose histories make the queries."""


def index_items(ctx: StageContext, model: IsrfModel, tables: InterestTables) -> None:
    """Writes the items' indexes, and `item_search.json`, into the stage's folder; equal calls give equal files."""
    queries = _queries(ctx, model, tables)
    found: dict[str, Indexed] = {}
    for name, file, table in (
        ("dense", DENSE_HNSW_FILE, model.item_vectors().numpy()),
        ("explicit", EXPLICIT_HNSW_FILE, model.part_graph.numpy()),
    ):
        # An embedding of zeros is that of an unknown item.
        known = np.any(table != 0, axis=1) if name == "explicit" else np.ones(len(table), dtype=np.bool_)
        found[name] = index_table(
            np.ascontiguousarray(table), known, queries[name], title="compile: indexing items", progress=ctx.progress
        )
        np.save(ctx.out / file, found[name].data)
    spec = ItemSearchSpec(dense_ef=found["dense"].ef, explicit_ef=found["explicit"].ef)
    (ctx.out / ITEM_SEARCH_FILE).write_text(spec.model_dump_json(indent=2))
    recalls = {name: indexed.recall for name, indexed in found.items()}
    (ctx.out / "item_recall.json").write_text(json.dumps(recalls, indent=2))
    for name, recall in recalls.items():
        warning = low_recall(name, recall, model.spec.num_items)
        if warning:
            ctx.progress.console.print(f"[bold yellow]{warning}")


def low_recall(name: str, recall: float, num_items: int) -> str:
    """What to say of a search whose recall stays below `RECALL`; empty for one that reaches it."""
    if recall >= RECALL:
        return ""
    return (
        f"compile: the search of the {name} vectors finds {recall:.1%} of the best {NUM_BEST} items with {MOST_EF:,} "
        f"candidates, less than {RECALL:.0%}; a search of all items is exact: --set search.hnsw_from={num_items + 1}"
    )


def item_search_of(folder: Path) -> ItemSearchSpec | None:
    """How the items of a stage's output are searched; None where a search scores all of them."""
    path = folder / ITEM_SEARCH_FILE
    return ItemSearchSpec.model_validate_json(path.read_bytes()) if path.exists() else None


def hnsw_arrays(folder: Path) -> dict[str, NDArray[Any]]:
    """The indexes in a stage's output, by file name; none where it has none."""
    return {name: np.load(folder / name, mmap_mode="r") for name in HNSW_ARRAYS if (folder / name).exists()}


@torch.no_grad()
def _queries(ctx: StageContext, model: IsrfModel, tables: InterestTables) -> dict[str, FloatArray]:
    """What some users' histories ask of each table: "dense" (R, D) without group interest, and "explicit" (R, E)."""
    events = pl.scan_parquet(ctx.inputs["ingest"] / "train.parquet").select("user_index", "item_index")
    users = events.select(pl.col("user_index").unique().sort()).collect()["user_index"].to_numpy()
    sample = np.sort(np.random.default_rng(ctx.config.seed).permutation(users)[:SAMPLE])
    frame = events.filter(pl.col("user_index").is_in(sample.tolist())).group_by("user_index", maintain_order=True)
    histories = frame.agg("item_index").sort("user_index").collect()["item_index"].to_list()
    config = ctx.config.model
    explicit = read_history(tables, *pad_histories(histories, config.interest_length)).explicit
    history, mask = pad_histories(histories, config.history_length)
    search = ConstrainedSearch(model, num_beams=0).eval()
    (query,) = search(
        torch.from_numpy(history),
        torch.from_numpy(mask),
        torch.from_numpy(explicit),
        torch.zeros(len(histories), model.spec.group_dim),
        torch.zeros(len(histories), dtype=torch.int64),
        model.item_inputs(),
    )
    return {"dense": np.ascontiguousarray(query.numpy()), "explicit": np.ascontiguousarray(explicit)}
