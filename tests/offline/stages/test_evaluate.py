"""Figures computed by hand; one pass of the search, many lists; every protocol's own rules."""

import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from isrf.contract.manifest import FusionWeights
from isrf.method.evidence import SparseLists
from isrf.method.ranking.fusion import CHANNELS
from offline.config import build_config
from offline.stages.evaluate import live_sample
from offline.stages.evaluate.figures import describe_coverage, describe_lists, describe_slices
from offline.stages.evaluate.lists import LIST_LENGTH
from offline.stages.evaluate.questions import NUM_NEGATIVES, direct, full_ranking, sample_negatives
from offline.stages.evaluate.split import EvaluationSplit, load_split, sample_rows
from offline.stages.evaluate.tables import evaluation_tables
from tests.shops import TINY, Event, run_stages, write_shop

NUM_USERS, NUM_ITEMS = 50, 60


def split_of(histories: list[list[int]], targets: list[int], *, users: list[int] | None = None) -> EvaluationSplit:
    rows = np.array(users if users is not None else range(len(targets)), dtype=np.int64)
    return EvaluationSplit(rows, histories, histories, np.array(targets, dtype=np.int64), typed=False)


def lists_of(*rows: list[int]) -> "np.ndarray[tuple[int, int], np.dtype[np.int64]]":
    return np.array([[*row, *[-1] * (LIST_LENGTH - len(row))] for row in rows], dtype=np.int64)


def test_figures_and_paired_differences_are_those_computed_by_hand() -> None:
    targets = np.array([7, 8, 9, 5])
    fused = lists_of([7], [1, 8], [1, 2], [*range(10, 16), 5])  # ranks 0, 1, none, 6
    weaker = lists_of([1, 7], [1, 8], [1, 2], [])  # ranks 1, 1, none, none
    found = describe_lists(
        {"fused": fused, "without_generative": weaker, "log_linear_fusion": weaker, "dense": weaker},
        targets,
        samples=20,
        seed=0,
    )
    assert found["fused"]["HR@5"] == 0.5
    assert found["fused"]["HR@10"] == 0.75
    assert found["fused"]["NDCG@5"] == pytest.approx((1 + 0.63093) / 4, abs=1e-5)
    assert found["fused"]["NDCG@10"] == pytest.approx((1 + 0.63093 + 1 / 3) / 4, abs=1e-5)
    assert found["channels"]["dense"]["HR@20"] == 0.5
    gain = (1 + 1 / 3 - 0.63093) / 4
    assert found["fused_minus"]["without_generative"]["NDCG@10"] == pytest.approx(gain, abs=1e-5)
    low, high = found["fused_minus"]["dense"]["NDCG@10_95"]
    assert 0 <= low < gain < high, "it never loses, whoever is drawn: the pairing is kept"


def test_coverage_counts_items_once_and_cold_ones_by_place() -> None:
    own = lists_of([0, 1, 2], [0, 1, 3])
    assert describe_coverage(own, np.array([5, 2, 0, 1, 0, 0, 0, 0], dtype=np.float32)) == {
        "items_recommended@10": 4,
        "coverage@10": 0.5,
        "cold_share@10": pytest.approx(1 / 6, abs=1e-5),
    }


