"""Divides the items of a large catalogue into cells, so that a search looks into a few cells instead of at all items.

The item vectors have cells of their own, and so have the interaction graph's embeddings. How many of them a search
looks into is measured, not guessed: enough to find nearly all items that an exact search finds, for histories of the
training split. `isrf.runtime.item_index` searches them.
"""

import json
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from isrf.contract.manifest import ITEM_CELL_ARRAYS, ItemSearchSpec
from isrf.method.interest import FloatArray, IntArray, InterestTables, pad_histories, read_history
from isrf.nn.model import IsrfModel
from isrf.nn.search import ConstrainedSearch
from isrf.runtime.neighbour_index import Cells, divided_index
from offline.context import StageContext
from offline.runtime.cells import Division, centroids, with_probes
from offline.runtime.one_thread import one_faiss_thread

ITEM_SEARCH_FILE = "item_search.json"
RECALL = 0.98
"""Share of the best items that a search must find, on average over the sample."""
NUM_BEST = 100
"""Best items that the recall is measured on."""
SAMPLE = 256
"""Users whose histories make the queries."""
ASSIGN_AT_ONCE = 1 << 14


def divide_items(ctx: StageContext, model: IsrfModel, tables: InterestTables) -> None:
    """Writes the items' cells, and `item_search.json`, into the stage's folder; equal calls give equal files."""
    queries = _queries(ctx, model, tables)
    probes: dict[str, int] = {}
    recalls: dict[str, float] = {}
    for name, table, known_alone in (
        ("dense", model.item_vectors().numpy(), False),
        ("explicit", model.part_graph.numpy(), True),
    ):
        known = np.any(table != 0, axis=1) if known_alone else np.ones(len(table), dtype=np.bool_)
        cells, recalls[name] = divide(np.ascontiguousarray(table), known, queries[name], seed=ctx.config.seed)
        np.save(ctx.out / f"{name}_cells.npy", cells.cells)
        np.save(ctx.out / f"{name}_centroids.npy", cells.centroids)
        probes[name] = cells.probes
    spec = ItemSearchSpec(dense_probes=probes["dense"], explicit_probes=probes["explicit"])
    (ctx.out / ITEM_SEARCH_FILE).write_text(spec.model_dump_json(indent=2))
    (ctx.out / "item_recall.json").write_text(json.dumps(recalls, indent=2))


def item_search_of(folder: Path) -> ItemSearchSpec | None:
    """How the items of a stage's output are searched; None where it has no cells."""
    path = folder / ITEM_SEARCH_FILE
    return ItemSearchSpec.model_validate_json(path.read_bytes()) if path.exists() else None


def item_cells(folder: Path) -> dict[str, NDArray[Any]]:
    """The cells in a stage's output, by file name; none where it has none."""
    return {name: np.load(folder / name) for name in ITEM_CELL_ARRAYS if (folder / name).exists()}


def divide(table: FloatArray, known: NDArray[np.bool_], queries: FloatArray, *, seed: int) -> Division:
    """Divides the known rows of a table (N, W) into cells; returns them with the measured recall.

    Args:
        known: (N,) rows that a search may find; the others get the cell −1.
        queries: (R, W) of which the recall is measured.
        seed: seed of k-means.
    """
    rows = np.flatnonzero(known)
    with one_faiss_thread():
        found = centroids(table[rows], seed=seed, spherical=False)
        quantizer = faiss.IndexFlatL2(table.shape[1])
        quantizer.add(found)
        cells = np.full(len(table), -1, dtype=np.int32)
        for at in range(0, len(rows), ASSIGN_AT_ONCE):
            part = rows[at : at + ASSIGN_AT_ONCE]
            cells[part] = quantizer.search(np.ascontiguousarray(table[part]), 1)[1][:, 0]
        return _with_probes(Cells(found, cells, 1), table, known, queries)


def _with_probes(cells: Cells, table: FloatArray, known: NDArray[np.bool_], queries: FloatArray) -> Division:
    k = min(NUM_BEST, int(known.sum()))
    exact = faiss.IndexFlatIP(table.shape[1])
    exact.add(table)
    wanted = exact.search(queries, k, params=_among(known))[1]
    index = divided_index(table, cells)

    def found(tried: Cells) -> IntArray:
        parameters = faiss.SearchParametersIVF(nprobe=tried.probes)  # type: ignore[call-arg]
        rows: IntArray = index.search(queries, k, params=parameters)[1]
        return rows

    return with_probes(cells, found, wanted, recall=RECALL)


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
