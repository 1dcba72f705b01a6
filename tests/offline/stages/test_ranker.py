"""The ranker finds what no weights can say, is refused where there is nothing to find, and is served as measured."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.progress import Progress

from isrf.contract.errors import BundleError
from isrf.contract.manifest import GOLDEN_FILE, RANKER_FILE
from isrf.method.goldens.requests import Golden, make_goldens
from isrf.method.ranking.fusion import DEFAULT_FUSION, EVIDENCE_CHANNELS, Candidates
from isrf.method.ranking.ranker import Ranker
from isrf.method.recommend.request import RankingRequest
from isrf.nn.ranker import fit
from offline.commands.evaluate_release import scorers_of
from offline.config import RunConfig, build_config
from offline.runtime.release import open_release, read_ranker
from offline.stages.evaluate.lists import FUSED, LIST_LENGTH, LOG_LINEAR, WITHOUT_GENERATIVE, RankedLists
from offline.stages.evaluate.measure import Measure
from offline.stages.evaluate.questions import direct, full_ranking
from offline.stages.evaluate.ranker import MIN_SAMPLES, Collected, choose_ranker, collect
from offline.stages.evaluate.split import EvaluationSplit, load_split
from service.release.opening import open_release as open_for_serving
from tests.isrf.method.candidate_sets import candidate_set
from tests.service.releases import change_manifest, seal
from tests.shops import TINY, run_stages, write_shop

POPULARITY = np.ones(30, dtype=np.float32)


def planted(count: int, *, noise: bool) -> tuple[list[Candidates], np.ndarray]:
    """Group and content each name half of the items; the held-out item is one that both name, or neither."""
    rng = np.random.default_rng(5)
    sets, targets = [], []
    for _ in range(count):
        named = {name: dict.fromkeys(rng.choice(30, 15, replace=False).tolist(), 1 / 15) for name in EVIDENCE_CHANNELS}
        agreed = [item for item in range(30) if (item in named["group"]) == (item in named["content"])]
        sets.append(candidate_set(range(30), dense=rng.normal(size=30).astype("f"), evidence=named))
        targets.append(int(rng.choice(30 if noise else agreed)))
    return sets, np.array(targets)


def collected(count: int, *, noise: bool) -> Collected:
    sets, targets = planted(count, noise=noise)
    found = collect(sets, targets, fusion=DEFAULT_FUSION, without=())
    assert len(found.users) == count
    return found


def chosen(count: int, *, noise: bool) -> tuple[Ranker | None, dict[str, Any]]:
    return choose_ranker(collected(count, noise=noise), without=(), seed=0, bootstrap_samples=200)


def test_a_rule_that_no_weights_can_say_is_found() -> None:
    ranker, figures = chosen(3000, noise=False)
    assert ranker is not None
    assert figures["served"] is True
    assert figures["NDCG@10"] > 1.3 * figures["NDCG@10_log_linear"]
    assert ranker.spec.validation["gain"] == figures["gain"]


def test_noise_is_refused() -> None:
    ranker, figures = chosen(1500, noise=True)
    assert ranker is None
    assert figures["served"] is False
    assert "gain_95" in figures


def test_a_handful_of_users_fits_nothing() -> None:
    assert chosen(MIN_SAMPLES - 1, noise=False)[0] is None


def test_equal_users_fit_equal_numbers_whatever_was_drawn_before() -> None:
    samples = collected(200, noise=False).samples
    one = fit(samples, seed=0)
    torch.rand(7)
    other = fit(samples, seed=0)
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert not np.array_equal(one["first"], fit(samples, seed=1)["first"])


def test_the_rule_is_lost_without_the_channel_that_it_reads() -> None:
    sets, targets = planted(3000, noise=False)
    fusion = DEFAULT_FUSION.model_copy(update={"weights": DEFAULT_FUSION.weights | {"content": 0.0}})
    blind = collect(sets, targets, fusion=fusion, without=("content",))
    assert choose_ranker(blind, without=("content",), seed=0, bootstrap_samples=200)[0] is None


@pytest.fixture(scope="module")
def ranked(demo_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo release with a ranker in it that turns much around, and another one without the generative path."""
    folder = tmp_path_factory.mktemp("ranked") / "release"
    shutil.copytree((demo_release / "current").resolve(), folder)
    ranker = Ranker.of(fit(collected(600, noise=True).samples, seed=0), without=(), validation={})
    recommender = replace(open_release(folder).recommender, ranker=ranker)
    before = [Golden.model_validate_json(line) for line in (folder / GOLDEN_FILE).read_text().splitlines()]
    goldens = make_goldens(recommender, [golden.history for golden in before], [golden.own for golden in before])
    (folder / GOLDEN_FILE).write_text("".join(golden.model_dump_json() + "\n" for golden in goldens))
    np.save(folder / RANKER_FILE, ranker.values())

    def change(manifest: dict[str, Any]) -> None:
        manifest["ranker"] = ranker.spec.model_dump(mode="json")
        manifest["files"][RANKER_FILE] = {}
        manifest["evaluation"]["fusion_leave_one_out"] = None  # so that the ranker that is served is measured
        manifest["evaluation"]["ranker_without_generative"] = ranker.stored().model_dump(mode="json")
        for variant in manifest["variants"].values():
            variant["tolerance"] |= {"list_score": 10.0, "list_missing": 20}

    change_manifest(folder, change)
    seal(folder)
    return folder


