"""What is each part worth? One configuration, and the same with one part left out or exchanged.

    python benchmarks/ablation.py --data DIR --releases DIR [--preset demo] [--set section.key=value …] [--only PART …]

Every variant is a run of the pipeline up to `compile`, all in one `--releases` folder, so that a stage whose settings
did not change is not run again. Fusion weights and ranker are chosen anew for each on the validation split, as
`evaluate` chooses them; variants of the same model are read off one run of its search graph. Prints NDCG@10 on the test
split, as served and by log-linear fusion alone, and the paired differences to the whole model, with 95% bootstrap
intervals over users; what another seed makes of the whole model says how large a difference is nobody's doing. Ends in
one JSON line. What the group vector is for is asked by `benchmarks/planted.py`.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from intervals import DIGITS, rounded, show
from numpy.typing import NDArray
from rich.progress import Progress

from isrf.method.interest import FloatArray, IntArray
from isrf.method.metrics import bootstrap_difference, bootstrap_mean, ndcg, ranks_of
from isrf.method.ranking.fusion import CHANNELS, Candidates, channel_order, fuse
from isrf.method.recommend.recommender import Recommender
from offline.cli import configured, progress_bars
from offline.config import RunConfig
from offline.context import StageContext
from offline.pipeline import run_until
from offline.stages.evaluate.lists import FUSED, LOG_LINEAR, Scorer, View, candidates_of, read_lists
from offline.stages.evaluate.questions import full_ranking
from offline.stages.evaluate.split import load_split, sample_rows
from offline.stages.evaluate.stage import recommender_of
from offline.stages.evaluate.weights import ScorerChoice, choose_scorer

CUTOFF = 10
SAMPLES = 1000
WHOLE = "whole model"
DECODER_LAYERS = (1, 2, 4, 6)
VARIANTS: dict[str, tuple[str, ...]] = {
    WHOLE: (),
    "the same, seed 1": ("seed=1",),
    "without semantic features (no text)": ("embed.encoder=no-text",),
    "without the group vector": ("model.group_vector=false",),
    "without the explicit vector": ("model.explicit_vector=false",),
    "without alignment": ("train.alignment_weight=0",),
    "without distillation": ("train.distillation=0",),
    "without the dense path": ("train.dense_weight=0", "evaluate.without=dense"),
    "without the generative path": ("train.generation_weight=0", "evaluate.without=generative"),
    **{f"without the {name} channel": (f"evaluate.without={name}",) for name in CHANNELS[2:]},
    "semantic IDs from text alone": ("semantic_ids.text_share=1",),
    "semantic IDs from LightGCN alone": ("semantic_ids.text_share=0",),
    **{f"decoder layers: {count}": (f"model.num_decoder_layers={count}",) for count in DECODER_LAYERS},
}
PATHS = ("dense", "generative")


class Answered(NamedTuple):
    """What one variant answers to the test split's users (R,)."""

    gains: dict[str, NDArray[np.float64]]  # by list, NDCG@10 of every user (R,)
    found: ScorerChoice


def answer(
    data: Path, releases: Path, configs: Mapping[str, RunConfig], note: Callable[[str], None]
) -> dict[str, Answered]:
    """Every variant's answers, in the order of `configs`; each model is asked once."""
    models: dict[str, dict[str, RunConfig]] = {}
    for name, config in configs.items():
        models.setdefault(config.model_dump_json(exclude={"evaluate"}), {})[name] = config
    answered: dict[str, Answered] = {}
    for variants in models.values():
        note(" · ".join(variants))
        with progress_bars() as progress:
            outputs = run_until(
                "compile",
                data=data,
                releases=releases,
                config=next(iter(variants.values())),
                progress=progress,
                report=note,
                kept_outputs=2 * len(VARIANTS),
            )
            answered |= _ask(outputs, variants, progress)
    return {name: answered[name] for name in configs}


