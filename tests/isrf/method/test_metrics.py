"""Metric values computed by hand."""

import numpy as np
import pytest

from isrf.method.metrics import bootstrap_difference, bootstrap_mean, hit_rate, ndcg, ranks_of


def test_ranks_count_from_zero_and_a_missing_item_is_minus_one() -> None:
    lists = np.array([[5, 3, 9], [1, 2, -1], [4, -1, -1]])
    assert ranks_of(lists, np.array([9, 1, 7])).tolist() == [2, 0, -1]
    assert ranks_of(np.zeros((2, 0), dtype=np.int64), np.array([0, 1])).tolist() == [-1, -1]


def test_hit_rate_at_the_edge_of_the_list() -> None:
    ranks = np.array([0, 4, 5, 9, 10, -1])
    assert hit_rate(ranks, 5).tolist() == [1, 1, 0, 0, 0, 0]
    assert hit_rate(ranks, 10).tolist() == [1, 1, 1, 1, 0, 0]


def test_ndcg_is_one_over_log2_of_the_place_plus_one() -> None:
    values = ndcg(np.array([0, 1, 2, 6, 7, -1]), 7)
    assert values == pytest.approx([1.0, 0.63092975, 0.5, 1 / 3, 0.0, 0.0])


def test_k_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="k is 0"):
        ndcg(np.array([0]), 0)


def test_bootstrap_interval_has_the_width_of_the_binomial() -> None:
    """Mean of 10,000 coins of 0.25: standard error 0.00433, so the interval is ± 0.0085."""
    values = np.repeat([1.0, 0.0], [2500, 7500])
    interval = bootstrap_mean(values, samples=1000, seed=3)
    assert interval.mean == 0.25
    assert interval.mean - interval.low == pytest.approx(1.96 * 0.00433, rel=0.1)
    assert interval.high - interval.mean == pytest.approx(1.96 * 0.00433, rel=0.1)
    assert interval == bootstrap_mean(values, samples=1000, seed=3)
    assert interval != bootstrap_mean(values, samples=1000, seed=4)


def test_a_paired_difference_is_narrower_than_its_parts() -> None:
    baseline = np.random.default_rng(0).random(2000)
    shifted = bootstrap_difference(baseline + 0.01, baseline, samples=200, seed=0)
    assert shifted == pytest.approx((0.01, 0.01, 0.01))
    alone = bootstrap_mean(baseline, samples=200, seed=0)
    assert alone.high - alone.low > 0.01


def test_nothing_to_resample_is_refused() -> None:
    with pytest.raises(ValueError, match="needs values"):
        bootstrap_mean(np.zeros(0), samples=10, seed=0)
    with pytest.raises(ValueError, match="shapes"):
        bootstrap_difference(np.zeros(2), np.zeros(3), samples=10, seed=0)
