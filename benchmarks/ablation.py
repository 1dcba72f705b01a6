"""What is each part worth? One configuration, and the same with one part left out or exchanged.

    python benchmarks/ablation.py --data DIR --releases DIR [--preset demo] [--set section.key=value …] [--only PART …]
    python benchmarks/ablation.py --planted [--seeds 0,1,2] [--work var/planted]

Every variant is a run of the pipeline up to `evaluate`, all in one `--releases` folder, so that a stage whose settings
did not change is not run again; the fusion weights are chosen anew for each. Prints NDCG@10 and HR@10 of the fused list
on the test split, and the paired difference to the whole model, with 95% bootstrap intervals over users; ends in one
JSON line.

`--planted` asks what the group vector is for: demo shops, in which every shopper has a category that the shopper never
touched and the hidden group likes. For each seed a shop, and two models of that seed that differ in
`model.group_vector` alone, both trained for all epochs (`train.patience=0`: early stopping would keep different ones);
the gain is the difference in the share of the top 10 that lies in the planted category, shopper by shopper. The fused
list stands there three times: with the weights that each model's validation chose, and both models' with one's weights.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from isrf.bundle import FusionWeights
from isrf.fusion import CHANNELS, Candidates, fuse
from isrf.metrics import Interval, bootstrap_difference, bootstrap_mean, hit_rate, ndcg, ranks_of
from offline.command_line import configured
from offline.config import RunConfig
from offline.context import StageContext
from offline.demo_shop import PlantedInterest, generate
from offline.evaluate.lists import View, candidates_of, read_lists
from offline.evaluate.questions import full_ranking
from offline.evaluate.split import Split, load_split
from offline.evaluate.stage import recommender_of
from offline.pipeline import run_until

CUTOFF = 10
SAMPLES = 1000
WHOLE = "whole model"
DECODER_LAYERS = (1, 2, 4, 6)
VARIANTS: dict[str, tuple[str, ...]] = {
    WHOLE: (),
    "without semantic features (no text)": ("embed.encoder=no-text",),
    "without the group vector": ("model.group_vector=false",),
    "without the explicit vector": ("model.explicit_vector=false",),
    "without alignment": ("train.alignment_weight=0",),
    "without the dense path": ("train.dense_weight=0", "evaluate.without=dense"),
    "without the generative path": ("train.generation_weight=0", "evaluate.without=generative"),
    **{f"without the {name} channel": (f"evaluate.without={name}",) for name in CHANNELS[2:]},
    "without the ranker": ("evaluate.ranker=false",),
    "semantic IDs from text alone": ("semantic_ids.text_share=1",),
    "semantic IDs from LightGCN alone": ("semantic_ids.text_share=0",),
    **{f"decoder layers: {count}": (f"model.num_decoder_layers={count}",) for count in DECODER_LAYERS},
}
GROUP_VECTOR = "model.group_vector"
ARMS = {"with": "true", "without": "false"}
PLANTED_LISTS = ("fused", "dense", "generative")
ONE_WEIGHTS = {arm: f"fused, weights of {arm}" for arm in ARMS}


class Measured(NamedTuple):
    """What one variant answers."""

    outputs: Mapping[str, Path]  # of every stage
    config: RunConfig
    test: Split
    lists: dict[str, NDArray[np.int64]]  # by name (R, LIST_LENGTH), in the order of the split's users

    @property
    def fusion(self) -> FusionWeights:
        """The weights that validation chose."""
        return FusionWeights.model_validate_json((self.outputs["evaluate"] / "fusion.json").read_bytes())


def measure(data: Path, releases: Path, config: RunConfig, note: Callable[[str], None]) -> Measured:
    """Runs what has not run yet."""
    with Progress(console=Console(stderr=True), transient=True) as progress:
        outputs = run_until(
            "evaluate",
            data=data,
            releases=releases,
            config=config,
            progress=progress,
            report=note,
            kept_outputs=2 * len(VARIANTS),
        )
    lists = {name: np.load(outputs["evaluate"] / f"test_{name}.npy").astype(np.int64) for name in PLANTED_LISTS}
    return Measured(outputs, config, load_split(outputs["ingest"], "test"), lists)


def compare(variants: Mapping[str, Measured]) -> dict[str, dict[str, object]]:
    """Figures of every variant and its difference to the whole model, user by user."""
    values = {name: ndcg(ranks_of(one.lists["fused"], one.test.targets), CUTOFF) for name, one in variants.items()}
    rows: dict[str, dict[str, object]] = {}
    for name, one in variants.items():
        hits = hit_rate(ranks_of(one.lists["fused"], one.test.targets), CUTOFF)
        rows[name] = {
            "NDCG@10": _rounded(bootstrap_mean(values[name], samples=SAMPLES, seed=0)),
            "HR@10": _rounded(bootstrap_mean(hits, samples=SAMPLES, seed=0)),
            **{
                f"{path}_NDCG@10": round(float(ndcg(ranks_of(one.lists[path], one.test.targets), CUTOFF).mean()), 5)
                for path in ("dense", "generative")
            },
            "fusion": one.fusion.weights,
        }
        if name != WHOLE:
            paired = bootstrap_difference(values[name], values[WHOLE], samples=SAMPLES, seed=0)
            rows[name]["minus_whole"] = _rounded(paired)
    return rows


def planted_share(
    lists: NDArray[np.int64], category: NDArray[np.str_], wanted: NDArray[np.str_]
) -> NDArray[np.float64]:
    """Of each user's first ten places the share whose item is of the wanted category; lists (R, n), wanted (R,)."""
    top = lists[:, :CUTOFF]
    return np.mean((category[np.maximum(top, 0)] == wanted[:, None]) & (top >= 0), axis=1)


