"""Measures what will be served, and chooses the fusion weights: leave-one-out, full ranking, through ONNX Runtime.

As a stage it builds the evidence lists, chooses the weights on a sample of validation users and measures both splits;
`evaluate_release` measures a published release on the shop's data again and can write the lists for an independent
scorer. Histories for the test item include the validation item, as they would when serving.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.progress import Progress

from isrf.bundle import FusionWeights, GroupSearch, Manifest
from isrf.errors import ConfigError, DataError
from isrf.evidence import Evidence
from isrf.fusion import CHANNELS, DEFAULT_FUSION, Candidates, channel_order, choose_weights, fuse
from isrf.interest import IntArray
from isrf.metrics import bootstrap_mean, hit_rate, ndcg, ranks_of
from isrf.order import PURCHASE
from isrf.recommend import RankRequest, Recommender, RecommenderTables
from isrf.trie import build_trie
from offline.config import RunConfig
from offline.context import StageContext
from offline.decoding import decoding_of
from offline.evidence import build_lists, load_lists, save_lists
from offline.neighbours import user_index
from offline.onnx_graphs import open_graph

VERSION = 4
BATCH = 64
LIST_LENGTH = 20
CUTOFFS = (5, 10, 20)


class Split(NamedTuple):
    """The users that a split can ask about, with everything before their held-out item."""

    users: IntArray  # (R,)
    histories: list[list[int]]  # item rows, oldest first
    bought: list[list[int]]  # those of the history that the service takes off the list
    targets: IntArray  # (R,)
    typed: bool  # whether some event of the data is no purchase


def load_split(ingest: Path, split: str) -> Split:
    """Histories and held-out items of `split` ("valid" or "test") from ingest's output."""
    heldout = pl.read_parquet(ingest / "heldout.parquet")
    columns = ["user_index", "item_index", "event"]
    past = pl.read_parquet(ingest / "train.parquet", columns=columns)
    typed = bool((past["event"] != PURCHASE).any() or (heldout["event"] != PURCHASE).any())
    if split == "test":
        past = pl.concat([past, heldout.filter(pl.col("split") == "valid").select(columns)])
    asked = heldout.filter(pl.col("split") == split).sort("user_index")
    if not len(asked):
        raise DataError(
            "evaluate.nothing_held_out",
            f"the data holds out no {split} interaction.",
            fix="Evaluate data with users of three events and more, ingested with --fit train.",
        )
    bought = pl.col("item_index").filter(pl.col("event") == PURCHASE)
    histories = past.group_by("user_index", maintain_order=True).agg("item_index", bought=bought)
    rows = asked.select("user_index").join(histories, on="user_index", how="left", maintain_order="left")
    return Split(
        users=asked["user_index"].to_numpy().astype(np.int64),
        histories=rows["item_index"].to_list(),
        bought=rows["bought"].to_list(),
        targets=asked["item_index"].to_numpy().astype(np.int64),
        typed=typed,
    )


def sample_split(split: Split, count: int, seed: int) -> Split:
    """`count` users of a split, drawn by seed; the whole split where it has no more."""
    if count >= len(split.users):
        return split
    kept = np.sort(np.random.default_rng(seed).choice(len(split.users), count, replace=False))
    return split._replace(
        users=split.users[kept],
        histories=[split.histories[row] for row in kept],
        bought=[split.bought[row] for row in kept],
        targets=split.targets[kept],
    )


def candidates_of(
    recommender: Recommender, split: Split, *, include_seen: bool, progress: Progress, title: str
) -> Iterator[Candidates]:
    """Every user's candidates in turn, a batch at a time."""
    num_items = len(recommender.tables.item_vectors)
    task = progress.add_task(title, total=len(split.users))
    for start in range(0, len(split.users), BATCH):
        histories = split.histories[start : start + BATCH]
        interests = recommender.read(histories, split.users[start : start + BATCH].tolist())
        requests = [
            RankRequest(history=history, n=LIST_LENGTH, allowed=_allowed(bought, num_items, include_seen))
            for history, bought in zip(histories, split.bought[start : start + BATCH], strict=True)
        ]
        output = recommender.search(requests, interests)
        for b, request in enumerate(requests):
            evidence: dict[str, Evidence] = recommender.evidence(request.history, interests.neighbours, b)
            yield recommender.candidates(request, output, interests.explicit[b], evidence, b)
        progress.advance(task, len(histories))
    progress.remove_task(task)


