"""Fusion is a weighted sum of logs, worked out by hand; its weights are found on validation."""

import numpy as np

from isrf.contract.manifest import FusionWeights
from isrf.method.ranking.fusion import CHANNELS, DEFAULT_FUSION, EVIDENCE_CHANNELS, Candidates, channel_order, fuse
from tests.isrf.method.candidate_sets import candidate_set


def weights(**given: float) -> FusionWeights:
    return FusionWeights(
        weights={name: given.get(name, 0.0) for name in CHANNELS},
        epsilons=dict.fromkeys(EVIDENCE_CHANNELS, 0.01),
        beam_gap=1.0,
    )


def candidates() -> Candidates:
    return candidate_set(
        [2, 5, 9],
        beams={9: -3.0},
        dense=np.array([-1.0, -2.0, -4.0], dtype=np.float32),
        explicit=np.array([-2.0, -2.5, -2.25], dtype=np.float32),
        evidence={"group": {5: 0.5, 7: 0.5}},
    )


def test_an_item_no_beam_reached_counts_as_the_lowest_beam_less_the_gap() -> None:
    fused = fuse(candidates(), weights(generative=1.0))
    assert fused.items.tolist() == [9, 2, 5]
    np.testing.assert_allclose(fused.scores, [-3.0, -4.0, -4.0])


def test_the_score_is_the_weighted_sum_of_logs() -> None:
    fused = fuse(candidates(), weights(dense=2.0, group=0.5))
    by_hand = {
        2: 2.0 * -1.0 + 0.5 * np.log(0.01),
        5: 2.0 * -2.0 + 0.5 * np.log(0.51),
        9: 2.0 * -4.0 + 0.5 * np.log(0.01),
    }
    assert fused.items.tolist() == sorted(by_hand, key=lambda item: -by_hand[item])
    np.testing.assert_allclose(fused.scores, [by_hand[item] for item in fused.items.tolist()], rtol=1e-5)


def test_the_explicit_channel_scores_every_candidate() -> None:
    assert fuse(candidates(), weights(explicit=1.0)).items.tolist() == [2, 9, 5]


def test_the_source_is_the_channel_that_lifts_an_item_most() -> None:
    fused = fuse(candidates(), weights(dense=0.5, group=1.0, generative=1.0))
    assert dict(zip(fused.items.tolist(), fused.sources, strict=True)) == {2: "dense", 5: "group", 9: "generative"}


def test_no_candidates_give_an_empty_answer() -> None:
    empty = candidate_set([])
    assert fuse(empty, DEFAULT_FUSION).sources == []


def test_a_channels_own_list_holds_only_what_it_says_something_of() -> None:
    assert channel_order(candidates(), CHANNELS.index("generative")).tolist() == [9]
    assert channel_order(candidates(), CHANNELS.index("dense")).tolist() == [2, 5, 9]
    assert channel_order(candidates(), CHANNELS.index("group")).tolist() == [5]


def test_what_only_beams_brought_is_no_candidate_without_the_generative_path() -> None:
    one = candidate_set([2, 9], beams={2: -1.0, 9: -3.0}, dense=np.array([-2.0, -1.0], "f"), beams_only=[9])
    left = one.without_beams()
    assert left.items.tolist() == [2]
    assert not np.isfinite(left.values[:, 0]).any()
    assert np.isfinite(one.values[:, 0]).all(), "the candidates themselves stay as they were"
