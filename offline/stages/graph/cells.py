"""Divides many users into cells, so that a search for similar users looks into a few cells instead of at all users.

The number of searched cells is measured, not guessed: enough to find nearly all users that an exact search finds, for a
sample of the users' own queries.
"""

import faiss
import numpy as np
from numpy.typing import NDArray

from isrf.method.interest import FloatArray
from isrf.runtime.neighbour_index import Cells, NeighbourIndex
from offline.runtime.cells import Division, centroids, with_probes
from offline.runtime.one_thread import one_faiss_thread

RECALL = 0.97
"""Share of the k nearest users that the search must find, on average over the sample."""
_SAMPLE = 500
_ASSIGN_AT_ONCE = 1 << 14


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
        found = centroids(base[present], seed=seed, spherical=True)
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
        divided, k = Cells(found, cells, 1), min(k, len(present))
        wanted = NeighbourIndex(features, divided).exact(queries[sample], k)[1]
        return with_probes(
            divided, lambda tried: NeighbourIndex(features, tried)(queries[sample], k)[1], wanted, recall=RECALL
        )