def test_slices_split_users_by_history_target_and_what_followed_the_last_item() -> None:
    split = split_of([[1], [1, 2, 3, 4], [1] * 5, [1] * 60], [0, 1, 2, 3])
    popularity = np.array([0, 4, 5, 1000], dtype=np.float32)
    followed_1 = SparseLists(np.array([0, 0, 3, 3, 3, 3]), np.array([0, 2, 3], np.int32), np.ones(3, np.float32))
    lists = {"fused": lists_of([0], [9], [9, 2], [3]), "without_generative": lists_of([0], [9], [2], [])}
    slices = describe_slices(lists, split, popularity=popularity, transitions=followed_1, samples=20, seed=0)
    assert {name: figures["users"] for name, figures in slices["history_length"].items()} == {
        "1-4": 2,
        "5-9": 1,
        "50+": 1,
    }
    assert list(slices["target_popularity"]) == ["0", "1-4", "5-19", "1000+"]
    assert slices["history_length"]["1-4"]["NDCG@10"] == 0.5
    assert slices["target_popularity"]["5-19"]["NDCG@10"] == pytest.approx(0.63093, abs=1e-5)
    assert slices["target_popularity"]["0"]["HR@10"] == 1.0
    assert {name: figures["users"] for name, figures in slices["last_to_target"].items()} == {
        "never seen": 1,
        "seen": 3,
    }
    gains = {name: figures["minus_without_generative"] for name, figures in slices["last_to_target"].items()}
    assert gains["never seen"]["NDCG@10"] == 0
    assert gains["seen"]["NDCG@10"] == pytest.approx((0 + 0.63093 - 1 + 1) / 3, abs=1e-5)
    low, high = gains["seen"]["NDCG@10_95"]
    assert low < gains["seen"]["NDCG@10"] < high


def test_negatives_are_unseen_and_hang_on_the_user_alone() -> None:
    known = np.array([3, 500, 41])
    drawn = sample_negatives(known, 1000, seed=0, user=7)
    assert len(set(drawn.tolist())) == NUM_NEGATIVES
    assert not set(drawn.tolist()) & set(known.tolist())
    assert sample_negatives(known, 1000, seed=0, user=7).tolist() == drawn.tolist()
    assert sample_negatives(known, 1000, seed=0, user=8).tolist() != drawn.tolist()
    assert sorted(sample_negatives(np.array([0, 4]), 6, seed=0, user=7).tolist()) == [1, 2, 3, 5]


def test_a_users_direct_question_is_the_same_among_other_users_and_in_another_order() -> None:
    split = split_of([[1, 2, 1], [3], [4, 5]], [9, 8, 7], users=[10, 20, 30])
    turned = split.rows(np.array([2, 0]))
    asked, other = (direct(one, 400, tie_seed=None, seed=3) for one in (split, turned))
    assert np.flatnonzero(asked.allowed(0)).tolist() == np.flatnonzero(other.allowed(1)).tolist()
    assert asked.allowed(0).sum() == NUM_NEGATIVES + 1
    assert asked.allowed(0)[9]
    assert not asked.allowed(0)[[1, 2]].any()
    assert asked.task == "direct"


def test_seen_items_are_excluded_unless_included() -> None:
    split = split_of([[1, 2]], [3])
    assert np.flatnonzero(~full_ranking(split, 5, tie_seed=None).allowed(0)).tolist() == [1, 2]
    including = full_ranking(split, 5, tie_seed=4, include_seen=True)
    assert including.allowed(0).all()
    assert including.protocol == "leave-one-out, full ranking, ties shuffled with seed 4, seen items included"


def events() -> list[Event]:
    """Two tastes; the last item of half of the users is one that they had before."""
    rng = random.Random(4)
    rows: list[Event] = []
    for user in range(NUM_USERS):
        taken = rng.sample(range(user % 2 * 30, user % 2 * 30 + 30), 4 + user % 3)
        taken.append(taken[0] if user % 4 < 2 else rng.randrange(NUM_ITEMS))
        rows += [(f"u{user}", f"i{item}", 10 * place) for place, item in enumerate(taken)]
    return rows


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    items = [{"item_id": f"i{row}", "title": f"Cup {row // 3}"} for row in range(NUM_ITEMS)]
    return write_shop(tmp_path_factory.mktemp("evaluated") / "shop", events(), items)


