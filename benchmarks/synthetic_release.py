"""Makes a release with random weights to measure the cost of serving, which depends on sizes, not on the weights.

    python benchmarks/synthetic_release.py --releases DIR --preset small --data SHOP
    python benchmarks/synthetic_release.py --releases DIR --preset mini --items 1000000 --users 200000

With `--data` the stages before training run on a shop's data, so histories, trie, graphs and evidence lists are real.
With `--items` a seed generates all of them; similar items and users form groups as in a real shop, since the cost of
searching many of them depends on it. The model's weights are random, the fusion weights are the default, nothing is
evaluated and the manifest says so. The bundle is exported, verified and published like any other.
"""

import argparse
import importlib
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from isrf.contract.manifest import TEXT_ENCODER_DIR, ItemSearchSpec
from isrf.method.evidence import SparseLists, user_item_lists
from isrf.method.interest import FloatArray, unit_rows
from isrf.method.ranking.fusion import DEFAULT_FUSION
from offline.cli import configured, progress_bars
from offline.commands.publish import publish
from offline.config import RunConfig
from offline.context import WORK_DIR, StageContext
from offline.pipeline import STAGES, run_until
from offline.runtime.evidence import Counted, TimedEvents, count_evidence, load_lists, save_lists
from offline.runtime.live_base import count_live_base, live_arrays
from offline.stages.embed.text_files import write_text_encoder
from offline.stages.embed.tfidf import fit_tfidf
from offline.stages.evaluate.stage import LIVE_EVIDENCE_SPEC
from offline.stages.export_onnx.item_hnsw import ITEM_SEARCH_FILE, item_search_of
from offline.stages.graph.cells import divide
from offline.stages.train.build import SPEC_FILE, WEIGHTS_FILE, load_parts, new_model

EVENTS_PER_USER = 8
LIST_LENGTH = 20
"""Entries per row of a random evidence list; a trained shop's rows have up to 100, most of them fewer."""

ITEM_GROUPS = ((24, 0.38), (240, 0.54), (2_400, 0.66), (24_000, 0.76))
"""Numbers of groups of similar items, each within those before, and a vector's mean cosine to its group's centre. The
first two are those of Amazon Beauty's 12,101 items (LightGCN's vectors, by k-means; its texts have 0.39 and 0.73). The
others go on alike: a larger catalogue is the same shop with more items between those that it had."""
USER_GROUPS = ((56, 0.53), (447, 0.65), (3_570, 0.75))
"""The same of Beauty's 22,363 users."""
SMALLEST_GROUP = 40
HISTORY_GROUPS = 2_400
"""A user takes items of one of about so many groups. Their vectors have a mean cosine of 0.44, or of 0.29 in a small
catalogue, whose groups are less alike; in Beauty they have 0.39."""

ITEM_SEARCH = ItemSearchSpec(dense_ef=256, explicit_ef=128)
"""As in the trained release of Beauty: with random weights a query is near no item, so measuring would mislead."""

PROTOCOL = "none: the weights are random"
WORDS = ("red", "blue", "warm", "light", "soft", "steel", "glass", "kitchen", "garden", "travel", "night", "kids")


class Sizes(NamedTuple):
    """The size of a generated shop."""

    num_items: int
    num_users: int


def random_stages(folder: Path, sizes: Sizes, config: RunConfig) -> dict[str, Path]:
    """Generates the outputs of ingest, reason, embed, graph and semantic-ids from the seed, in their formats."""
    stages = {name: folder / name for name in ("ingest", "reason", "embed", "graph", "semantic-ids")}
    for path in stages.values():
        path.mkdir(parents=True)
    rng = np.random.default_rng(config.seed)
    _draw_shop(stages, sizes, rng)
    _draw_texts(stages["embed"], sizes, config, rng)
    _draw_graphs(stages["graph"], sizes, config, rng)
    _draw_semantic_ids(stages["semantic-ids"], sizes, config, rng)
    return stages


