"""Indexes the items of a large catalogue, so that a search follows links between near items instead of scoring all.

The item vectors have an index of their own, and so have the interaction graph's embeddings: HNSW (Malkov and Yashunin
2016). How many candidates a search keeps is measured, not guessed: enough to find nearly all items that an exact search
finds, for histories of the training split. `isrf.runtime.item_index` searches them.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from isrf.contract.manifest import DENSE_HNSW_FILE, EXPLICIT_HNSW_FILE, HNSW_ARRAYS, ItemSearchSpec
from isrf.method.interest import FloatArray, InterestTables, pad_histories, read_history
from isrf.nn.model import IsrfModel
from isrf.nn.search import ConstrainedSearch
from isrf.runtime.item_index import SPARE, HnswIndex
from offline.context import StageContext
from offline.runtime.one_thread import one_faiss_thread

ITEM_SEARCH_FILE = "item_search.json"
RECALL = 0.98
"""Share of the best items that a search must find, on average over the sample."""
NUM_BEST = 100
"""Best items that the recall is measured on."""
SAMPLE = 256
"""Users whose histories make the queries."""
LEAST_EF, MOST_EF = 128, 4_096
"""Candidates that a search keeps, at least and at most."""
LINKS = 16
"""Links of an item; the lowest level has twice as many."""
EF_CONSTRUCTION = 150
"""Candidates that the search for an item's links keeps (docs/lab-notebook.md)."""
ADD_AT_ONCE = 1 << 13


class Indexed(NamedTuple):
    """A table's index, how many candidates a search keeps, and the recall that this reaches."""

    data: NDArray[np.uint8]  # (bytes,) in FAISS's format
    ef: int
    recall: float


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
        found[name] = index_table(np.ascontiguousarray(table), known, queries[name], progress=ctx.progress)
        np.save(ctx.out / file, found[name].data)
    spec = ItemSearchSpec(dense_ef=found["dense"].ef, explicit_ef=found["explicit"].ef)
    (ctx.out / ITEM_SEARCH_FILE).write_text(spec.model_dump_json(indent=2))
    recalls = {name: indexed.recall for name, indexed in found.items()}
    for name, recall in recalls.items():
        if recall < RECALL:
            ctx.progress.console.print(
                f"[bold yellow]compile: the search of the {name} vectors finds {recall:.1%} of the best {NUM_BEST} "
                f"items with {MOST_EF:,} candidates, less than {RECALL:.0%}; a search of all items is exact: "
                f"--set search.hnsw_from={model.spec.num_items + 1}"
            )
    (ctx.out / "item_recall.json").write_text(json.dumps(recalls, indent=2))


def item_search_of(folder: Path) -> ItemSearchSpec | None:
    """How the items of a stage's output are searched; None where a search scores all of them."""
    path = folder / ITEM_SEARCH_FILE
    return ItemSearchSpec.model_validate_json(path.read_bytes()) if path.exists() else None


def hnsw_arrays(folder: Path) -> dict[str, NDArray[Any]]:
    """The indexes in a stage's output, by file name; none where it has none."""
    return {name: np.load(folder / name, mmap_mode="r") for name in HNSW_ARRAYS if (folder / name).exists()}


def index_table(
    table: FloatArray, known: NDArray[np.bool_], queries: FloatArray, *, progress: Progress | None = None
) -> Indexed:
    """Indexes a table (N, W), and doubles the candidates that a search keeps until it reaches `RECALL`, or `MOST_EF`.

    Args:
        known: (N,) rows that the index holds. Equal rows, as unknown items have, would cut it into parts.
        queries: (R, W) of which the recall is measured.
        progress: shows the progress.
    """
    width, rows = table.shape[1], table[known]
    new_index: Any = faiss.IndexHNSWSQ  # whose stub lacks the measure
    index = new_index(width, faiss.ScalarQuantizer.QT_8bit, LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = EF_CONSTRUCTION
    task = None if progress is None else progress.add_task("compile: indexing items", total=len(rows))
    with one_faiss_thread():
        index.train(rows)  # the range of each column
        for first in range(0, len(rows), ADD_AT_ONCE):
            part = rows[first : first + ADD_AT_ONCE]
            index.add(part)
            if progress is not None and task is not None:
                progress.update(task, advance=len(part))
        searched = HnswIndex(faiss.serialize_index(index), LEAST_EF, known)
        del index
        return _with_ef(searched, table, known, queries)


def _with_ef(index: HnswIndex, table: FloatArray, known: NDArray[np.bool_], queries: FloatArray) -> Indexed:
    k = min(NUM_BEST, int(known.sum()))
    exact = faiss.IndexFlatIP(table.shape[1])
    exact.add(table)
    wanted = exact.search(queries, k, params=_among(known))[1]
    ef = LEAST_EF
    while True:
        # What a search finds is scored exactly afterwards, so a few more make up for the rounding to 8 bits.
        found = [index.search(query, k + SPARE, ef=ef) for query in queries]
        recall = float(np.mean([len(np.intersect1d(a, b)) / max(k, 1) for a, b in zip(found, wanted, strict=True)]))
        if recall >= RECALL or ef >= MOST_EF:
            return Indexed(index.data, ef, recall)
        ef *= 2


def _among(known: NDArray[np.bool_]) -> Any:
    rows = np.flatnonzero(known)
    return faiss.SearchParameters(sel=faiss.IDSelectorBatch(rows))  # type: ignore[call-arg]


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