def _allowed(bought: Sequence[int], num_items: int, include_seen: bool) -> NDArray[np.bool_]:
    allowed = np.ones(num_items, dtype=np.bool_)
    if not include_seen:
        allowed[bought] = False
    return allowed


class Lists(NamedTuple):
    """Top `LIST_LENGTH` item rows of every user, −1 where a list is shorter."""

    fused: IntArray  # (R, LIST_LENGTH)
    channels: dict[str, IntArray]


def top_lists(
    recommender: Recommender,
    split: Split,
    fusion: FusionWeights,
    *,
    include_seen: bool,
    progress: Progress,
    title: str,
) -> Lists:
    """Fused lists and every channel's own."""
    shape = (len(split.users), LIST_LENGTH)
    fused = np.full(shape, -1, dtype=np.int64)
    channels = {name: np.full(shape, -1, dtype=np.int64) for name in CHANNELS}
    source = candidates_of(recommender, split, include_seen=include_seen, progress=progress, title=title)
    for row, candidates in enumerate(source):
        best = fuse(candidates, fusion).items[:LIST_LENGTH]
        fused[row, : len(best)] = best
        for column, name in enumerate(CHANNELS):
            own = channel_order(candidates, column)[:LIST_LENGTH]
            channels[name][row, : len(own)] = own
    return Lists(fused, channels)


def measure(lists: IntArray, targets: IntArray, *, samples: int, seed: int) -> dict[str, Any]:
    """HR and NDCG at `CUTOFFS` with 95% bootstrap intervals over users, and how much of the catalogue is shown."""
    ranks = ranks_of(lists, targets)
    result: dict[str, Any] = {}
    for k in CUTOFFS:
        for name, values in (("HR", hit_rate(ranks, k)), ("NDCG", ndcg(ranks, k))):
            mean, low, high = bootstrap_mean(values, samples=samples, seed=seed)
            result[f"{name}@{k}"] = round(mean, 5)
            result[f"{name}@{k}_95"] = [round(low, 5), round(high, 5)]
    top = lists[:, :10]
    result["items_recommended@10"] = len(np.unique(top[top >= 0]))
    return result


