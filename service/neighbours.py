"""Nearest users by inner product (FAISS, flat, exact), one thread per search; those who are gone are not found."""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from isrf.interest import BoolArray, FloatArray, IntArray, NeighbourSearch


class UserIndex:
    """The index of one set of users; threads may share it."""

    def __init__(self, features: NDArray[Any]) -> None:
        """features (U, F) have rows of length 1 or 0."""
        faiss.omp_set_num_threads(1)
        self._index = faiss.IndexFlatIP(features.shape[1])
        self._index.add(np.ascontiguousarray(features, dtype=np.float32))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def __call__(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """An `isrf.interest.NeighbourSearch` over all users."""
        cosine, users = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), k)
        return cosine, users

    def among(self, present: BoolArray) -> NeighbourSearch:
        """A search over some of the users, (U,) bool; k of *them* are found, however many of the others are nearer."""
        bits = np.packbits(present, bitorder="little")
        selector = faiss.IDSelectorBitmap(len(present), faiss.swig_ptr(bits))
        parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]

        def nearest(queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
            # `bits` and `selector` live as long as this function does: FAISS keeps addresses only.
            _ = bits, selector
            cosine, users = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), k, params=parameters)
            return cosine, users

        return nearest


def joined(base: NeighbourSearch, delta: NeighbourSearch, num_base: int) -> NeighbourSearch:
    """Both at once: rows of the delta follow the `num_base` rows of the base."""

    def nearest(queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        cosine, users = base(queries, k)
        more_cosine, more_users = delta(queries, k)
        cosine = np.concatenate([cosine, more_cosine], axis=1)
        users = np.concatenate([users, np.where(more_users < 0, -1, more_users + num_base)], axis=1)
        order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(cosine, order, axis=1), np.take_along_axis(users, order, axis=1)

    return nearest