def _draw_shop(stages: dict[str, Path], sizes: Sizes, rng: np.random.Generator) -> None:
    num_items, num_users = sizes
    words = rng.choice(WORDS, (num_items, 3))
    titles = pl.Series([" ".join(row) for row in words.tolist()])
    nothing = pl.lit(None, pl.String)
    pl.DataFrame({"item_id": [f"item-{row}" for row in range(num_items)], "title": titles}).select(
        "item_id",
        "title",
        brand=pl.Series(rng.choice(WORDS, num_items).tolist()),
        categories=pl.Series([[word] for word in words[:, 0].tolist()]),
        description=nothing,
        price=pl.Series(rng.uniform(1, 100, num_items).round(2)),
        metadata=nothing,
        group_id=nothing,
    ).write_parquet(stages["ingest"] / "items.parquet")
    pl.DataFrame({"user_id": [f"user-{row}" for row in range(num_users)]}).write_parquet(
        stages["ingest"] / "users.parquet"
    )
    items = _draw_histories(sizes, rng)
    frame = pl.DataFrame(
        {
            "user_index": np.repeat(np.arange(num_users, dtype=np.int32), EVENTS_PER_USER + 2),
            "item_index": items.ravel(),
            "timestamp": np.tile(np.arange(EVENTS_PER_USER + 2, dtype=np.float64), num_users),
        }
    ).with_columns(event=pl.lit("purchase"), weight=1.0)
    position = pl.col("timestamp")
    frame.filter(position < EVENTS_PER_USER).write_parquet(stages["ingest"] / "train.parquet")
    split = pl.when(position == EVENTS_PER_USER).then(pl.lit("valid")).otherwise(pl.lit("test"))
    held_out = frame.filter(position >= EVENTS_PER_USER).with_columns(split=split)
    held_out.write_parquet(stages["ingest"] / "heldout.parquet")
    frame.clear().select("user_index", "item_index").write_parquet(stages["ingest"] / "excluded.parquet")
    name = f"synthetic {num_items} items {num_users} users"
    last_timestamp = float(EVENTS_PER_USER + 2)
    report: dict[str, Any] = {"fingerprint": name, "order_fingerprint": name, "events_through": last_timestamp}
    report["event_weights"] = {"purchase": 1.0}
    report["counts"] = {"valid": num_users, "sessions": 0}
    report["learning"] = {"targets": num_users * (EVENTS_PER_USER - 1), "longest": EVENTS_PER_USER + 2}
    report["learned_until"] = {"events": last_timestamp, "items": last_timestamp}
    (stages["ingest"] / "report.json").write_text(json.dumps(report))
    features = pl.DataFrame({"item_index": np.arange(num_items, dtype=np.int32), "feature": titles})
    origin = pl.lit("attribute").alias("origin")
    empty_texts = [nothing.alias(name) for name in ("positive", "negative", "justification")]
    features.with_columns(*empty_texts, origin).write_parquet(stages["reason"] / "item_features.parquet")
    pl.DataFrame({"user_index": np.arange(num_users, dtype=np.int32)}).with_columns(
        *[nothing.alias(name) for name in ("likes", "dislikes", "core")], origin
    ).write_parquet(stages["reason"] / "user_features.parquet")


