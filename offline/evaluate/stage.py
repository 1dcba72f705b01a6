"""The stage: builds the evidence lists, chooses the fusion weights on validation users and measures both splits."""

import json
from typing import Any

import numpy as np
import polars as pl

from isrf.bundle import FusionWeights, GroupSearch
from isrf.fusion import DEFAULT_FUSION, choose_weights
from isrf.recommend import Recommender, RecommenderTables
from isrf.trie import build_trie
from offline.context import StageContext
from offline.decoding import decoding_of
from offline.evaluate.figures import protocol, split_figures
from offline.evaluate.lists import candidates_of, top_lists
from offline.evaluate.split import load_split, sample_split
from offline.evidence import build_lists, load_lists, save_lists
from offline.neighbours import load_user_index
from offline.onnx_graphs import open_graph


def run(ctx: StageContext) -> None:
    """Writes `evidence/`, `popularity.npy`, `fusion.json`, `evaluation.json`."""
    config, out = ctx.config, ctx.out
    train = pl.read_parquet(ctx.inputs["ingest"] / "train.parquet")
    content = load_lists(ctx.inputs["embed"] / "evidence")["content"]
    group_layers = np.load(ctx.inputs["graph"] / "group_layers.npy")
    search = GroupSearch.model_validate_json((ctx.inputs["graph"] / "group_search.json").read_bytes())
    lists = build_lists(train, content, num_users=len(group_layers), config=config.evidence)
    popularity = np.bincount(train["item_index"].to_numpy(), minlength=len(content.indptr) - 1).astype(np.float32)
    save_lists(out / "evidence", lists)
    np.save(out / "popularity.npy", popularity)

    compiled = ctx.inputs["compile"]
    tables = RecommenderTables(
        trie=build_trie(np.load(ctx.inputs["semantic-ids"] / "semantic_ids.npy"), config.semantic_ids.codebook_size),
        item_inputs=np.load(compiled / "item_inputs.npy"),
        item_vectors=np.load(compiled / "item_vectors.npy"),
        item_embeddings=np.load(ctx.inputs["graph"] / "item_embeddings.npy"),
        group_layers=group_layers,
        popularity=popularity,
        item_lists={name: lists[name] for name in lists if name != "user_items"},
        user_items=lists["user_items"],
    )
    recommender = Recommender(
        tables,
        decoding=decoding_of(config),
        group_search=search,
        fusion=DEFAULT_FUSION,
        interest_graph=open_graph(compiled / "lightgcn.onnx"),
        search_graph=open_graph(compiled / "recommender.onnx"),
        nearest_users=load_user_index(ctx.inputs["graph"], search),
    )
    fusion, evaluation = _choose_and_measure(recommender, ctx)
    (out / "fusion.json").write_text(fusion.model_dump_json(indent=2))
    (out / "evaluation.json").write_text(json.dumps(evaluation, indent=2))


def _choose_and_measure(recommender: Recommender, ctx: StageContext) -> tuple[FusionWeights, dict[str, Any]]:
    config, ingest = ctx.config, ctx.inputs["ingest"]
    if config.fit == "all":
        return config.fusion or DEFAULT_FUSION, {
            "protocol": "none: trained on all interactions, nothing held out",
            "evaluated_release_id": config.evaluated_release_id,
        }
    valid = sample_split(load_split(ingest, "valid"), config.evaluate.validation_users, config.seed)
    source = candidates_of(
        recommender, valid, include_seen=False, progress=ctx.progress, title="evaluate: choosing fusion weights"
    )
    choice = choose_weights(list(source), valid.targets, start=DEFAULT_FUSION, without=config.evaluate.without)
    evaluation: dict[str, Any] = {
        "protocol": protocol(config.ingest.shuffle_ties, include_seen=False, typed=valid.typed),
        "weights_chosen_on": {"split": "valid", "users": len(valid.users), "NDCG@10": round(choice.ndcg_at_10, 5)},
    }
    for name in ("valid", "test"):
        split = load_split(ingest, name)
        lists = top_lists(
            recommender, split, choice.fusion, include_seen=False, progress=ctx.progress, title=f"evaluate: {name}"
        )
        evaluation[name] = split_figures(lists, split, config)
    return choice.fusion, evaluation
