"""Boosts on the scores of a list. Arrays in, positions out.

A boost adds log(factor) to a score that is a sum of logarithms, and multiplies another score.
`isrf.method.ranking.placed_rules` has the rules that hold places.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from isrf.method.interest import BoolArray, FloatArray, IntArray
from isrf.method.ranking.placed_rules import Move

ScoreArray: TypeAlias = NDArray[np.float64]


class ScoreBoost(NamedTuple):
    """A factor on the scores of some items."""

    rule: int
    mask: BoolArray  # (N,)
    log_factor: float


def log_factors(boosts: Sequence[ScoreBoost], size: int) -> FloatArray:
    """(N,) the sum of the logarithms of all factors that hold for each item."""
    total = np.zeros(size, dtype=np.float32)
    for boost in boosts:
        total += np.float32(boost.log_factor) * boost.mask
    return total


def score_keys(scores: ScoreArray, *, logarithmic: bool) -> ScoreArray:
    """(c,) float64: scores as logarithms. A score of 0 counts as half of the least positive one: it can rise."""
    if logarithmic:
        return scores
    positive = scores > 0
    least = scores.min(where=positive, initial=np.inf)
    floor = least / 2 if np.isfinite(least) else 1.0
    return np.log(np.where(positive, scores, floor).astype(np.float64))


def ranked(keys: ScoreArray) -> IntArray:
    """(c,) positions, the greatest key first; equal ones stay in their order."""
    return np.argsort(-keys, kind="stable")


def boost_moves(rows: IntArray, keys: ScoreArray, boosts: Sequence[ScoreBoost]) -> dict[int, list[Move]]:
    """Returns by how many places each boost moves the items that it holds for, one boost after the other.

    Args:
        rows: (c,) distinct, in the order that they have without rules.
        keys: (c,) their scores as logarithms, without boosts.
    """
    moves: dict[int, list[Move]] = {}
    before = _places(keys)
    for boost in boosts:
        held = boost.mask[rows]
        keys = keys + boost.log_factor * held
        after = _places(keys)
        for at in np.flatnonzero(held & (before != after)).tolist():
            moves.setdefault(int(rows[at]), []).append(Move(boost.rule, int(before[at] - after[at])))
        before = after
    return moves


def _places(keys: ScoreArray) -> IntArray:
    places = np.empty(len(keys), dtype=np.int64)
    places[ranked(keys)] = np.arange(len(keys))
    return places
