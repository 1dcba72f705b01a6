"""The stage `evaluate`: builds the evidence lists, chooses the fusion weights and the ranker, measures both splits."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from isrf.contract.manifest import RANKER_FILE, SEARCH_GRAPHS, GroupSearch, VariantName
from isrf.method.metrics import ndcg, ranks_of
from isrf.method.ranking.fusion import DEFAULT_FUSION
from isrf.method.ranking.ranker import Ranker
from isrf.method.recommend.recommender import Recommender
from isrf.method.recommend.tables import LiveBase
from isrf.runtime.bundle.opening import assemble_recommender
from isrf.runtime.neighbour_index import load_index
from offline.config import variants_of
from offline.context import StageContext
from offline.engine.graphs import open_graph
from offline.runtime.evidence import (
    Counted,
    TimedEvents,
    count_evidence,
    lists_as_arrays,
    save_lists,
    variants_as_arrays,
)
from offline.runtime.ingest_report import ingest_report, learned_until
from offline.runtime.left_out import channels_left_out, default_fusion, parts_left_out
from offline.runtime.live_base import count_live_base, live_arrays
from offline.stages.evaluate.lists import FUSED, LOG_LINEAR, Scorer, Scorers, rows_of
from offline.stages.evaluate.measure import Measure
from offline.stages.evaluate.questions import full_ranking
from offline.stages.evaluate.served import choose_served
from offline.stages.evaluate.split import load_owners, sample_rows
from offline.stages.evaluate.variants import describe_loss
from offline.stages.evaluate.weights import (
    FUSION_LEAVE_ONE_OUT,
    FUSION_WITHOUT_GENERATIVE,
    RANKER_LEAVE_ONE_OUT,
    RANKER_WITHOUT_GENERATIVE,
    choose_scorers,
    join_lists,
)
from offline.stages.export_onnx.item_hnsw import hnsw_arrays, item_search_of

VERSION = 18
RANKER_SPEC = "ranker.json"
LIVE_EVIDENCE_SPEC = "live_evidence.json"
SAVED_LISTS = (FUSED, LOG_LINEAR, "dense", "generative")
"""Lists that are saved, (R, LIST_LENGTH) int32 in the order of users, so that two runs can be compared by user."""
SESSIONS = "sessions"
"""Key, in an evaluation, of the figures of sessions, by split; missing where none has a held-out item."""


def loss_file(variant: VariantName) -> str:
    """The name of the file with a variant's loss."""
    return f"{variant}_loss.json"


def run(ctx: StageContext) -> None:
    """Runs the stage.

    Writes `evidence/`, `popularity.npy`, `fusion.json`, `evaluation.json` and `test_*.npy` lists; also the ranker if it
    won, and the losses of the search graph's variants.
    """
    parts = parts_left_out(ingest_report(ctx.inputs["ingest"]), ctx.config)
    beams = () if ctx.config.search.num_beams else ("generative",)
    without = (*ctx.config.evaluate.without, *channels_left_out(parts), *beams)
    evaluate = ctx.config.evaluate.model_copy(update={"without": without})
    ctx = replace(ctx, config=ctx.config.model_copy(update={"evaluate": evaluate}))
    config, out = ctx.config, ctx.out
    recommender = recommender_of(ctx)
    if config.fit == "all":
        evaluated_ranker = None if config.ranker is None else Ranker.from_stored(config.ranker)
        served = Scorer(config.fusion or default_fusion(without), evaluated_ranker)
        evaluation: dict[str, Any] = {
            "protocol": "none: trained on all interactions, nothing held out",
            "evaluated_release_id": config.evaluated_release_id,
        }
    elif "evaluation" in parts:
        served, evaluation = Scorer(default_fusion(without), None), {"protocol": f"none: {parts['evaluation']}"}
    else:
        served, evaluation = _choose_and_measure(recommender, ctx)
    (out / "fusion.json").write_text(served.fusion.model_dump_json(indent=2))
    if served.ranker is not None:
        np.save(out / RANKER_FILE, served.ranker.values())
        (out / RANKER_SPEC).write_text(served.ranker.spec.model_dump_json(indent=2))
    (out / "evaluation.json").write_text(json.dumps(evaluation, indent=2))