def measured(release: Path, split: EvaluationSplit, *, task: str = "sequential") -> RankedLists:
    opened = open_release(release)
    config = RunConfig.model_validate(opened.manifest.config)
    with Progress(disable=True) as progress:
        recommender = opened.recommender.without_recent_popularity()
        measure = Measure(recommender=recommender, scorers=scorers_of(opened), config=config, progress=progress)
        if task == "sequential":
            return measure.lists(split, "test")
        num_items = len(opened.recommender.tables.popularity)
        return measure.answers(split, direct(split, num_items, tie_seed=None, seed=config.seed), "direct")


def some_users(demo_release: Path) -> EvaluationSplit:
    (ingest,) = (p for p in (demo_release / ".work" / "ingest").iterdir() if p.is_dir())
    split = load_split(ingest, "test")
    return split.rows(np.arange(0, len(split.users), 7))


def test_the_service_answers_with_the_ranker_as_it_was_measured(ranked: Path, demo_release: Path) -> None:
    split = some_users(demo_release)
    lists = measured(ranked, split)
    assert not np.array_equal(lists[FUSED], lists[LOG_LINEAR])
    recommender = open_for_serving(ranked).recommender.without_recent_popularity()
    allowed = full_ranking(split, len(recommender.tables.popularity), tie_seed=None).allowed
    for row, history in enumerate(split.histories):
        request = RankingRequest(history=history, n=LIST_LENGTH, allowed=allowed(row))
        (answer,) = recommender.rank([request], recommender.read([history], [int(split.users[row])]))
        found = [item.item_index for item in answer.items]
        assert found == lists[FUSED][row].tolist()
        scores = [item.score for item in answer.items]
        assert scores == sorted(scores, reverse=True)


def test_a_choice_between_given_items_is_log_linear(ranked: Path, demo_release: Path) -> None:
    lists = measured(ranked, some_users(demo_release), task="direct")
    assert np.array_equal(lists[FUSED], lists[LOG_LINEAR])


def test_without_the_generative_path_another_ranker_orders(ranked: Path, demo_release: Path) -> None:
    lists = measured(ranked, some_users(demo_release))
    assert not np.array_equal(lists[WITHOUT_GENERATIVE], lists[FUSED])
    plain = measured(demo_release / "current", some_users(demo_release))
    assert not np.array_equal(lists[WITHOUT_GENERATIVE], plain[WITHOUT_GENERATIVE])


@pytest.mark.parametrize("opened", [open_release, open_for_serving], ids=["offline", "service"])
def test_a_ranker_of_other_features_is_refused(ranked: Path, tmp_path: Path, opened: Callable[[Path], object]) -> None:
    folder = shutil.copytree(ranked, tmp_path / "release")

    def change(manifest: dict[str, Any]) -> None:
        manifest["ranker"]["features"][0] = "colour"

    change_manifest(folder, change)
    with pytest.raises(BundleError) as error:
        opened(folder)
    assert error.value.code == "bundle.ranker"


def test_a_run_on_everything_takes_the_ranker_over_from_the_evaluated_one(tmp_path: Path) -> None:
    events = [(f"u{user}", f"i{(user + place) % 12}", 10 * place) for user in range(30) for place in range(4)]
    data = write_shop(tmp_path / "shop", events, [{"item_id": f"i{row}", "title": f"Cup {row}"} for row in range(12)])
    ranker = Ranker.of(fit(collected(200, noise=True).samples, seed=0), without=(), validation={"gain": 0.01})
    config = build_config("demo", None, (*TINY, "fit=all")).model_copy(update={"ranker": ranker.stored()})
    folder = run_stages("export", data, tmp_path / "releases", config)["export"]
    opened = open_release(folder)
    assert opened.manifest.ranker == ranker.spec
    assert opened.recommender.ranker is not None
    assert np.array_equal(opened.recommender.ranker.values(), ranker.values())
    taken = read_ranker(folder, opened.manifest)
    assert taken is not None
    assert taken.stored() == ranker.stored()
    assert RunConfig.model_validate(opened.manifest.config).ranker == ranker.stored()


def test_a_setting_switches_it_off() -> None:
    assert build_config("demo").evaluate.ranker
    assert not build_config("demo", None, ("evaluate.ranker=false",)).evaluate.ranker
