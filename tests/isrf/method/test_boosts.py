"""Boosts over small lists, computed by hand."""

import numpy as np
import pytest

from isrf.method.ranking.boosts import ScoreBoost, boost_moves, log_factors, ranked, score_keys
from isrf.method.ranking.placed_rules import Move


def mask(*rows: int, size: int = 5) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    found = np.zeros(size, dtype=np.bool_)
    found[list(rows)] = True
    return found


def test_a_boost_adds_the_logarithm_of_its_factor() -> None:
    boosts = [ScoreBoost(1, mask(2), np.log(4)), ScoreBoost(2, mask(0, 2), np.log(0.5))]
    assert log_factors(boosts, 3 + 2).tolist() == pytest.approx([np.log(0.5), 0, np.log(2), 0, 0])
    keys = score_keys(np.array([4.0, 2.0, 0.0]), logarithmic=False)
    assert np.exp(keys).tolist() == pytest.approx([4, 2, 1])
    assert ranked(keys + np.log([1, 1, 3])).tolist() == [0, 2, 1]
    assert score_keys(np.zeros(2), logarithmic=False).tolist() == [0, 0]


def test_each_boost_tells_its_own_moves() -> None:
    rows, keys = np.array([0, 1, 2]), np.log([4.0, 2.0, 1.0])
    boosts = [ScoreBoost(1, mask(2), np.log(3)), ScoreBoost(7, mask(0, 2), np.log(0.25))]
    # 4 2 1 → 4 2 3: item 2 rises by one; → 1 2 .75: item 0 falls behind 1, item 2 behind both
    assert boost_moves(rows, keys, boosts) == {2: [Move(1, 1), Move(7, -1)], 0: [Move(7, -1)]}
