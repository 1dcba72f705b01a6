"""Fits a torch-free approximation of a dense encoder for the bundle: a linear map from TF-IDF to the encoder's vectors.

New items in the service need vectors, and a language model cannot run there. So a ridge regression from the default
encoder's directions to the dense vectors, fitted on items with training interactions, replaces the encoder. Its quality
is measured on a tenth of these items, left out of the fit; the bundle stores it as `agreement`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from isrf.method.interest import FloatArray
from isrf.method.text.encoder import TextEncoder, TextFields
from offline.stages.embed.tfidf import fit_tfidf, weigh

DIRECTIONS = 512
RIDGE = 1e-2
"""Strength of the ridge, relative to the mean variance of a direction."""

TEST_SHARE = 0.1


def fit_counterpart(items: Sequence[TextFields], vectors: FloatArray, *, stands_for: str, seed: int) -> TextEncoder:
    """Fits the linear replacement of a dense encoder.

    Args:
        items: texts of the items to fit on.
        vectors: (n, D_t) float32, the dense encoder's vectors of these items; zero rows are left out.
        stands_for: the dense encoder's name.
        seed: seed for choosing the items that measure `agreement`.
    """
    tfidf = fit_tfidf(items, dim=DIRECTIONS, seed=seed)
    inputs = np.asarray(weigh(tfidf, items) @ tfidf.components - tfidf.mean, dtype=np.float64)
    present = np.flatnonzero(np.abs(vectors).sum(axis=1) > 0)
    shuffled = np.random.default_rng(seed).permutation(present)
    test = shuffled[: int(TEST_SHARE * len(shuffled))]
    weights, offset = _ridge(inputs, vectors, shuffled[len(test) :])
    agreement = _mean_cosine(inputs[test] @ weights + offset, vectors[test])
    weights, offset = _ridge(inputs, vectors, present)
    return TextEncoder(
        config=tfidf.config.model_copy(update={"stands_for": stands_for, "agreement": round(agreement, 4)}),
        vocabulary=tfidf.vocabulary,
        idf=tfidf.idf,
        components=(tfidf.components @ weights).astype(np.float32),
        mean=(tfidf.mean @ weights - offset).astype(np.float32),
    )


def _ridge(
    inputs: NDArray[np.float64], outputs: FloatArray, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ridge regression: weights (directions, D_t) and offset (D_t,)."""
    x, y = inputs[rows], outputs[rows].astype(np.float64)
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    gram = (x - mean_x).T @ (x - mean_x)
    strength = RIDGE * max(float(np.trace(gram)), 1e-12) / len(gram)
    weights = np.linalg.solve(gram + strength * np.eye(len(gram)), (x - mean_x).T @ (y - mean_y))
    return weights, mean_y - mean_x @ weights


def _mean_cosine(left: NDArray[np.float64], right: FloatArray) -> float:
    if not len(left):
        return 0.0
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(np.clip(np.mean((left * right).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)), -1.0, 1.0))
