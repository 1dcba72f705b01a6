"""Measures the engine `ray` with workers on this machine against the engine `local`: embedding and evaluation.

    python benchmarks/ray_engine.py --data DIR --work DIR [--preset demo] [--rounds 2] [--workers 2]

Runs all stages up to `compile` once, into `--work`, where a second call finds them. Then the stages `embed` and
`evaluate` run by turns with both engines, each time in a new folder. Their outputs must be equal to the byte. Prints
the machine and one JSON line: seconds and CPU seconds of each (of all processes, the cluster's included), the median
ratio of ray to local, and what a start of the cluster took, which is in neither.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from machine import machine
from rich.progress import Progress

from offline.config import RunConfig, build_config
from offline.context import StageContext
from offline.engine.choose import open_engine
from offline.engine.cluster import import_ray
from offline.engine.engine import StageEngine
from offline.engine.local import LOCAL
from offline.pipeline import run_until
from offline.stages.embed import stage as embed
from offline.stages.evaluate import stage as evaluate

STAGES = {"embed": embed, "evaluate": evaluate}


class Round(NamedTuple):
    seconds: dict[str, float]
    cpu_s: float
    files: dict[str, bytes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--preset", choices=["demo", "mini", "small"], default="demo")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    options = parser.parse_args()
    config = build_config(options.preset, None, tuple(options.assignments))
    with Progress(disable=True) as progress:
        inputs = run_until(
            "compile", data=options.data, releases=options.work, config=config, progress=progress, report=print
        )
    ray = import_ray()
    began = time.monotonic()
    ray.init(
        address="local",
        num_cpus=options.workers,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        logging_level="ERROR",
    )
    start_s = time.monotonic() - began
    rounds: dict[str, list[Round]] = {"local": [], "ray": []}
    with open_engine("ray") as remote:
        for _ in range(options.rounds):
            for name, engine in (("local", LOCAL), ("ray", remote)):
                rounds[name].append(run_round(engine, inputs, config, options.data))
                print(name, rounds[name][-1].seconds, f"{rounds[name][-1].cpu_s:.0f} CPU s", flush=True)
    ray.shutdown()
    print(machine())
    print(json.dumps(summary(rounds, start_s, options)))


def run_round(engine: StageEngine, inputs: dict[str, Path], config: RunConfig, data: Path) -> Round:
    """Both stages once, in a folder that goes."""
    seconds: dict[str, float] = {}
    before = cpu_s()
    with tempfile.TemporaryDirectory() as folder, Progress(disable=True) as progress:
        for name, stage in STAGES.items():
            out, scratch = Path(folder) / name, Path(folder) / f"{name}.scratch" / "own"
            out.mkdir()
            scratch.mkdir(parents=True)
            began = time.monotonic()
            stage.run(
                StageContext(
                    data=data,
                    inputs=inputs,
                    out=out,
                    scratch=scratch,
                    config=config,
                    progress=progress,
                    engine=engine,
                )
            )
            seconds[name] = round(time.monotonic() - began, 2)
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()
        }
    return Round(seconds, cpu_s() - before, files)


def cpu_s() -> float:
    """CPU seconds of this process and of every one that came from it and still runs."""
    ticks = 0
    parents: dict[int, int] = {}
    times: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        process = int(stat.parent.name)
        parents[process], times[process] = int(fields[1]), sum(map(int, fields[11:15]))
    for process, spent in times.items():
        place = process
        while place in parents and place != own_pid():
            place = parents[place]
        ticks += spent if place == own_pid() else 0
    return ticks / 100.0


def own_pid() -> int:
    return int(Path("/proc/self").resolve().name)


def summary(rounds: dict[str, list[Round]], start_s: float, options: argparse.Namespace) -> dict[str, Any]:
    totals = {name: [sum(one.seconds.values()) for one in some] for name, some in rounds.items()}
    ratios = [there / here for here, there in zip(totals["local"], totals["ray"], strict=True)]
    first = rounds["local"][0].files
    return {
        "preset": options.preset,
        "workers": options.workers,
        "local_s": [one.seconds for one in rounds["local"]],
        "ray_s": [one.seconds for one in rounds["ray"]],
        "local_cpu_s": [round(one.cpu_s, 1) for one in rounds["local"]],
        "ray_cpu_s": [round(one.cpu_s, 1) for one in rounds["ray"]],
        "ratio": round(statistics.median(ratios), 3),
        "cluster_start_s": round(start_s, 1),
        "equal_bytes": all(one.files == first for some in rounds.values() for one in some),
    }


if __name__ == "__main__":
    main()
