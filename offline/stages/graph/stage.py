"""The stage `graph`: trains LightGCN and builds the similar-user graph; writes item vectors and group layers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isrf.contract.errors import StageError
from isrf.method.evidence import heaviest_of_each, latest_of_each
from isrf.method.interest import FloatArray, InterestTables
from isrf.method.order import counted_events
from isrf.nn.lightgcn import Interactions, LightGCNSettings
from isrf.nn.lightgcn_training import LightGCNVectors, train_lightgcn
from offline.config import GraphConfig
from offline.context import StageContext
from offline.stages.graph.cells import divide
from offline.stages.graph.features import (
    fit_feature_map,
    join_features,
    mean_item_text,
    read_base_users,
    split_histories,
)
from offline.stages.graph.similar import calibrate_search, describe, join_similar_users, nearest_users, propagate

VERSION = 6

GROUP_LAYERS = 1
"""K. With a second layer, a sample's own user, and so its target, would reach the sample again after two steps."""


def run(ctx: StageContext) -> None:
    """Runs the stage; raises `StageError` where a graph cannot be built."""
    config, seed, length = ctx.config.graph, ctx.config.seed, ctx.config.model.interest_length
    item_text: FloatArray = np.load(ctx.inputs["embed"] / "item_text.npy", allow_pickle=False)
    user_text: FloatArray = np.load(ctx.inputs["embed"] / "user_text.npy", allow_pickle=False)
    interactions = _read_interactions(ctx.inputs["ingest"])
    # Sessions come after the users. They have edges, but are nobody's neighbours.
    of_users = interactions.users < len(user_text)
    histories = split_histories(interactions.users[of_users], interactions.items[of_users], len(user_text))

    edges = _edges(interactions)
    vectors = _train(ctx, edges, item_text, config=config, seed=seed)
    means = mean_item_text(item_text, histories, recency=config.recency, length=length)
    feature_map = fit_feature_map(means, user_text)
    tables = InterestTables(item_text, vectors.item_layers, feature_map, config.recency, config.text_share)
    explicit = np.zeros((len(histories), config.dim), dtype=np.float32)
    queries = np.zeros((len(histories), item_text.shape[1] + config.dim), dtype=np.float32)
    for rows, block_explicit, block_feature in read_base_users(tables, histories, length=length):
        explicit[rows], queries[rows] = block_explicit, block_feature
    present = np.array([len(history) > 0 for history in histories])
    joined = join_features(user_text, explicit, config.text_share)
    features = (joined * present[:, None]).astype(np.float16)

    k = config.max_neighbours + 1
    division = divide(queries, features, k, seed=seed) if len(features) >= config.cells_from else None
    cells = None if division is None else division.cells
    nearest = nearest_users(queries, features, k, cells, engine=ctx.engine)
    probes = None if cells is None else cells.probes
    search = calibrate_search(queries, features, nearest, config=config, seed=seed, probes=probes)
    graph = join_similar_users(search, nearest)
    arrays: dict[str, NDArray[Any]] = {
        "item_layers": vectors.item_layers,
        "item_embeddings": vectors.item_embeddings,
        "feature_map": feature_map,
        "user_features": features,
        "group_layers": propagate(graph, explicit, GROUP_LAYERS),
    }
    if cells is not None:
        arrays |= {"user_cells": cells.cells, "user_centroids": cells.centroids}
    for name, array in arrays.items():
        np.save(ctx.out / f"{name}.npy", array)
    (ctx.out / "group_search.json").write_text(search.model_dump_json(indent=2))
    report = {
        "interaction_graph": _describe_interactions(edges, len(item_text)),
        "lightgcn_losses": vectors.losses,
        "similar_user_graph": describe(graph, present),
    }
    if division is not None:
        found = {"cells": len(division.cells.centroids), "probes": division.cells.probes, "recall": division.recall}
        report["similar_user_search"] = found
    (ctx.out / "report.json").write_text(json.dumps(report, indent=2))


def _read_interactions(ingest: Path) -> Interactions:
    frame = pl.read_parquet(ingest / "train.parquet", columns=["user_index", "item_index", "weight"])
    if frame.is_empty():
        raise StageError(
            "graph.no_interactions",
            "no user has an interaction to train on.",
            fix="Provide users with at least three interactions each (two of them are held out).",
        )
    users, items = (frame[name].to_numpy().astype(np.int64) for name in ("user_index", "item_index"))
    return Interactions(users, items, frame["weight"].to_numpy())


def _edges(interactions: Interactions) -> Interactions:
    """One edge per user or session and item, whatever the number of events, so that one account cannot inflate an
    item's degree; it stands at the latest event and has the weight of the heaviest."""
    counted = counted_events(interactions.users)
    users, items = interactions.users[counted], interactions.items[counted]
    weights = None if interactions.weights is None else interactions.weights[counted]
    latest = latest_of_each(users, items)
    return Interactions(
        users[latest],
        items[latest],
        None if weights is None else heaviest_of_each(users, items, weights)[latest],
    )


def _train(
    ctx: StageContext, interactions: Interactions, item_text: FloatArray, *, config: GraphConfig, seed: int
) -> LightGCNVectors:
    task = ctx.progress.add_task("graph: LightGCN", total=config.epochs)
    settings = LightGCNSettings(
        dim=config.dim,
        recency=config.recency,
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        prefix_length=ctx.config.model.interest_length,
        seed=seed,
    )

    def advance(_epoch: int, loss: float) -> None:
        ctx.progress.update(task, advance=1, description=f"graph: LightGCN, loss {loss:.3f}")

    return train_lightgcn(interactions, item_text, settings=settings, on_epoch=advance)


def _describe_interactions(interactions: Interactions, num_items: int) -> dict[str, Any]:
    degree = np.bincount(interactions.items, minlength=num_items)
    return {
        "interactions": len(interactions.items),
        "items": num_items,
        "items_without_training_interactions": int((degree == 0).sum()),
        "item_degree_quantiles": {str(q): float(np.quantile(degree, q / 100)) for q in (0, 10, 25, 50, 75, 90, 100)},
    }