def evaluation(shop: Path, *settings: str) -> tuple[dict[str, Any], dict[str, Path]]:
    """Of a run beside the shop: stages that the settings do not touch run once."""
    config = build_config("demo", None, (*TINY, *settings))
    outputs = run_stages("evaluate", shop, shop.parent / "releases", config)
    return json.loads((outputs["evaluate"] / "evaluation.json").read_text()), outputs


def test_a_terminal_of_80_columns_shows_every_slice_by_name(shop: Path) -> None:
    found, _ = evaluation(shop)
    console = Console(width=80, file=io.StringIO(), record=True)
    for table in evaluation_tables(found["test"] | {"protocol": found["protocol"]}, split="test"):
        console.print(table)
    shown = console.export_text()
    for name in ("history of 1-4 items", "last item → item never seen", "what the generative path adds", "NDCG@10"):
        assert name in shown
    assert "…" not in shown


def test_an_evaluation_holds_every_protocol_of_both_splits(shop: Path) -> None:
    found, outputs = evaluation(shop)
    for split in ("valid", "test"):
        part = found[split]
        assert part["users"] == part["direct"]["users"] == NUM_USERS
        for figures in (part["fused"], part["without_generative"], *part["channels"].values()):
            assert {f"{m}@{k}" for m in ("HR", "NDCG") for k in (5, 10, 20)} <= figures.keys()
        assert set(part["channels"]) == set(CHANNELS) - {"popular"}
        assert set(part["fused_minus"]) == {"without_generative", "log_linear_fusion", *CHANNELS} - {"popular"}
        for slices in part["slices"].values():
            assert sum(figures["users"] for figures in slices.values()) == NUM_USERS
    assert found["test"]["seen_included"]["protocol"].endswith("seen items included")
    stored = FusionWeights.model_validate(found["fusion_without_generative"])
    assert set(stored.weights) == set(CHANNELS)
    assert stored.weights["generative"] == 0
    # Half of the test items stand in their user's history, where excluding makes them misses.
    repeated = sum(target in history for history, target in zip(*_test_users(outputs["ingest"]), strict=True))
    assert repeated >= NUM_USERS // 3
    assert found["test"]["fused"]["HR@20"] <= 1 - repeated / NUM_USERS
    assert found["test"]["seen_included"]["fused"]["HR@20"] > found["test"]["fused"]["HR@20"]


def _test_users(ingest: Path) -> tuple[list[list[int]], list[int]]:
    split = load_split(ingest, "test")
    return split.histories, split.targets.tolist()


def test_validation_lists_are_the_same_whether_weights_were_chosen_on_their_user_or_not(shop: Path) -> None:
    every, _ = evaluation(shop)
    some, _ = evaluation(shop, "evaluate.validation_users=15")
    assert some["weights_chosen_on"]["users"] == 15
    assert some["valid"]["channels"] == every["valid"]["channels"]
    assert some["valid"]["users"] == NUM_USERS


def test_a_shop_whose_events_all_have_one_time_has_no_live_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_sample, "MIN_REQUESTS", 1)
    rows = [(user, item, 1_000) for user, item, _ in events()]
    items = [{"item_id": f"i{row}", "title": f"Cup {row // 3}"} for row in range(NUM_ITEMS)]
    found, outputs = evaluation(write_shop(tmp_path / "shop", rows, items))
    assert live_sample.Stream.load(outputs["ingest"]) is None
    assert not found["weights_served"]["fitted_with_live_evidence"]
    assert "no event before" in found["weights_served"]["reason"]


def test_a_sample_of_users_answers_the_other_protocols(shop: Path) -> None:
    sampled, outputs = evaluation(shop, "evaluate.sampled_users=20")
    assert sampled["test"]["direct"]["users"] == sampled["test"]["seen_included"]["users"] == 20
    assert sampled["test"]["users"] == NUM_USERS
    split = load_split(outputs["ingest"], "test")
    assert len(set(sample_rows(split, 20, 0).tolist())) == 20
    assert sample_rows(split, 99, 0).tolist() == list(range(NUM_USERS))