def _draw_histories(sizes: Sizes, rng: np.random.Generator) -> NDArray[np.int32]:
    """(U, events) item rows: a user takes items of one group, once each."""
    num_items, num_users = sizes
    size = max(num_items // HISTORY_GROUPS, min(SMALLEST_GROUP, num_items))
    # Squares of a uniform draw give few groups most of the events.
    groups = (rng.random((num_users, 1)) ** 2 * -(-num_items // size)).astype(np.int64)
    step = max(size // (EVENTS_PER_USER + 2), 1)
    within = (rng.integers(0, size, (num_users, 1)) + step * np.arange(EVENTS_PER_USER + 2)) % size
    members = np.argsort(_group_places(num_items))
    histories: NDArray[np.int32] = members[(groups * size + within) % num_items].astype(np.int32)
    return histories


def _group_places(count: int) -> NDArray[np.int64]:
    """(count,) each row's place where rows of a group lie beside each other; the same in every call."""
    return np.random.default_rng(0).permutation(count)


def _rows(rng: np.random.Generator, count: int, width: int) -> FloatArray:
    return unit_rows(rng.standard_normal((count, width), dtype=np.float32))


def _grouped_rows(
    rng: np.random.Generator, count: int, width: int, groups: tuple[tuple[int, float], ...] = ITEM_GROUPS
) -> FloatArray:
    """Rows in groups within larger groups, which are the same rows' in every call."""
    rows, left = np.zeros((count, width), dtype=np.float32), 1.0
    places = _group_places(count)
    for num_groups, cosine in groups:
        size = count // num_groups
        if size < SMALLEST_GROUP:
            break
        share = cosine**2 - (1.0 - left)
        rows += np.float32(share**0.5) * _rows(rng, -(-count // size), width)[places // size]
        left -= share
    return unit_rows(rows + np.float32(left**0.5) * _rows(rng, count, width))


def _draw_texts(folder: Path, sizes: Sizes, config: RunConfig, rng: np.random.Generator) -> None:
    np.save(folder / "item_text.npy", _grouped_rows(rng, sizes.num_items, config.embed.dim))
    encoder = fit_tfidf([{"title": f"{a} {b}"} for a in WORDS for b in WORDS], dim=config.embed.dim, seed=config.seed)
    write_text_encoder(folder / TEXT_ENCODER_DIR, encoder)
    save_lists(folder / "evidence", {"content": _random_lists(rng, sizes.num_items)})


def _draw_graphs(folder: Path, sizes: Sizes, config: RunConfig, rng: np.random.Generator) -> None:
    num_items, num_users = sizes
    width, text_width = config.graph.dim, config.embed.dim
    features = _grouped_rows(rng, num_users, text_width + width, USER_GROUPS).astype(np.float16)
    embeddings = _grouped_rows(rng, num_items, width)
    arrays: dict[str, NDArray[np.generic]] = {
        "item_layers": embeddings,
        "item_embeddings": embeddings,
        "feature_map": np.eye(text_width, dtype=np.float32),
        "user_features": features,
        "group_layers": _rows(rng, num_users, width).astype(np.float16),
    }
    # These limits make all users similar, so each has the largest number of neighbours.
    search = {"threshold": 0.7, "background_cosine": -1.0, "nearest_cosine": 0.0}
    search |= {"max_neighbours": config.graph.max_neighbours, "min_neighbours": config.graph.min_neighbours}
    if num_users >= config.graph.cells_from:
        cells = divide(features.astype(np.float32), features, config.graph.max_neighbours + 1, seed=config.seed).cells
        arrays |= {"user_cells": cells.cells, "user_centroids": cells.centroids}
        search |= {"probes": cells.probes}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "group_search.json").write_text(json.dumps(search))


def _draw_semantic_ids(folder: Path, sizes: Sizes, config: RunConfig, rng: np.random.Generator) -> None:
    levels, size = config.semantic_ids.levels, config.semantic_ids.codebook_size
    numbers = np.unique(rng.integers(0, size**levels, 2 * sizes.num_items))
    numbers = rng.permutation(numbers)[: sizes.num_items]
    powers = size ** np.arange(levels - 1, -1, -1)
    np.save(folder / "semantic_ids.npy", (numbers[:, None] // powers % size).astype(np.int32))
    width = config.embed.dim + config.graph.dim
    np.save(folder / "codebooks.npy", rng.standard_normal((levels, size, width), dtype=np.float32))
    (folder / "report.json").write_text(json.dumps({"levels": [{"codes_trained": size}] * levels}))


def _random_lists(rng: np.random.Generator, num_items: int) -> SparseLists:
    indices = rng.integers(0, num_items, (num_items, LIST_LENGTH), dtype=np.int32)
    weights = np.full(num_items * LIST_LENGTH, 1 / LIST_LENGTH, dtype=np.float32)
    return SparseLists(np.arange(num_items + 1, dtype=np.int64) * LIST_LENGTH, indices.ravel(), weights)


def _write_random_model(out: Path, stages: dict[str, Path], config: RunConfig) -> None:
    torch.manual_seed(config.seed)
    widths = {f"{name}_dim": config.graph.dim for name in ("explicit", "group")}
    model = new_model(config, load_parts(stages), **widths)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, out / WEIGHTS_FILE)
    (out / SPEC_FILE).write_text(model.spec.model_dump_json())


def _write_evidence(out: Path, stages: dict[str, Path], config: RunConfig, *, drawn: bool) -> None:
    num_users = len(np.load(stages["graph"] / "group_layers.npy", mmap_mode="r"))
    if drawn:
        counted = _random_evidence(stages, num_users, config)
    else:
        counted = count_evidence(stages, num_users=num_users, config=config.evidence)
    save_lists(out / "evidence", counted.lists)
    np.save(out / "popularity.npy", counted.popularity)
    events = TimedEvents.of(pl.read_parquet(stages["ingest"] / "train.parquet"))
    live_base = count_live_base(counted, events, config=config.evidence)
    if live_base is not None:
        for name, array in live_arrays(live_base).items():
            np.save(out / name, array)
        (out / LIVE_EVIDENCE_SPEC).write_text(live_base.spec.model_dump_json())
    (out / "fusion.json").write_text(DEFAULT_FUSION.model_dump_json())
    (out / "evaluation.json").write_text(json.dumps({"protocol": PROTOCOL}))


def _random_evidence(stages: dict[str, Path], num_users: int, config: RunConfig) -> Counted:
    """Works as `count_evidence` with random item-to-item lists, because counting them takes minutes at this size."""
    train = pl.read_parquet(stages["ingest"] / "train.parquet")
    users, items = (train[name].to_numpy().astype(np.int64) for name in ("user_index", "item_index"))
    content = load_lists(stages["embed"] / "evidence")["content"]
    num_items, rng = len(content.indptr) - 1, np.random.default_rng(config.seed)
    lists = {name: _random_lists(rng, num_items) for name in ("transition", "cooccurrence")}
    lists |= {"content": content, "user_items": user_item_lists(users, items, num_users=num_users)}
    totals = {name: np.ones(num_items, np.float32) for name in ("transition", "cooccurrence")}
    return Counted(lists, np.bincount(items, minlength=num_items).astype(np.float32), totals)


def make(releases: Path, config: RunConfig, *, data: Path | None, sizes: Sizes | None) -> Path:
    """Makes and publishes the release; returns its folder."""
    work = releases / WORK_DIR / "synthetic"
    shutil.rmtree(work, ignore_errors=True)
    with progress_bars() as progress:
        if data is not None:
            stages = run_until("semantic-ids", data=data, releases=releases, config=config, progress=progress)
        else:
            assert sizes is not None
            stages = random_stages(work, sizes, config)
        for name in ("train", "compile", "evaluate", "export"):
            out = work / name
            out.mkdir(parents=True)
            if name == "train":
                _write_random_model(out, stages, config)
            elif name == "evaluate":
                _write_evidence(out, stages, config, drawn=data is None)
            else:
                stage = importlib.import_module(STAGES[name].module)
                stage.run(
                    StageContext(
                        data=data or work, inputs=stages, out=out, scratch=work, config=config, progress=progress
                    )
                )
            if item_search_of(out) is not None:
                (out / ITEM_SEARCH_FILE).write_text(ITEM_SEARCH.model_dump_json())
            stages[name] = out
    target = publish(stages["export"], releases)
    shutil.rmtree(work)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--releases", type=Path, required=True)
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--items", type=int)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    if (arguments.data is None) == (arguments.items is None):
        parser.error("pass either --data or --items")
    arguments.releases.mkdir(parents=True, exist_ok=True)
    config = configured(arguments.preset, None, arguments.settings, {})
    sizes = None if arguments.items is None else Sizes(arguments.items, arguments.users)
    print(make(arguments.releases, config, data=arguments.data, sizes=sizes))


if __name__ == "__main__":
    main()
