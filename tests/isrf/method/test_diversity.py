"""Maximal marginal relevance, by hand and by its ends."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from isrf.method.ranking.diversity import diversify

SIZES = st.tuples(st.integers(1, 12), st.integers(1, 4))
VECTORS = SIZES.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=st.floats(-2, 2, width=32)))


def scores_of(vectors: np.ndarray) -> np.ndarray:
    return np.linspace(3, -4, len(vectors)).astype(np.float32)


def test_by_hand() -> None:
    """Three alike and one unlike: λ 0.5 takes the unlike one second although it scores least."""
    vectors = np.array([[1, 0], [1, 0], [1, 0.1], [0, 1]], dtype=np.float32)
    scores = np.array([4, 3.9, 3.8, 3], dtype=np.float32)
    # relevance 1, 0.9, 0.8, 0; likeness to the first 1, 1, 0.995, 0: values −0.05, −0.0975, 0 → the fourth
    assert diversify(scores, vectors, 4, diversity=0.5) == [0, 3, 1, 2]
    # λ 0.9: 0.71, 0.6205, 0 → the order stands
    assert diversify(scores, vectors, 4, diversity=0.1) == [0, 1, 2, 3]


@given(VECTORS, st.integers(0, 15))
def test_none_changes_nothing(vectors: np.ndarray, n: int) -> None:
    assert diversify(scores_of(vectors), vectors, n, diversity=0.0) == list(range(min(n, len(vectors))))


@given(VECTORS, st.integers(1, 15), st.floats(0, 1))
def test_every_place_is_another_and_the_best_leads(vectors: np.ndarray, n: int, diversity: float) -> None:
    places = diversify(scores_of(vectors), vectors, n, diversity=diversity)
    assert len(places) == len(set(places)) == min(n, len(vectors))
    assert places[0] == 0


def test_more_diversity_is_less_alike() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(200, 8)).astype(np.float32)
    scores = (vectors @ vectors[0]).astype(np.float32)
    order = np.argsort(-scores)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def alike(diversity: float) -> float:
        rows = order[diversify(scores[order], vectors[order], 10, diversity=diversity)]
        return float((unit[rows] @ unit[rows].T).mean())

    assert alike(1.0) < alike(0.5) < alike(0.2) < alike(0.0)