def run(ctx: StageContext) -> None:
    """Writes `evidence/`, `popularity.npy`, `fusion.json`, `evaluation.json`."""
    config, out = ctx.config, ctx.out
    train = pl.read_parquet(ctx.inputs["ingest"] / "train.parquet")
    content = load_lists(ctx.inputs["embed"] / "evidence")["content"]
    user_features = np.load(ctx.inputs["graph"] / "user_features.npy")
    lists = build_lists(train, content, num_users=len(user_features), config=config.evidence)
    popularity = np.bincount(train["item_index"].to_numpy(), minlength=len(content.indptr) - 1).astype(np.float32)
    save_lists(out / "evidence", lists)
    np.save(out / "popularity.npy", popularity)

    compiled = ctx.inputs["compile"]
    tables = RecommenderTables(
        trie=build_trie(np.load(ctx.inputs["semantic-ids"] / "semantic_ids.npy"), config.semantic_ids.codebook_size),
        item_inputs=np.load(compiled / "item_inputs.npy"),
        item_vectors=np.load(compiled / "item_vectors.npy"),
        item_embeddings=np.load(ctx.inputs["graph"] / "item_embeddings.npy"),
        group_layers=np.load(ctx.inputs["graph"] / "group_layers.npy"),
        popularity=popularity,
        item_lists={name: lists[name] for name in lists if name != "user_items"},
        user_items=lists["user_items"],
    )
    recommender = Recommender(
        tables,
        decoding=decoding_of(config),
        group_search=GroupSearch.model_validate_json((ctx.inputs["graph"] / "group_search.json").read_bytes()),
        fusion=DEFAULT_FUSION,
        interest_graph=open_graph(compiled / "lightgcn.onnx"),
        search_graph=open_graph(compiled / "recommender.onnx"),
        nearest_users=user_index(user_features),
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
    choice = choose_weights(list(source), valid.targets, start=DEFAULT_FUSION)
    evaluation: dict[str, Any] = {
        "protocol": protocol(config.ingest.shuffle_ties, include_seen=False, typed=valid.typed),
        "weights_chosen_on": {"split": "valid", "users": len(valid.users), "NDCG@10": round(choice.ndcg_at_10, 5)},
    }
    for name in ("valid", "test"):
        split = load_split(ingest, name)
        evaluation[name] = measure_split(recommender, split, choice.fusion, config, ctx.progress, title=name)
    return choice.fusion, evaluation


def measure_split(
    recommender: Recommender, split: Split, fusion: FusionWeights, config: RunConfig, progress: Progress, *, title: str
) -> dict[str, Any]:
    """Fused and single-channel figures of one split, seen items excluded."""
    lists = top_lists(recommender, split, fusion, include_seen=False, progress=progress, title=f"evaluate: {title}")
    return _figures(lists, split, config)


def _figures(lists: Lists, split: Split, config: RunConfig) -> dict[str, Any]:
    def of(own: IntArray) -> dict[str, Any]:
        return measure(own, split.targets, samples=config.evaluate.bootstrap_samples, seed=config.seed)

    return {
        "users": len(split.users),
        "fused": of(lists.fused),
        "channels": {name: of(own) for name, own in lists.channels.items()},
    }


def protocol(tie_seed: int | None, *, include_seen: bool, typed: bool) -> str:
    """The words that stand with every figure; in typed data only purchases are excluded, as in serving."""
    order = "ties in file order" if tie_seed is None else f"ties shuffled with seed {tie_seed}"
    excluded = "bought items excluded" if typed else "seen items excluded"
    seen = "seen items included" if include_seen else excluded
    return f"leave-one-out, full ranking, {order}, {seen}"


def evaluate_release(
    folder: Path,
    data: Path,
    *,
    split: str,
    include_seen: bool,
    predictions: Path | None,
    progress: Progress,
) -> dict[str, Any]:
    """Measures a published release on the shop's data, ordered as the release's was.

    Raises:
        DataError: `evaluate.other_data` where the data is not what the release was made from.
    """
    from offline import ingest
    from offline.release import open_release

    if split not in ("test", "valid"):
        raise ConfigError("config.split", f"{split!r} is no split.", fix="Take test or valid.")
    if predictions is not None:
        predictions.touch()  # a path that cannot be written is better known now than after the work
    release = open_release(folder)
    config = RunConfig.model_validate(release.manifest.config)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "ingest"
        out.mkdir()
        ingest.run(StageContext(data=data, inputs={}, out=out, scratch=Path(scratch), config=config, progress=progress))
        _refuse_other_data(json.loads((out / "report.json").read_text()), release.manifest, data)
        asked = load_split(out, split)
        user_ids = pl.read_parquet(out / "users.parquet")["user_id"].to_list()
    lists = top_lists(
        release.recommender,
        asked,
        release.manifest.fusion,
        include_seen=include_seen,
        progress=progress,
        title=f"evaluate: {split}",
    )
    if predictions is not None:
        write_predictions(predictions, asked, lists.fused, user_ids, release.item_ids)
    return {
        "release_id": release.manifest.release_id,
        "protocol": protocol(release.manifest.tie_seed, include_seen=include_seen, typed=asked.typed),
        "split": split,
        **_figures(lists, asked, config),
    }


def _refuse_other_data(report: dict[str, Any], manifest: Manifest, data: Path) -> None:
    if report["fingerprint"] != manifest.data_fingerprint:
        raise DataError(
            "evaluate.other_data",
            f"{data} is not the data that {manifest.release_id} was made from.",
            fix="Evaluate a release on its own data; row numbers mean nothing in other data.",
        )
    if report["order_fingerprint"] != manifest.order_fingerprint:
        raise DataError(
            "evaluate.other_order",
            f"{data} orders events of equal timestamp otherwise than the data of {manifest.release_id}.",
            fix="Evaluate with the rows in the order that the release was made from: other items would be held out.",
        )


def write_predictions(
    path: Path, split: Split, lists: IntArray, user_ids: Sequence[str], item_ids: Sequence[str]
) -> None:
    """One JSON object a user: `{"user_id", "items"}`, best first."""
    with path.open("w", encoding="utf-8") as file:
        for user, row in zip(split.users.tolist(), lists, strict=True):
            items = [item_ids[item] for item in row.tolist() if item >= 0]
            file.write(json.dumps({"user_id": user_ids[user], "items": items}, ensure_ascii=False) + "\n")