def planted_gain(seeds: list[int], work: Path, settings: list[str], note: Callable[[str], None]) -> dict[str, object]:
    """Per list the share of the planted category with and without the group vector, and the gain over all seeds."""
    names = (*PLANTED_LISTS, *ONE_WEIGHTS.values())
    shares: dict[str, list[list[NDArray[np.float64]]]] = {name: [] for name in names}
    for seed in seeds:
        shop = work / f"shop-{seed}"
        truth = {one.user_id: one for one in generate(shop, seed=seed)}
        pair = {}
        for arm, reads in ARMS.items():
            alike = (f"seed={seed}", "train.patience=0", f"{GROUP_VECTOR}={reads}")
            config = configured("demo", None, [*settings, *alike], {})
            note(f"seed {seed}, {GROUP_VECTOR}={reads}")
            pair[arm] = measure(shop, work / f"releases-{seed}", config, note)
        weights = {ONE_WEIGHTS[arm]: one.fusion for arm, one in pair.items()}
        lists = [one.lists | _fused_with(weights, one) for one in pair.values()]
        for name, rows in shares.items():
            rows.append([_shares(one, given[name], truth) for one, given in zip(pair.values(), lists, strict=True)])
    return {name: _gain(rows) for name, rows in shares.items()}


def _fused_with(weights: Mapping[str, FusionWeights], one: Measured) -> dict[str, NDArray[np.int64]]:
    """The test users' fused lists by each of the given weights, without a ranker."""

    def view(fusion: FusionWeights) -> View:
        def items(candidates: Candidates) -> NDArray[np.int64]:
            return fuse(candidates, fusion).items

        return items

    with tempfile.TemporaryDirectory() as folder, Progress(disable=True) as progress:
        out = Path(folder)
        recommender = recommender_of(
            StageContext(data=out, inputs=one.outputs, out=out, scratch=out, config=one.config, progress=progress)
        )
        num_items = len(recommender.tables.popularity)
        question = full_ranking(one.test, num_items, tie_seed=one.config.ingest.shuffle_ties)
        source = candidates_of(recommender, one.test, question, progress=progress, title="one set of weights")
        return read_lists(source, len(one.test.users), {name: view(fusion) for name, fusion in weights.items()})


