"""The base users' index: inner products over unit features (FAISS), among all or, where they are many, in cells.

The service builds the same index from the same arrays (`service.release.neighbours`); a test holds the two equal.
"""

from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from isrf.contract.manifest import USER_CELLS_FILE, USER_CENTROIDS_FILE, USER_FEATURES_FILE, GroupSearch
from isrf.method.interest import FloatArray, IntArray

_ADD_TOGETHER = 1 << 16


class Cells(NamedTuple):
    """A division of the users, none nearer to another centroid than to that of its own cell."""

    centroids: FloatArray  # (cells, F)
    cells: NDArray[np.int32]  # (U,)
    probes: int  # cells that a search looks into


class UserIndex:
    """Nearest base users of query features; an `isrf.method.interest.NeighbourSearch`."""

    def __init__(self, features: NDArray[np.float16] | FloatArray, cells: Cells | None = None) -> None:
        """
        Args:
            features: (U, F) rows of length 1, or 0 for a user that nothing is known of: its cosine is 0, and
                `isrf.method.interest.select_neighbours` takes nobody of that cosine.
            cells: where given, a search looks into a few of them.
        """
        self._cells = cells
        if cells is None:
            self._index = faiss.IndexFlatIP(features.shape[1])
            self._index.add(np.ascontiguousarray(features, dtype=np.float32))
        else:
            self._index = _divided(features, cells)

    def __call__(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """(cosine (B, k), users (B, k)), best first."""
        if self._cells is None:
            return self.exact(queries, k)
        cosine, users = self._search(queries, k, self._cells.probes)
        # The few nearest cells may hold fewer than k.
        short = np.flatnonzero((users < 0).any(axis=1))
        if len(short):
            cosine[short], users[short] = self.exact(queries[short], k)
        return cosine, users

    def exact(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """The same with every user compared."""
        return self._search(queries, k, None if self._cells is None else len(self._cells.centroids))

    def _search(self, queries: FloatArray, k: int, probes: int | None) -> tuple[FloatArray, IntArray]:
        parameters = None if probes is None else faiss.SearchParametersIVF(nprobe=probes)  # type: ignore[call-arg]
        cosine, users = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), k, params=parameters)
        return cosine, users


def load_user_index(folder: Path, search: GroupSearch) -> UserIndex:
    """The index from the files of a release, or of the graph stage's output."""
    features = np.load(folder / USER_FEATURES_FILE)
    if search.probes is None:
        return UserIndex(features)
    centroids, cells = np.load(folder / USER_CENTROIDS_FILE), np.load(folder / USER_CELLS_FILE)
    return UserIndex(features, Cells(centroids, cells, search.probes))


def _divided(features: NDArray[np.float16] | FloatArray, cells: Cells) -> Any:
    quantizer = faiss.IndexFlatIP(features.shape[1])
    quantizer.add(np.ascontiguousarray(cells.centroids, dtype=np.float32))
    index = faiss.IndexIVFScalarQuantizer(
        quantizer,
        features.shape[1],
        len(cells.centroids),
        faiss.ScalarQuantizer.QT_fp16,  # as they are stored: nothing is lost
        faiss.METRIC_INNER_PRODUCT,
        False,  # the vectors themselves, not what is left of them after their centroid
    )
    index.is_trained = True
    for at in range(0, len(features), _ADD_TOGETHER):
        part = np.ascontiguousarray(features[at : at + _ADD_TOGETHER], dtype=np.float32)
        which = cells.cells[at : at + _ADD_TOGETHER].astype(np.int64)
        index.add_core(len(part), faiss.swig_ptr(part), None, faiss.swig_ptr(which))
    return index
