"""Divides many users into cells, so that a search for similar ones looks into a few cells and not at everybody.

How many is not guessed: as many as it takes to find nearly all whom a search among all finds, for a sample of the
queries that the users themselves would ask.
"""

from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from isrf.method.interest import FloatArray
from isrf.runtime.neighbour_index import Cells, NeighbourIndex
from offline.runtime.one_thread import one_faiss_thread

RECALL = 0.97
"""Of the k nearest, found on average over the sample."""
_SAMPLE = 500
_USERS_PER_CELL_SEEN = 64
_ITERATIONS = 10
_ASSIGN_TOGETHER = 1 << 14


class Division(NamedTuple):
    cells: Cells
    recall: float


def divide(queries: FloatArray, features: NDArray[np.float16], k: int, *, seed: int) -> Division:
    """Cells of the users, (U, F) both, somebody's among them of length > 0; equal calls give equal cells."""
    base = features.astype(np.float32)
    present = np.flatnonzero(base.any(axis=1))
    with one_faiss_thread():
        centroids = _centroids(base[present], seed=seed)
        quantizer = faiss.IndexFlatIP(base.shape[1])
        quantizer.add(centroids)
        cells = np.concatenate(
            [
                quantizer.search(base[at : at + _ASSIGN_TOGETHER], 1)[1][:, 0].astype(np.int32)
                for at in range(0, len(base), _ASSIGN_TOGETHER)
            ]
        )
        asking = np.flatnonzero(queries.any(axis=1))
        sample = np.sort(np.random.default_rng(seed).permutation(asking)[:_SAMPLE])
        return _with_probes(Cells(centroids, cells, 1), features, queries[sample], min(k, len(present)))


def _centroids(users: FloatArray, *, seed: int) -> FloatArray:
    """About 2 sqrt(U) of them, a power of two."""
    num_cells = 1 << round(np.log2(2 * np.sqrt(len(users))))
    kmeans = faiss.Kmeans(
        users.shape[1],
        int(min(num_cells, len(users))),
        niter=_ITERATIONS,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=_USERS_PER_CELL_SEEN,
    )
    kmeans.train(np.ascontiguousarray(users))
    return np.asarray(kmeans.centroids, dtype=np.float32)


def _with_probes(cells: Cells, features: NDArray[np.float16], queries: FloatArray, k: int) -> Division:
    wanted = NeighbourIndex(features, cells).exact(queries, k)[1]
    while True:
        found = NeighbourIndex(features, cells)(queries, k)[1]
        recall = np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(found, wanted, strict=True)])
        if recall >= RECALL or cells.probes == len(cells.centroids):
            return Division(cells, float(recall))
        cells = cells._replace(probes=min(2 * cells.probes, len(cells.centroids)))