def _ask(outputs: Mapping[str, Path], variants: Mapping[str, RunConfig], progress: Progress) -> dict[str, Answered]:
    """Variants of one model, which differ in what orders its candidates."""
    config = next(iter(variants.values()))
    with recommender_from(outputs, config, progress) as recommender:
        popularity, tie_seed = recommender.tables.popularity, config.ingest.shuffle_ties

        def candidates(split_name: str, count: int | None = None) -> tuple[Iterator[Candidates], IntArray]:
            split = load_split(outputs["ingest"], split_name)
            if count is not None:
                split = split.rows(sample_rows(split, count, config.seed))
            question = full_ranking(split, len(popularity), tie_seed=tie_seed)
            return candidates_of(recommender, split, question, progress=progress, title=split_name), split.targets

        source, targets = candidates("valid", config.evaluate.validation_users)
        asked = list(source)
        beams = {name: "generative" not in own.evaluate.without for name, own in variants.items()}
        found = {
            name: choose_scorer(asked, targets, popularity, config=own, beams=beams[name])
            for name, own in variants.items()
        }
        source, targets = candidates("test")
        views: dict[str, View] = {path: partial(channel_order, channel=CHANNELS.index(path)) for path in PATHS}
        for name in variants:
            views |= _views(name, found[name].scorer, popularity, beams=beams[name])
        lists = read_lists(source, len(targets), views)
    gains = {name: ndcg(ranks_of(own, targets), CUTOFF) for name, own in lists.items()}
    return {
        name: Answered(
            {FUSED: gains[f"{FUSED}, {name}"], LOG_LINEAR: gains[f"{LOG_LINEAR}, {name}"]}
            | {path: gains[path] for path in PATHS},
            found[name],
        )
        for name in variants
    }


def _views(name: str, scorer: Scorer, popularity: FloatArray, *, beams: bool) -> dict[str, View]:
    """A variant's two lists; `beams`: whether its generative path brings candidates."""

    def kept(candidates: Candidates) -> Candidates:
        return candidates if beams else candidates.without_beams()

    return {
        f"{FUSED}, {name}": lambda candidates: scorer.order(kept(candidates), popularity),
        f"{LOG_LINEAR}, {name}": lambda candidates: fuse(kept(candidates), scorer.fusion, explained=0).items,
    }


@contextmanager
def recommender_from(outputs: Mapping[str, Path], config: RunConfig, progress: Progress) -> Iterator[Recommender]:
    """What these stages' outputs make, with what it writes beside itself in a folder that goes with it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        yield recommender_of(
            StageContext(data=out, inputs=outputs, out=out, scratch=out, config=config, progress=progress)
        )


def compare(answered: Mapping[str, Answered]) -> dict[str, dict[str, Any]]:
    """Figures of every variant and its differences to the whole model, user by user."""
    whole, rows = answered[WHOLE], {}
    for name, one in answered.items():
        row: dict[str, Any] = {
            kind: rounded(bootstrap_mean(one.gains[kind], samples=SAMPLES, seed=0)) for kind in (FUSED, LOG_LINEAR)
        }
        row |= {path: round(float(one.gains[path].mean()), DIGITS) for path in PATHS}
        if name != WHOLE:
            row |= {
                f"{kind}_minus_whole": rounded(
                    bootstrap_difference(one.gains[kind], whole.gains[kind], samples=SAMPLES, seed=0)
                )
                for kind in (FUSED, LOG_LINEAR)
            }
        rows[name] = row | {"fusion": one.found.scorer.fusion.weights, "ranker": one.found.ranker}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--releases", type=Path, default=Path("var/ablation"), help="kept between runs")
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--config", type=Path, help="TOML file, as `python -m offline run` takes it")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE", help="for all")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PART", help="variants whose name has PART in it"
    )
    arguments = parser.parse_args()

    def note(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    configs = {
        name: configured(arguments.preset, arguments.config, [*arguments.settings, *settings], {})
        for name, settings in VARIANTS.items()
        if name == WHOLE or not arguments.only or any(part in name for part in arguments.only)
    }
    answered = answer(arguments.data, arguments.releases, configs, note)
    rows, num_users = compare(answered), len(answered[WHOLE].gains[FUSED])
    columns = {
        "as served": FUSED,
        "− whole (95%)": f"{FUSED}_minus_whole",
        "log-linear − whole (95%)": f"{LOG_LINEAR}_minus_whole",
        **{f"{path} alone": path for path in PATHS},
    }
    show(rows, columns, f"NDCG@{CUTOFF} · {arguments.data.name} · {arguments.preset} · test · {num_users} users")
    result = {
        "benchmark": "ablation",
        "data": arguments.data.name,
        "preset": arguments.preset,
        "settings": arguments.settings,
        "users": num_users,
        "rows": rows,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
