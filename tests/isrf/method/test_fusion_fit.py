"""Fusion weights are those of the greatest likelihood, wherever one starts, and none of them is negative."""

import numpy as np
import pytest
from numpy.typing import NDArray

from isrf.contract.manifest import FusionWeights
from isrf.method.ranking.fusion import CHANNELS, DEFAULT_FUSION, EVIDENCE_CHANNELS, Candidates
from isrf.method.ranking.fusion_fit import choose_weights
from tests.isrf.method.candidate_sets import candidate_set

NUM_ITEMS = 12


def weights(**given: float) -> FusionWeights:
    return FusionWeights(
        weights={name: given.get(name, 0.0) for name in CHANNELS},
        epsilons=dict.fromkeys(EVIDENCE_CHANNELS, 0.01),
        beam_gap=1.0,
    )


def drawn(count: int, *, dense: float, explicit: float) -> tuple[list[Candidates], NDArray[np.int64]]:
    """Requests whose held-out item was drawn from the softmax of so much of the two channels."""
    rng = np.random.default_rng(1)
    sets, targets = [], []
    for _ in range(count):
        by_dense, by_graph = rng.normal(scale=2, size=(2, NUM_ITEMS)).astype(np.float32)
        share = np.exp(dense * by_dense + explicit * by_graph)
        targets.append(int(rng.choice(NUM_ITEMS, p=share / share.sum())))
        sets.append(candidate_set(range(NUM_ITEMS), dense=by_dense, explicit=by_graph))
    return sets, np.array(targets)


def test_the_weights_that_targets_were_drawn_by_are_found_from_anywhere() -> None:
    sets, targets = drawn(3000, dense=0.6, explicit=0.25)
    found = [choose_weights(sets, targets, start=start).fusion.weights for start in (weights(), weights(explicit=3.0))]
    for one in found:
        assert one["dense"] == pytest.approx(0.6, abs=0.05)
        assert one["explicit"] == pytest.approx(0.25, abs=0.05)
    assert found[0] == pytest.approx(found[1], abs=0.01)


def test_a_channel_that_misleads_gets_nothing_and_no_weight_is_negative() -> None:
    sets, targets = drawn(500, dense=0.6, explicit=-0.5)
    found = choose_weights(sets, targets, start=DEFAULT_FUSION).fusion.weights
    assert found["explicit"] == 0.0
    assert min(found.values()) == 0.0
    assert found["dense"] > 0.3


def test_where_every_channel_misleads_the_weights_that_one_started_from_stay() -> None:
    sets, targets = drawn(500, dense=-0.6, explicit=-0.5)
    found = choose_weights(sets, targets, start=weights(dense=0.5, explicit=0.2)).fusion.weights
    assert (found["dense"], found["explicit"]) == (0.5, 0.2)


def test_the_order_of_users_and_of_candidates_does_not_matter() -> None:
    sets, targets = drawn(400, dense=0.6, explicit=0.25)
    order = np.random.default_rng(2).permutation(len(sets))
    again = choose_weights([sets[row] for row in order], targets[order], start=DEFAULT_FUSION)
    found = choose_weights(sets, targets, start=DEFAULT_FUSION)
    assert again.fusion.weights == pytest.approx(found.fusion.weights, abs=2e-4)
    assert again.ndcg_at_10 == pytest.approx(found.ndcg_at_10)


def test_few_users_stay_near_the_weights_that_one_starts_from() -> None:
    sets, targets = drawn(1, dense=0.6, explicit=0.25)
    found = choose_weights(sets, targets, start=weights(dense=1.0, explicit=0.5)).fusion.weights
    assert abs(found["dense"] - 1.0) < 1.5
    assert np.isfinite(list(found.values())).all()


def test_the_choice_finds_the_channel_that_knows() -> None:
    rng = np.random.default_rng(0)
    sample, targets = [], []
    for _ in range(60):
        target = int(rng.integers(20))
        sample.append(
            candidate_set(
                range(20),
                dense=rng.normal(size=20).astype(np.float32),
                explicit=rng.normal(size=20).astype(np.float32),
                evidence={"content": {target: 1.0}},
            )
        )
        targets.append(target)
    choice = choose_weights(sample, np.array(targets), start=weights(dense=1.0))
    assert choice.ndcg_at_10 == pytest.approx(1.0)
    assert choice.fusion.weights["content"] > 0


def test_a_channel_that_is_done_without_gets_no_weight() -> None:
    sets, targets = drawn(50, dense=0.6, explicit=0.25)
    choice = choose_weights(sets, targets, start=DEFAULT_FUSION, without=("dense", "content"))
    assert (choice.fusion.weights["dense"], choice.fusion.weights["content"]) == (0.0, 0.0)


def test_a_target_that_is_no_candidate_is_a_miss() -> None:
    choice = choose_weights([candidate_set([2, 5])], np.array([4]), start=DEFAULT_FUSION)
    assert choice.ndcg_at_10 == 0.0


def test_what_only_beams_brought_does_not_count_without_them() -> None:
    one = candidate_set([2, 9], beams={2: -1.0, 9: -3.0}, dense=np.array([-2.0, -1.0], "f"), beams_only=[9])
    by_dense = weights(dense=1.0)
    assert choose_weights([one], np.array([9]), start=by_dense).ndcg_at_10 > 0.0
    assert choose_weights([one], np.array([9]), start=by_dense, without_beams=True).ndcg_at_10 == 0.0
    assert choose_weights([one], np.array([2]), start=by_dense, without_beams=True).ndcg_at_10 == 1.0
