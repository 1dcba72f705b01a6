"""Measures what each part of the model contributes: one configuration, and variants without or with another part.

    python benchmarks/ablation.py --data DIR --releases DIR [--preset demo] [--set section.key=value …] [--only PART …]

Every variant runs the pipeline up to `compile`. All use one `--releases` folder, so a stage with unchanged settings
does not run again. Each variant chooses its fusion weights and ranker on the validation split, as `evaluate` does.
Variants of the same model share one run of its search graph. The benchmark prints NDCG@10 on the test split, with the
ranker ("as served") and by log-linear fusion alone, and the paired differences to the whole model, with 95% bootstrap
intervals over users. The whole model with another seed shows how large a difference chance alone makes. Ends in one
JSON line.
`benchmarks/planted.py` measures the group vector.
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

from isrf.method.interest import IntArray
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
    **{f"without the {name} channel": (f"evaluate.without={name}",) for name in CHANNELS[2:] if name != "popular"},
    "semantic IDs from text alone": ("semantic_ids.text_share=1",),
    "semantic IDs from LightGCN alone": ("semantic_ids.text_share=0",),
    **{f"decoder layers: {count}": (f"model.num_decoder_layers={count}",) for count in DECODER_LAYERS},
}
PATHS = ("dense", "generative")


class VariantResult(NamedTuple):
    """One variant's figures on the test split's R users."""

    gains: dict[str, NDArray[np.float64]]  # by list, NDCG@10 of every user (R,)
    found: ScorerChoice


def measure_variants(
    data: Path, releases: Path, configs: Mapping[str, RunConfig], note: Callable[[str], None]
) -> dict[str, VariantResult]:
    """Returns every variant's result, in the order of `configs`; runs each model once."""
    models: dict[str, dict[str, RunConfig]] = {}
    for name, config in configs.items():
        models.setdefault(config.model_dump_json(exclude={"evaluate"}), {})[name] = config
    results: dict[str, VariantResult] = {}
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
            results |= _measure_variants(outputs, variants, progress)
    return {name: results[name] for name in configs}


def _measure_variants(
    outputs: Mapping[str, Path], variants: Mapping[str, RunConfig], progress: Progress
) -> dict[str, VariantResult]:
    """Measures the variants of one model, which differ only in how they order its candidates."""
    config = next(iter(variants.values()))
    with recommender_from(outputs, config, progress) as recommender:
        num_items, tie_seed = len(recommender.tables.popularity), config.ingest.shuffle_ties

        def candidates(split_name: str, count: int | None = None) -> tuple[Iterator[Candidates], IntArray]:
            split = load_split(outputs["ingest"], split_name)
            if count is not None:
                split = split.rows(sample_rows(split, count, config.seed))
            question = full_ranking(split, num_items, tie_seed=tie_seed)
            return candidates_of(recommender, split, question, progress=progress, title=split_name), split.targets

        source, targets = candidates("valid", config.evaluate.validation_users)
        validation_candidates = list(source)
        beams = {name: "generative" not in variant_config.evaluate.without for name, variant_config in variants.items()}
        found = {
            name: choose_scorer(validation_candidates, targets, config=variant_config, beams=beams[name])
            for name, variant_config in variants.items()
        }
        source, targets = candidates("test")
        views: dict[str, View] = {path: partial(channel_order, channel=CHANNELS.index(path)) for path in PATHS}
        for name in variants:
            views |= _views(name, found[name].scorer, beams=beams[name])
        lists = read_lists(source, len(targets), views)
    gains = {name: ndcg(ranks_of(variant_config, targets), CUTOFF) for name, variant_config in lists.items()}
    return {
        name: VariantResult(
            {FUSED: gains[f"{FUSED}, {name}"], LOG_LINEAR: gains[f"{LOG_LINEAR}, {name}"]}
            | {path: gains[path] for path in PATHS},
            found[name],
        )
        for name in variants
    }


def _views(name: str, scorer: Scorer, *, beams: bool) -> dict[str, View]:
    """Returns the views for a variant's two lists; `beams`: whether its generative path adds candidates."""

    def select(candidates: Candidates) -> Candidates:
        return candidates if beams else candidates.without_beams()

    return {
        f"{FUSED}, {name}": lambda candidates: scorer.order(select(candidates)),
        f"{LOG_LINEAR}, {name}": lambda candidates: fuse(select(candidates), scorer.fusion, explained=0).items,
    }


@contextmanager
def recommender_from(outputs: Mapping[str, Path], config: RunConfig, progress: Progress) -> Iterator[Recommender]:
    """Builds the recommender from the stages' outputs, with a temporary folder for its files."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        context = StageContext(data=out, inputs=outputs, out=out, scratch=out, config=config, progress=progress)
        yield recommender_of(context).without_recent_popularity()


def compare(results: Mapping[str, VariantResult]) -> dict[str, dict[str, Any]]:
    """Returns every variant's figures and its paired differences to the whole model."""
    whole, rows = results[WHOLE], {}
    for name, result in results.items():
        row: dict[str, Any] = {
            kind: rounded(bootstrap_mean(result.gains[kind], samples=SAMPLES, seed=0)) for kind in (FUSED, LOG_LINEAR)
        }
        row |= {path: round(float(result.gains[path].mean()), DIGITS) for path in PATHS}
        if name != WHOLE:
            row |= {
                f"{kind}_minus_whole": rounded(
                    bootstrap_difference(result.gains[kind], whole.gains[kind], samples=SAMPLES, seed=0)
                )
                for kind in (FUSED, LOG_LINEAR)
            }
        rows[name] = row | {"fusion": result.found.scorer.fusion.weights, "ranker": result.found.ranker}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--releases", type=Path, default=Path("var/ablation"), help="folder that is kept between runs")
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--config", type=Path, help="TOML file, as for `python -m offline run`")
    parser.add_argument(
        "--set", action="append", default=[], dest="settings", metavar="KEY=VALUE", help="a setting for all variants"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="PART", help="only variants whose name contains PART"
    )
    arguments = parser.parse_args()

    def note(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    configs = {
        name: configured(arguments.preset, arguments.config, [*arguments.settings, *settings], {})
        for name, settings in VARIANTS.items()
        if name == WHOLE or not arguments.only or any(part in name for part in arguments.only)
    }
    results = measure_variants(arguments.data, arguments.releases, configs, note)
    rows, num_users = compare(results), len(results[WHOLE].gains[FUSED])
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
