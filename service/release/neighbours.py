"""Nearest users by inner product (FAISS), one thread per search; those who are gone are not found.

A release of many users comes divided into cells: a search then looks into the few nearest of them. Others are compared
with everybody.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from isrf.contract.manifest import USER_CELLS_FILE, USER_CENTROIDS_FILE
from isrf.method.interest import BoolArray, FloatArray, IntArray, NeighbourSearch

_ADD_TOGETHER = 1 << 16


class Cells(NamedTuple):
    """How users are divided, as the release says."""

    centroids: FloatArray  # (cells, F)
    cells: NDArray[np.int32]  # (U,) the one that each user is in
    probes: int  # cells that a search looks into

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], probes: int) -> "Cells":
        """From a bundle's arrays by file name."""
        return cls(arrays[USER_CENTROIDS_FILE], arrays[USER_CELLS_FILE], probes)


class UserIndex:
    """The index of one set of users; threads may share it."""

    def __init__(self, features: NDArray[Any], cells: Cells | None = None) -> None:
        """features (U, F) have rows of length 1 or 0; with `cells` every search is among a few of them."""
        faiss.omp_set_num_threads(1)
        self._cells = cells
        self._index = _undivided(features) if cells is None else _divided(features, cells)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def __call__(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """An `isrf.method.interest.NeighbourSearch` over all users."""
        return self._search(queries, k, None)

    def exact(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """The same, each user compared whether there are cells or not."""
        return self._search_cells(queries, k, None, everywhere=True)

    def among(self, present: BoolArray) -> NeighbourSearch:
        """A search over some of the users, (U,) bool; k of *them* are found, however many of the others are nearer."""
        bits = np.packbits(present, bitorder="little")
        selector = faiss.IDSelectorBitmap(len(present), faiss.swig_ptr(bits))

        def nearest(queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
            # `bits` and `selector` live as long as this function does: FAISS keeps addresses only.
            _ = bits
            return self._search(queries, k, selector)

        return nearest

    def _search(self, queries: FloatArray, k: int, selector: Any) -> tuple[FloatArray, IntArray]:
        cosine, users = self._search_cells(queries, k, selector, everywhere=False)
        if self._cells is not None:
            # The few nearest cells may hold fewer than k, or none who is present.
            short = np.flatnonzero((users < 0).any(axis=1))
            if len(short):
                cosine[short], users[short] = self._search_cells(queries[short], k, selector, everywhere=True)
        return cosine, users

    def _search_cells(
        self, queries: FloatArray, k: int, selector: Any, *, everywhere: bool
    ) -> tuple[FloatArray, IntArray]:
        if self._cells is None:
            parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        else:
            probes = len(self._cells.centroids) if everywhere else self._cells.probes
            parameters = faiss.SearchParametersIVF(sel=selector, nprobe=probes)  # type: ignore[call-arg]
        cosine, users = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), k, params=parameters)
        return cosine, users


def _undivided(features: NDArray[Any]) -> Any:
    """All users in one list, in the precision that they come in: a search is as fast as memory is read."""
    width = features.shape[1]
    index: faiss.Index = faiss.IndexFlatIP(width)
    if features.dtype == np.float16:
        index = faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        index.is_trained = True
    for at in range(0, len(features), _ADD_TOGETHER):
        index.add(np.ascontiguousarray(features[at : at + _ADD_TOGETHER], dtype=np.float32))
    return index


def _divided(features: NDArray[Any], cells: Cells) -> Any:
    """The users as they are stored, in float16, each in its cell: nothing is trained here."""
    quantizer = faiss.IndexFlatIP(features.shape[1])
    quantizer.add(np.ascontiguousarray(cells.centroids, dtype=np.float32))
    index = faiss.IndexIVFScalarQuantizer(
        quantizer,
        features.shape[1],
        len(cells.centroids),
        faiss.ScalarQuantizer.QT_fp16,
        faiss.METRIC_INNER_PRODUCT,
        False,  # the vectors themselves, not what is left of them after their centroid
    )
    index.is_trained = True
    for at in range(0, len(features), _ADD_TOGETHER):
        part = np.ascontiguousarray(features[at : at + _ADD_TOGETHER], dtype=np.float32)
        which = cells.cells[at : at + _ADD_TOGETHER].astype(np.int64)
        index.add_core(len(part), faiss.swig_ptr(part), None, faiss.swig_ptr(which))
    return index


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
