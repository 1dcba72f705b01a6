"""Measures the gain of the group vector on demo shops, where only a shopper's hidden group predicts a category.

    python benchmarks/planted.py [--seeds 0,1,2] [--set section.key=value …] [--work var/planted]

Every seed gives one shop and two models that differ in `model.group_vector` alone. Both train for all epochs
(`train.patience=0`, because early stopping could keep different epochs). The gain is the paired difference in the share
of the top 10 in the planted category, with 95% bootstrap intervals over shoppers. The fused list appears three times:
once with the weights that each model's validation chose, and twice with one model's weights for both. Ends in one JSON
line.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from ablation import recommender_from
from intervals import DIGITS, rounded, show
from numpy.typing import NDArray
from rich.progress import Progress

from isrf.contract.manifest import FusionWeights
from isrf.method.metrics import bootstrap_difference
from isrf.method.ranking.fusion import Candidates, fuse
from offline.cli import configured, progress_bars
from offline.commands.demo_shop.generate import generate
from offline.commands.demo_shop.shoppers import PlantedInterest
from offline.config import RunConfig
from offline.pipeline import run_until
from offline.stages.evaluate.lists import View, candidates_of, read_lists
from offline.stages.evaluate.questions import full_ranking
from offline.stages.evaluate.split import EvaluationSplit, load_split

CUTOFF = 10
SAMPLES = 1000
GROUP_VECTOR = "model.group_vector"
ARMS = {"with": "true", "without": "false"}
LISTS = ("fused", "dense", "generative")
ONE_WEIGHTS = {arm: f"fused, weights of {arm}" for arm in ARMS}


class Measured(NamedTuple):
    """One model's outputs and test lists."""

    outputs: Mapping[str, Path]  # of every stage
    config: RunConfig
    test: EvaluationSplit
    lists: dict[str, NDArray[np.int64]]  # by name (R, LIST_LENGTH), in the order of the split's users

    @property
    def fusion(self) -> FusionWeights:
        """Returns the fusion weights that validation chose."""
        return FusionWeights.model_validate_json((self.outputs["evaluate"] / "fusion.json").read_bytes())


def measure(data: Path, releases: Path, config: RunConfig, note: Callable[[str], None]) -> Measured:
    """Runs the missing stages and reads the model's test lists."""
    with progress_bars() as progress:
        outputs = run_until("evaluate", data=data, releases=releases, config=config, progress=progress, report=note)
    lists = {name: np.load(outputs["evaluate"] / f"test_{name}.npy").astype(np.int64) for name in LISTS}
    return Measured(outputs, config, load_split(outputs["ingest"], "test"), lists)


def planted_share(
    lists: NDArray[np.int64], category: NDArray[np.str_], planted_categories: NDArray[np.str_]
) -> NDArray[np.float64]:
    """Returns the share of each user's top 10 in the planted category; `lists` is (R, n), the categories (R,)."""
    top = lists[:, :CUTOFF]
    share: NDArray[np.float64] = np.mean(
        (category[np.maximum(top, 0)] == planted_categories[:, None]) & (top >= 0), axis=1
    )
    return share


def planted_gain(
    seeds: list[int], work: Path, settings: list[str], note: Callable[[str], None]
) -> dict[str, dict[str, object]]:
    """Returns, per list, the share with and without the group vector, and the gain over all seeds."""
    names = (*LISTS, *ONE_WEIGHTS.values())
    shares: dict[str, list[list[NDArray[np.float64]]]] = {name: [] for name in names}
    for seed in seeds:
        shop = work / f"shop-{seed}"
        truth = {one.user_id: one for one in generate(shop, seed=seed)}
        pair = {}
        for arm, reads in ARMS.items():
            shared = (f"seed={seed}", "train.patience=0", f"{GROUP_VECTOR}={reads}")
            config = configured("demo", None, [*settings, *shared], {})
            note(f"seed {seed}, {GROUP_VECTOR}={reads}")
            pair[arm] = measure(shop, work / f"releases-{seed}", config, note)
        weights = {ONE_WEIGHTS[arm]: one.fusion for arm, one in pair.items()}
        lists = [one.lists | _fused_with(weights, one) for one in pair.values()]
        for name, rows in shares.items():
            rows.append(
                [_shares(one, model_lists[name], truth) for one, model_lists in zip(pair.values(), lists, strict=True)]
            )
    return {name: _gain(rows) for name, rows in shares.items()}


def _fused_with(weights: Mapping[str, FusionWeights], measured: Measured) -> dict[str, NDArray[np.int64]]:
    """Returns the test users' fused lists for each set of weights, without a ranker."""

    def view(fusion: FusionWeights) -> View:
        def items(candidates: Candidates) -> NDArray[np.int64]:
            return fuse(candidates, fusion, explained=0).items

        return items

    with (
        Progress(disable=True) as progress,
        recommender_from(measured.outputs, measured.config, progress) as recommender,
    ):
        num_items = len(recommender.tables.popularity)
        question = full_ranking(measured.test, num_items, tie_seed=measured.config.ingest.shuffle_ties)
        source = candidates_of(recommender, measured.test, question, progress=progress, title="one set of weights")
        return read_lists(source, len(measured.test.users), {name: view(fusion) for name, fusion in weights.items()})


def _shares(measured: Measured, lists: NDArray[np.int64], truth: Mapping[str, PlantedInterest]) -> NDArray[np.float64]:
    ingest = measured.outputs["ingest"]
    user_ids = pl.read_parquet(ingest / "users.parquet")["user_id"].to_list()
    leaves = pl.read_parquet(ingest / "items.parquet")["categories"].list.last().to_numpy().astype(np.str_)
    planted_categories = np.array([truth[user_ids[user]].untouched_category for user in measured.test.users.tolist()])
    return planted_share(lists, leaves, planted_categories)


def _gain(shares: list[list[NDArray[np.float64]]]) -> dict[str, object]:
    """Returns the mean shares and the paired gain, from shares by seed and arm (with, without)."""
    with_group, without_group = (np.concatenate([pair[arm] for pair in shares]) for arm in (0, 1))
    return {
        "with": round(float(with_group.mean()), DIGITS),
        "without": round(float(without_group.mean()), DIGITS),
        "gain": rounded(bootstrap_difference(with_group, without_group, samples=SAMPLES, seed=0)),
        "gain_by_seed": [round(float((pair[0] - pair[1]).mean()), DIGITS) for pair in shares],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument(
        "--set", action="append", default=[], dest="settings", metavar="KEY=VALUE", help="a setting for both models"
    )
    parser.add_argument("--work", type=Path, default=Path("var/planted"), help="folder that is kept between runs")
    arguments = parser.parse_args()

    def note(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    rows = planted_gain(seeds, arguments.work, arguments.settings, note)
    columns = {"with": "with", "without": "without", "gain": "gain", "by seed": "gain_by_seed"}
    show(rows, columns, f"share of the top {CUTOFF} in the planted category · seeds {arguments.seeds}")
    print(json.dumps({"benchmark": "planted", "seeds": seeds, "settings": arguments.settings, "rows": rows}))


if __name__ == "__main__":
    main()
