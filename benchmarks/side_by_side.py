"""Measures the code of another checkout in turn with this one: its options, medians and ratios, for all benchmarks."""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent.parent


class Measured(NamedTuple):
    """What is measured in turn."""

    code: Path  # a checkout
    releases: Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--releases`, `--against` and `--against-releases`."""
    parser.add_argument("--releases", type=Path, required=True)
    parser.add_argument("--against", type=Path, help="another checkout, measured in turn")
    parser.add_argument("--against-releases", type=Path, help="its releases, if not these")


def measured_in_turn(arguments: argparse.Namespace) -> dict[str, Measured]:
    """This checkout as "here" and, where the arguments name one, another as "against"."""
    found = {"here": Measured(HERE, arguments.releases.resolve())}
    if arguments.against:
        releases = arguments.against_releases or arguments.releases
        found["against"] = Measured(arguments.against.resolve(), releases.resolve())
    return found


def medians_of(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """The median of each figure over the runs of each checkout; with two, their "ratio" (here by against) too."""
    medians = {
        name: {key: round(statistics.median(run[key] for run in found), 2) for key in found[0]}
        for name, found in runs.items()
    }
    if "against" in medians:
        medians["ratio"] = {key: round(value / medians["against"][key], 3) for key, value in medians["here"].items()}
    return medians