def recommender_of(ctx: StageContext) -> Recommender:
    """The recommender of the coming release; counts its evidence lists and popularity and writes them to `ctx.out`."""
    config, compiled = ctx.config, ctx.inputs["compile"]
    group_layers = np.load(ctx.inputs["graph"] / "group_layers.npy")
    search = GroupSearch.model_validate_json((ctx.inputs["graph"] / "group_search.json").read_bytes())
    counted = count_evidence(ctx.inputs, num_users=len(group_layers), config=config.evidence, engine=ctx.engine)
    save_lists(ctx.out / "evidence", counted.lists)
    np.save(ctx.out / "popularity.npy", counted.popularity)
    live_base = _live_base(counted, ctx)
    live = {} if live_base is None else live_arrays(live_base)
    variants = variants_as_arrays(counted.first_variants)
    for name, array in (live | variants).items():
        np.save(ctx.out / name, array)
    if live_base is not None:
        (ctx.out / LIVE_EVIDENCE_SPEC).write_text(live_base.spec.model_dump_json(indent=2))
    arrays = {
        "semantic_ids.npy": np.load(ctx.inputs["semantic-ids"] / "semantic_ids.npy"),
        "item_embeddings.npy": np.load(ctx.inputs["graph"] / "item_embeddings.npy"),
        "group_layers.npy": group_layers,
        "popularity.npy": counted.popularity,
        **{name: np.load(compiled / name) for name in ("item_inputs.npy", "item_vectors.npy", "node_vectors.npy")},
        **hnsw_arrays(compiled),
        **lists_as_arrays(counted.lists),
        **live,
        **variants,
    }
    return assemble_recommender(
        arrays,
        codebook_size=config.semantic_ids.codebook_size,
        decoding=config.decoding,
        group_search=search,
        fusion=DEFAULT_FUSION,
        live_evidence=None if live_base is None else live_base.spec,
        item_search=item_search_of(compiled),
        interest_graph=open_graph(compiled / "lightgcn.onnx"),
        search_graph=open_graph(compiled / "recommender.onnx"),
        nearest_users=load_index(ctx.inputs["graph"], search),
    )


def _live_base(counted: Counted, ctx: StageContext) -> LiveBase | None:
    events = TimedEvents.of(pl.read_parquet(ctx.inputs["ingest"] / "train.parquet"))
    until_s = learned_until(ctx.inputs["ingest"])
    return count_live_base(counted, events, config=ctx.config.evidence, until_s=until_s)


def _choose_and_measure(live: Recommender, ctx: StageContext) -> tuple[Scorer, dict[str, Any]]:
    config, ingest = ctx.config, ctx.inputs["ingest"]
    recommender = live.without_recent_popularity()
    valid, test = load_owners(ingest, "valid"), load_owners(ingest, "test")
    tie_seed, num_items = config.ingest.shuffle_ties, len(recommender.tables.popularity)
    rows = sample_rows(valid, config.evaluate.validation_users, config.seed)
    sample = valid.rows(rows)
    question = full_ranking(sample, num_items, tie_seed=tie_seed)
    chosen = choose_scorers(recommender, sample, question, config=config, progress=ctx.progress, engine=ctx.engine)
    measure = Measure(
        recommender=recommender, scorers=chosen.scorers, config=config, progress=ctx.progress, engine=ctx.engine
    )

    other_rows = np.setdiff1d(np.arange(len(valid.users)), rows)
    other_lists = measure.lists(valid.rows(other_rows), "valid") if len(other_rows) else None
    lists = {
        "valid": chosen.lists if other_lists is None else join_lists(rows, chosen.lists, other_rows, other_lists),
        "test": measure.lists(test, "test"),
    }
    for name in SAVED_LISTS:
        np.save(ctx.out / f"test_{name}.npy", lists["test"][name][test.of_users].astype(np.int32))
    for name in variants_of(config.search):
        graph = open_graph(ctx.inputs["compile"] / SEARCH_GRAPHS[name])
        loss = describe_loss(measure, graph, test, lists["test"][FUSED], title=f"test, {name}")
        (ctx.out / loss_file(name)).write_text(json.dumps(loss, indent=2))
    without = chosen.scorers.without_generative
    served = choose_served(live, chosen.scorers.full, ctx)
    own = None if served.scorer is chosen.scorers.full else chosen.scorers.full
    evaluation: dict[str, Any] = {
        "protocol": question.protocol,
        "weights_chosen_on": chosen.report,
        "weights_served": served.report,
        FUSION_LEAVE_ONE_OUT: None if own is None else own.fusion.model_dump(),
        RANKER_LEAVE_ONE_OUT: None if own is None or own.ranker is None else own.ranker.stored().model_dump(),
        FUSION_WITHOUT_GENERATIVE: without.fusion.model_dump(),
        RANKER_WITHOUT_GENERATIVE: None if without.ranker is None else without.ranker.stored().model_dump(),
    }
    for name, split in (("valid", valid), ("test", test)):
        users, sessions = split.of_users, split.of_sessions
        if len(users):
            of_users = measure.describe_ranking(rows_of(lists[name], users), split.rows(users))
            beside = measure.beside(split.rows(users), name, num_users=config.evaluate.sampled_users)
            evaluation[name] = of_users | beside
        if len(sessions):
            of_sessions = measure.describe_ranking(rows_of(lists[name], sessions), split.rows(sessions))
            evaluation.setdefault(SESSIONS, {})[name] = of_sessions
    if own is not None:
        rows = sample_rows(test, config.evaluate.sampled_users, config.seed)
        asked = replace(measure, recommender=live, scorers=Scorers(served.scorer, served.scorer))
        of_served = asked.lists(test.rows(rows), "test, served weights")[FUSED]
        ranks = {"own_weights": lists["test"][FUSED][rows], "served_weights": of_served}
        evaluation["weights_served"]["leave_one_out_test"] = {"users": len(rows)} | {
            f"NDCG@10_{name}": round(float(ndcg(ranks_of(items, test.targets[rows]), 10).mean()), 5)
            for name, items in ranks.items()
        }
    return served.scorer, evaluation
