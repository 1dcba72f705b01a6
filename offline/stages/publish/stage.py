"""The stage `export`: assembles a release bundle from the stages' outputs; `offline.commands.publish` publishes it.

The bundle's content depends only on data and configuration: two runs give equal hashes and the same `release_id`. Their
manifests differ only in the times (`isrf.contract.manifest.MOMENTS`) and in the seal over them.
"""

import hashlib
import json
import platform
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import polars as pl

import isrf
from isrf.contract.manifest import (
    ARRAYS,
    FP16_GRAPH_FILE,
    GOLDEN_FILE,
    GOLDEN_ITEMS_FILE,
    HISTORIES_FILE,
    HNSW_ARRAYS,
    INT8_GRAPH_FILE,
    INTEREST_GRAPH_FILE,
    ITEM_READER_DIR,
    ITEMS_FILE,
    LIVE_ARRAYS,
    MANIFEST_FILE,
    MAX_DEVIATION,
    RANKER_FILE,
    REASONING_DIR,
    SCHEMA_VERSION,
    SEARCH_GRAPH_FILE,
    SEARCH_GRAPHS,
    TEXT_ENCODER_DIR,
    USER_CELLS_FILE,
    USER_CENTROIDS_FILE,
    USERS_FILE,
    VARIANT_ARRAYS,
    Counts,
    Dimensions,
    FileEntry,
    FusionWeights,
    GoldenSpec,
    GoldenTolerance,
    GroupSearch,
    LearnedUntil,
    LiveEvidenceSpec,
    Manifest,
    Producer,
    RankerSpec,
    Variant,
    VariantName,
)
from isrf.contract.manifest_seal import made_from, sealed
from isrf.method.goldens.items import ItemGolden
from isrf.method.goldens.requests import LIST_TOLERANCE, TOLERANCE, Golden, deviation
from isrf.method.ranking.ranker import Ranker
from isrf.method.recommend.recommender import Graph, Recommender
from isrf.runtime.bundle.opening import assemble_recommender
from isrf.runtime.neighbour_index import load_index
from isrf.runtime.onnx_session import graph_signature, open_graph
from offline.config import variants_of
from offline.context import StageContext
from offline.runtime.ingest_report import ingest_report, num_users
from offline.runtime.left_out import parts_left_out
from offline.runtime.text_reading import ITEM_READER_FROM, item_reader_spec, text_reading
from offline.runtime.torch_graph import torch_search
from offline.stages.evaluate.stage import LIVE_EVIDENCE_SPEC, RANKER_SPEC, loss_file
from offline.stages.export_onnx.item_hnsw import item_search_of
from offline.stages.publish.goldens import item_goldens, request_goldens
from offline.stages.reason.show import ITEM_TABLE, USER_TABLE
from offline.stages.train.build import load_model

VERSION = 12
_PRODUCERS = ("torch", "transformers", "onnx", "onnxruntime", "faiss-cpu", "numpy", "polars", "scikit-learn")

_FROM_STAGE: dict[str, str] = {
    "item_inputs.npy": "compile",
    "item_vectors.npy": "compile",
    "node_vectors.npy": "compile",
    SEARCH_GRAPH_FILE: "compile",
    INT8_GRAPH_FILE: "compile",
    FP16_GRAPH_FILE: "compile",
    INTEREST_GRAPH_FILE: "compile",
    "semantic_ids.npy": "semantic-ids",
    "popularity.npy": "evaluate",
    "item_embeddings.npy": "graph",
    "user_features.npy": "graph",
    "group_layers.npy": "graph",
    **dict.fromkeys(HNSW_ARRAYS, "compile"),
    USER_CELLS_FILE: "graph",
    USER_CENTROIDS_FILE: "graph",
    "evidence": "evaluate",
    RANKER_FILE: "evaluate",
    TEXT_ENCODER_DIR: "embed",
}