def _shares(one: Measured, lists: NDArray[np.int64], truth: Mapping[str, PlantedInterest]) -> NDArray[np.float64]:
    ingest = one.outputs["ingest"]
    user_ids = pl.read_parquet(ingest / "users.parquet")["user_id"].to_list()
    leaves = pl.read_parquet(ingest / "items.parquet")["categories"].list.last().to_numpy().astype(np.str_)
    wanted = np.array([truth[user_ids[user]].untouched_category for user in one.test.users.tolist()])
    return planted_share(lists, leaves, wanted)


def _gain(shares: list[list[NDArray[np.float64]]]) -> dict[str, object]:
    """Shares by seed and arm (with, without), shopper by shopper → their means and the paired gain."""
    having, lacking = (np.concatenate([pair[arm] for pair in shares]) for arm in (0, 1))
    return {
        "with": round(float(having.mean()), 5),
        "without": round(float(lacking.mean()), 5),
        "gain": _rounded(bootstrap_difference(having, lacking, samples=SAMPLES, seed=0)),
        "gain_by_seed": [round(float((pair[0] - pair[1]).mean()), 5) for pair in shares],
    }


def _rounded(interval: Interval) -> list[float]:
    return [round(value, 5) for value in interval]


def _cell(interval: object) -> str:
    if not isinstance(interval, list):
        return ""
    mean, low, high = interval
    return f"{mean:+.4f} ({low:+.4f} … {high:+.4f})" if low < 0 or mean < 0 else f"{mean:.4f} ({low:.4f} … {high:.4f})"


def show(rows: Mapping[str, Mapping[str, object]], columns: Mapping[str, str], title: str) -> None:
    table = Table("", *columns, title=title, title_justify="left")
    for name, row in rows.items():
        cells = [row.get(key, "") for key in columns.values()]
        table.add_row(
            name, *(_cell(cell) if isinstance(cell, list) and len(cell) == 3 else str(cell) for cell in cells)
        )
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--releases", type=Path, default=Path("var/ablation"), help="kept between runs")
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--config", type=Path, help="TOML file, as `python -m offline run` takes it")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE", help="for all")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PART", help="variants whose name has PART in it"
    )
    parser.add_argument("--planted", action="store_true", help="the group vector's gain on the demo shop")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--work", type=Path, default=Path("var/planted"))
    arguments = parser.parse_args()

    def note(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    result: dict[str, object]
    if arguments.planted:
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
        rows = planted_gain(seeds, arguments.work, arguments.settings, note)
        columns = {"with": "with", "without": "without", "gain": "gain", "by seed": "gain_by_seed"}
        show(rows, columns, f"share of the top {CUTOFF} in the planted category · seeds {arguments.seeds}")  # type: ignore[arg-type]
        result = {"benchmark": "planted", "seeds": seeds, "settings": arguments.settings, "rows": rows}
    else:
        if arguments.data is None:
            parser.error("--data is missing")
        wanted = {
            name: settings
            for name, settings in VARIANTS.items()
            if name == WHOLE or not arguments.only or any(part in name for part in arguments.only)
        }
        measured = {}
        for name, settings in wanted.items():
            note(name)
            config = configured(arguments.preset, arguments.config, [*arguments.settings, *settings], {})
            measured[name] = measure(arguments.data, arguments.releases, config, note)
        compared = compare(measured)
        columns = {
            "NDCG@10 (95%)": "NDCG@10",
            "HR@10 (95%)": "HR@10",
            "dense": "dense_NDCG@10",
            "generative": "generative_NDCG@10",
            "NDCG@10 − whole (95%)": "minus_whole",
        }
        num_users = len(measured[WHOLE].test.users)
        show(compared, columns, f"{arguments.data.name} · {arguments.preset} · test · {num_users} users")
        result = {
            "benchmark": "ablation",
            "data": arguments.data.name,
            "preset": arguments.preset,
            "settings": arguments.settings,
            "users": num_users,
            "rows": compared,
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
