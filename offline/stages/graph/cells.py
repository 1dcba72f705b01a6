"""Divides many users into cells, so that a search for similar users looks into a few cells instead of at all users.

The number of searched cells is measured, not guessed: enough to find nearly all users that an exact search finds, for a
sample of the users' own queries.
"""

from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from isrf.method.interest import FloatArray
from isrf.runtime.neighbour_index import Cells, NeighbourIndex
from offline.runtime.one_thread import one_faiss_thread

RECALL = 0.97
"""Share of the k nearest users that the search must find, on average over the sample."""
_SAMPLE = 500
_TRAINING_ROWS_PER_CELL = 64
_ITERATIONS = 10
_ASSIGN_AT_ONCE = 1 << 14


class Division(NamedTuple):
    cells: Cells
    recall: float


def divide(queries: FloatArray, features: NDArray[np.float16], k: int, *, seed: int) -> Division:
    """Divides the users into cells; equal calls give equal cells.

    Args:
        queries: (U, F) the users' query features.
        features: (U, F) the users' stored features, at least one of length > 0.
        k: number of neighbours that a search looks for.
        seed: seed of k-means and of the sample.
    """
    base = features.astype(np.float32)
    present = np.flatnonzero(base.any(axis=1))
    with one_faiss_thread():
        found = _centroids(base[present], seed=seed)
        quantizer = faiss.IndexFlatIP(base.shape[1])
        quantizer.add(found)
        cells = np.concatenate(
            [
                quantizer.search(base[at : at + _ASSIGN_AT_ONCE], 1)[1][:, 0].astype(np.int32)
                for at in range(0, len(base), _ASSIGN_AT_ONCE)
            ]
        )
        with_query = np.flatnonzero(queries.any(axis=1))
        sample = np.sort(np.random.default_rng(seed).permutation(with_query)[:_SAMPLE])
        return _with_probes(Cells(found, cells, 1), features, queries[sample], min(k, len(present)))


def _centroids(rows: FloatArray, *, seed: int) -> FloatArray:
    """The centroids of cells for n rows (n, F), of length 1: about 2 sqrt(n) of them, a power of two."""
    num_cells = 1 << round(np.log2(2 * np.sqrt(len(rows))))
    kmeans = faiss.Kmeans(
        rows.shape[1],
        int(min(num_cells, len(rows))),
        niter=_ITERATIONS,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=_TRAINING_ROWS_PER_CELL,
    )
    kmeans.train(np.ascontiguousarray(rows))
    return np.asarray(kmeans.centroids, dtype=np.float32)


def _with_probes(cells: Cells, features: NDArray[np.float16], queries: FloatArray, k: int) -> Division:
    """Doubles the number of searched cells until the search reaches `RECALL`."""
    exact = NeighbourIndex(features, cells).exact(queries, k)[1]
    while True:
        found = NeighbourIndex(features, cells)(queries, k)[1]
        recall = np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(found, exact, strict=True)])
        if recall >= RECALL or cells.probes == len(cells.centroids):
            return Division(cells, float(recall))
        cells = cells._replace(probes=min(2 * cells.probes, len(cells.centroids)))