def run(ctx: StageContext) -> None:
    """Writes the whole bundle into the stage's folder."""
    ingest = ctx.inputs["ingest"]
    for name, stage in _FROM_STAGE.items():
        source = ctx.inputs[stage] / name
        if source.is_dir():
            shutil.copytree(source, ctx.out / name)
        elif source.exists():
            shutil.copy2(source, ctx.out / name)
    _write_item_reader(ctx)
    shutil.copy2(ingest / "users.parquet", ctx.out / USERS_FILE)
    (ctx.out / REASONING_DIR).mkdir()
    for name in (ITEM_TABLE, USER_TABLE):
        shutil.copy2(ctx.inputs["reason"] / name, ctx.out / REASONING_DIR / name)
    _write_items(ctx)
    _histories(ingest).write_parquet(ctx.out / HISTORIES_FILE)
    # The torch model itself answers the golden requests.
    recommender = _recommender(ctx, torch_search(load_model(ctx.inputs), ctx.config))
    goldens = request_goldens(ctx, recommender)
    (ctx.out / GOLDEN_FILE).write_text("".join(g.model_dump_json() + "\n" for g in goldens), encoding="utf-8")
    items = item_goldens(ctx, recommender, text_reading(ctx.inputs, ctx.config))
    (ctx.out / GOLDEN_ITEMS_FILE).write_text("".join(i.model_dump_json() + "\n" for i in items), encoding="utf-8")
    manifest = sealed(_manifest(ctx, goldens, items, recommender))
    (ctx.out / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")


def _write_item_reader(ctx: StageContext) -> None:
    folder = ctx.out / ITEM_READER_DIR
    folder.mkdir()
    for name, stage in ITEM_READER_FROM.items():
        shutil.copy2(ctx.inputs[stage] / f"{name}.npy", folder / f"{name}.npy")
    np.save(folder / "item_text.npy", np.load(ctx.inputs["embed"] / "item_text.npy").astype(np.float16))


def _write_items(ctx: StageContext) -> None:
    items = pl.read_parquet(ctx.inputs["ingest"] / "items.parquet")
    features = pl.read_parquet(ctx.inputs["reason"] / "item_features.parquet", columns=["item_index", "feature"])
    texts = features.sort("item_index")["feature"].to_list()
    semantic_ids = np.load(ctx.inputs["semantic-ids"] / "semantic_ids.npy").tolist()
    with (ctx.out / ITEMS_FILE).open("w", encoding="utf-8") as file:
        for row, text, codes in zip(items.iter_rows(named=True), texts, semantic_ids, strict=True):
            extra = row.pop("metadata")
            line = {key: value for key, value in row.items() if value is not None}
            line |= {"metadata": json.loads(extra) if extra else {}, "feature": text, "semantic_id": codes}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _histories(ingest: Path) -> pl.DataFrame:
    """A row per user, for serving only: ALL events in order (held-out ones too), and the user's disliked items.

    Columns: user_index, item_ids, timestamps, events (three lists of equal length, oldest first), disliked_item_ids.
    """
    columns = ["user_index", "item_index", "timestamp", "event"]
    train = pl.read_parquet(ingest / "train.parquet", columns=columns).with_columns(part=pl.lit(0))
    heldout = pl.read_parquet(ingest / "heldout.parquet")
    parts = pl.when(pl.col("split") == "valid").then(1).otherwise(2).cast(pl.Int32)
    events = pl.concat([train, heldout.with_columns(part=parts).select([*columns, "part"])])
    events = events.filter(pl.col("user_index") < num_users(ingest))
    item_ids = pl.read_parquet(ingest / "items.parquet", columns=["item_id"]).with_row_index("item_index")
    item_ids = item_ids.with_columns(pl.col("item_index").cast(pl.Int32))
    histories = (
        events.join(item_ids, on="item_index", maintain_order="left")
        .sort(["user_index", "part"], maintain_order=True)
        .group_by("user_index", maintain_order=True)
        .agg(item_ids=pl.col("item_id"), timestamps=pl.col("timestamp"), events=pl.col("event"))
    )
    disliked = (
        pl.read_parquet(ingest / "excluded.parquet")
        .join(item_ids, on="item_index", maintain_order="left")
        .group_by("user_index", maintain_order=True)
        .agg(disliked_item_ids=pl.col("item_id"))
    )
    # A full join, because a user with dislikes only needs a row too.
    joined = histories.join(disliked, on="user_index", how="full", coalesce=True)
    lists = ("item_ids", "timestamps", "events", "disliked_item_ids")
    return joined.with_columns(pl.col(lists).fill_null([])).sort("user_index")


def _recommender(ctx: StageContext, search_graph: Graph) -> Recommender:
    config, search, ranker = ctx.config, _group_search(ctx), _ranker(ctx)
    live_evidence = _live_evidence(ctx)
    names = [*ARRAYS, *(() if live_evidence is None else LIVE_ARRAYS)]
    names += [name for name in VARIANT_ARRAYS if (ctx.out / name).exists()]
    arrays = {name: np.load(ctx.out / name) for name in names}
    return assemble_recommender(
        arrays,
        codebook_size=config.semantic_ids.codebook_size,
        decoding=config.decoding,
        group_search=search,
        fusion=_fusion(ctx),
        interest_graph=open_graph(ctx.out / INTEREST_GRAPH_FILE),
        search_graph=search_graph,
        nearest_users=load_index(ctx.out, search).exact,
        ranker=None if ranker is None else Ranker.from_values(ranker, np.load(ctx.out / RANKER_FILE)),
        live_evidence=live_evidence,
    )


def _variants(ctx: StageContext, goldens: Sequence[Golden], recommender: Recommender) -> dict[VariantName, Variant]:
    """The variants of the search graph: their measured loss, and how far they may deviate from the golden requests."""
    variants: dict[VariantName, Variant] = {}
    for name in variants_of(ctx.config.search):
        found = deviation(recommender.searching_with(open_graph(ctx.out / SEARCH_GRAPHS[name])), goldens)
        # Other processors round activations differently, by about as much as the variant itself deviates.
        tolerance = GoldenTolerance(
            log_prob=min(2 * found.log_prob + TOLERANCE, MAX_DEVIATION),
            missing=2 * found.missing + 1,
            list_score=min(2 * (found.list_score or 0) + LIST_TOLERANCE, MAX_DEVIATION),
            list_missing=2 * (found.list_missing or 0) + 1,
        )
        loss = ctx.inputs["evaluate"] / loss_file(name)
        variants[name] = Variant(loss=json.loads(loss.read_text()) if loss.exists() else {}, tolerance=tolerance)
    return variants


def _group_search(ctx: StageContext) -> GroupSearch:
    return GroupSearch.model_validate_json((ctx.inputs["graph"] / "group_search.json").read_bytes())


def _fusion(ctx: StageContext) -> FusionWeights:
    return FusionWeights.model_validate_json((ctx.inputs["evaluate"] / "fusion.json").read_bytes())


def _live_evidence(ctx: StageContext) -> LiveEvidenceSpec | None:
    path = ctx.inputs["evaluate"] / LIVE_EVIDENCE_SPEC
    return LiveEvidenceSpec.model_validate_json(path.read_bytes()) if path.exists() else None


def _ranker(ctx: StageContext) -> RankerSpec | None:
    path = ctx.inputs["evaluate"] / RANKER_SPEC
    return RankerSpec.model_validate_json(path.read_bytes()) if path.exists() else None


def _manifest(
    ctx: StageContext, goldens: Sequence[Golden], items: Sequence[ItemGolden], recommender: Recommender
) -> Manifest:
    report = ingest_report(ctx.inputs["ingest"])
    files = _hash_files(ctx.out)
    shapes = {name: np.load(ctx.out / name, mmap_mode="r").shape for name in ARRAYS}
    interactions = len(pl.read_parquet(ctx.inputs["ingest"] / "train.parquet", columns=["user_index"]))
    interactions += len(pl.read_parquet(ctx.inputs["ingest"] / "heldout.parquet", columns=["user_index"]))
    variants = _variants(ctx, goldens, recommender)
    names = [SEARCH_GRAPH_FILE, INTEREST_GRAPH_FILE, *(SEARCH_GRAPHS[name] for name in variants)]
    graphs = {name: graph_signature(ctx.out / name) for name in names}
    explicit = graphs[SEARCH_GRAPH_FILE].inputs["explicit"].shape[1]
    config = ctx.config
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        release_id="unsealed",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        producer=Producer(
            isrf_version=isrf.__version__,
            versions={"python": platform.python_version(), **{name: metadata.version(name) for name in _PRODUCERS}},
        ),
        preset=config.preset,
        fit=config.fit,
        evaluated_release_id=config.evaluated_release_id,
        config=config.model_dump(mode="json"),
        counts=Counts(
            num_items=shapes["item_vectors.npy"][0],
            num_users=shapes["user_features.npy"][0],
            num_interactions=interactions,
            num_sessions=report["counts"]["sessions"],
        ),
        dimensions=Dimensions(
            width=shapes["item_vectors.npy"][1],
            num_levels=shapes["semantic_ids.npy"][1],
            codebook_size=config.semantic_ids.codebook_size,
            feature=shapes["user_features.npy"][1],
            explicit=int(explicit),
            group=shapes["group_layers.npy"][1],
        ),
        decoding=config.decoding,
        group_search=_group_search(ctx),
        item_search=item_search_of(ctx.inputs["compile"]),
        fusion=_fusion(ctx),
        ranker=_ranker(ctx),
        live_evidence=_live_evidence(ctx),
        variants=variants,
        left_out={str(part): reason for part, reason in parts_left_out(report, config).items()},
        item_reader=item_reader_spec(ctx.inputs, ctx.config),
        graphs=graphs,
        data_fingerprint=report["fingerprint"],
        order_fingerprint=report["order_fingerprint"],
        tie_seed=config.ingest.shuffle_ties,
        events_through=report["events_through"],
        learned_until=LearnedUntil.model_validate(report["learned_until"]),
        reasoner=config.reason.reasoner,
        encoder=config.embed.encoder,
        evaluation=json.loads((ctx.inputs["evaluate"] / "evaluation.json").read_text()),
        files=files,
    )
    spec = GoldenSpec(
        requests=len(goldens),
        items=len(items),
        texts=sum(item.new is not None for item in items),
        made_from=made_from(json.loads(manifest.model_dump_json())),
    )
    return manifest.model_copy(update={"goldens": spec})


def _hash_files(folder: Path) -> dict[str, FileEntry]:
    entries = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        entries[path.relative_to(folder).as_posix()] = FileEntry(sha256=digest, bytes=path.stat().st_size)
    return entries
