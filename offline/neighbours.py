"""The base users' index: exact inner products over unit features (FAISS, flat)."""

import faiss
import numpy as np
from numpy.typing import NDArray

from isrf.interest import FloatArray, IntArray, NeighbourSearch


def user_index(features: NDArray[np.float16] | FloatArray) -> NeighbourSearch:
    """Nearest base users of query features.

    Args:
        features: (U, F) rows of length 1, or 0 for a user that nothing is known of: its cosine is 0, and
            `isrf.interest.select_neighbours` takes nobody of that cosine.
    """
    index = faiss.IndexFlatIP(features.shape[1])
    index.add(np.ascontiguousarray(features, dtype=np.float32))

    def nearest(queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        cosine, users = index.search(np.ascontiguousarray(queries), k)
        return cosine, users

    return nearest
