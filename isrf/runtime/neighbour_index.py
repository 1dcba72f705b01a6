"""Finds the nearest users by inner product of unit features (FAISS): among all users, or in a few cells of many users.

Both halves use this index. Without cells the caller chooses the precision: the offline job uses float32, the service
uses the float16 that a release stores, because reading memory limits the speed of a search. With cells the features are
always float16, so that both halves find the same users.

On a GPU (FAISS's builds for one) a search compares the same rows, in the same cells, in the stored precision. FAISS's
indexes there take no selection of rows and silently ignore one. So a search among some users asks for more rows than it
needs and leaves out those that are absent; what is then missing, the CPU finds.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from isrf.contract.manifest import USER_CELLS_FILE, USER_CENTROIDS_FILE, USER_FEATURES_FILE, GroupSearch
from isrf.method.interest import BoolArray, FloatArray, IntArray, NeighbourSearch

Precision = Literal["float32", "float16"]
Device = Literal["cpu", "cuda"]

_ROWS_AT_ONCE = 1 << 16

MOST_ON_GPU = 2048
"""Rows that FAISS finds on a GPU for one query, and cells that it looks into."""

_GPU_SCRATCH_BYTES = 128 << 20


class Cells(NamedTuple):
    """A partition of the users into cells; each user is in the cell of the nearest centroid."""

    centroids: FloatArray  # (cells, F)
    cells: NDArray[np.int32]  # (U,) the cell of each user
    probes: int  # cells that a search looks into


class UnselectedSearch:
    """A search in a FAISS index that takes no selection of rows; threads may share it."""

    def __init__(self, index: Any, kept: Any = None) -> None:
        """
        Args:
            index: any FAISS index of inner products; its searches run one after the other.
            kept: what must live as long, since FAISS keeps only its address.
        """
        self._index, self._kept, self._lock = index, kept, threading.Lock()

    def __call__(self, queries: FloatArray, k: int, present: BoolArray | None = None) -> tuple[FloatArray, IntArray]:
        """Cosines and users, each (B, k), best first, of those in `present` (U,) bool.

        A row that is not full ends with −1: there may be more present users, further away.
        """
        asked = min(k if present is None else 2 * k + 32, MOST_ON_GPU)
        with self._lock:
            cosine, users = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), asked)
        if present is not None:
            absent = (users < 0) | ~present[users]
            order = np.argsort(absent, axis=1, kind="stable")
            cosine, users = np.where(absent, -np.inf, cosine), np.where(absent, -1, users)
            cosine, users = np.take_along_axis(cosine, order, axis=1), np.take_along_axis(users, order, axis=1)
        return _as_wide_as(k, cosine, users)


class NeighbourIndex:
    """The index of one set of users, an `isrf.method.interest.NeighbourSearch`; threads may share it."""

    _gpu: UnselectedSearch | None = None

    def __init__(
        self,
        features: NDArray[np.float16] | FloatArray,
        cells: Cells | None = None,
        *,
        precision: Precision = "float32",
        threads: int | None = None,
        device: Device = "cpu",
    ) -> None:
        """
        Args:
            features: (U, F) rows of length 1, or 0 for a user without a feature. Its cosine is 0, and
                `isrf.method.interest.select_neighbours` selects no user with that cosine.
            cells: if present, a search looks into a few of them.
            precision: the precision of the features without cells; float16 is exact for features that are float16.
            threads: sets FAISS's number of threads in this process; None leaves it unchanged.
            device: `cuda` searches on a GPU where FAISS finds one, in float16; what a search there does not find, the
                CPU adds.
        """
        if threads is not None:
            faiss.omp_set_num_threads(threads)
        self._cells = cells
        self._index = _undivided(features, precision) if cells is None else _divided(features, cells)
        if device == "cuda":
            self._gpu = _gpu_search(self._index, features)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def __getstate__(self) -> tuple[Cells | None, NDArray[np.uint8]]:
        """For another process: FAISS has bytes of its own for an index."""
        return self._cells, faiss.serialize_index(self._index)

    def __setstate__(self, state: tuple[Cells | None, NDArray[np.uint8]]) -> None:
        self._cells, data = state
        self._index = faiss.deserialize_index(data)

    def __call__(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """Cosines (B, k) and users (B, k) of B queries (B, F), best first; −1 where there are fewer than k users."""
        return self._search(queries, k, None)

    def exact(self, queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        """The same, but compares every user, with cells too."""
        return self._search_cells(queries, k, None, everywhere=True)

    @property
    def device(self) -> Device:
        """Where it searches."""
        return "cpu" if self._gpu is None else "cuda"

    def among(self, present: BoolArray) -> NeighbourSearch:
        """A search over the users in `present` (U,) bool; it finds k of *them*, even if other users are nearer."""
        bits = np.packbits(present, bitorder="little")
        selector = faiss.IDSelectorBitmap(len(present), faiss.swig_ptr(bits))

        def nearest(queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
            # FAISS keeps only addresses, so this closure must keep `bits` and `selector` alive.
            _ = bits
            return self._search(queries, k, selector, present)

        return nearest

    def _search(
        self, queries: FloatArray, k: int, selector: Any, present: BoolArray | None = None
    ) -> tuple[FloatArray, IntArray]:
        if self._gpu is None:
            cosine, users = self._search_cells(queries, k, selector, everywhere=False)
        else:
            cosine, users = self._gpu(queries, k, present)
        if self._cells is not None or self._gpu is not None:
            # The probed cells, or the rows that a GPU found, may hold fewer than k present users.
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


def index_of(
    arrays: Mapping[str, NDArray[Any]],
    search: GroupSearch,
    *,
    precision: Precision = "float32",
    threads: int | None = None,
    device: Device = "cpu",
) -> NeighbourIndex:
    """The base users' index from a bundle's arrays by file name; what else, as in `NeighbourIndex`."""
    cells = None
    if search.probes is not None:
        cells = Cells(arrays[USER_CENTROIDS_FILE], arrays[USER_CELLS_FILE], search.probes)
    return NeighbourIndex(arrays[USER_FEATURES_FILE], cells, precision=precision, threads=threads, device=device)


def load_index(folder: Path, search: GroupSearch) -> NeighbourIndex:
    """The index from the files of a release or of the graph stage's output, in float32."""
    names = [USER_FEATURES_FILE]
    if search.probes is not None:
        names += [USER_CENTROIDS_FILE, USER_CELLS_FILE]
    return index_of({name: np.load(folder / name) for name in names}, search)


def joined(base: NeighbourSearch, delta: NeighbourSearch, num_base: int) -> NeighbourSearch:
    """A search over two indexes: the delta's rows follow the `num_base` rows of the base."""

    def nearest(queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        cosine, users = base(queries, k)
        more_cosine, more_users = delta(queries, k)
        cosine = np.concatenate([cosine, more_cosine], axis=1)
        users = np.concatenate([users, np.where(more_users < 0, -1, more_users + num_base)], axis=1)
        order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(cosine, order, axis=1), np.take_along_axis(users, order, axis=1)

    return nearest


def _undivided(features: NDArray[np.float16] | FloatArray, precision: Precision) -> Any:
    """A FAISS index without cells."""
    width = features.shape[1]
    index: faiss.Index = faiss.IndexFlatIP(width)
    if precision == "float16":
        index = faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        index.is_trained = True
    for at in range(0, len(features), _ROWS_AT_ONCE):
        index.add(np.ascontiguousarray(features[at : at + _ROWS_AT_ONCE], dtype=np.float32))
    return index


def _divided(features: NDArray[np.float16] | FloatArray, cells: Cells) -> Any:
    """A FAISS index with the given cells, which holds the rows in float16; it trains nothing."""
    quantizer = faiss.IndexFlatIP(features.shape[1])
    quantizer.add(np.ascontiguousarray(cells.centroids, dtype=np.float32))
    index = faiss.IndexIVFScalarQuantizer(
        quantizer,
        features.shape[1],
        len(cells.centroids),
        faiss.ScalarQuantizer.QT_fp16,  # the precision of the stored features
        faiss.METRIC_INNER_PRODUCT,
        False,  # the vectors themselves, not their residuals
    )
    index.is_trained = True
    index.nprobe = cells.probes
    for at in range(0, len(features), _ROWS_AT_ONCE):
        part = np.ascontiguousarray(features[at : at + _ROWS_AT_ONCE], dtype=np.float32)
        which = cells.cells[at : at + _ROWS_AT_ONCE].astype(np.int64)
        index.add_core(len(part), faiss.swig_ptr(part), None, faiss.swig_ptr(which))
    return index


def _gpu_search(cpu_index: Any, features: NDArray[np.float16] | FloatArray) -> UnselectedSearch | None:
    """The search of the same users on the first GPU; None where FAISS finds none, or the cells to look into are many.

    Args:
        cpu_index: the users' index on the CPU; its cells, where it has some, are copied as they are.
        features: (U, F), all compared in float16 where there are no cells.
    """
    if faiss.get_num_gpus() == 0:
        return None
    resources: Any = faiss.StandardGpuResources()
    resources.setTempMemory(_GPU_SCRATCH_BYTES)
    if isinstance(cpu_index, faiss.IndexIVF):
        if cpu_index.nprobe > MOST_ON_GPU:
            return None
        return UnselectedSearch(faiss.index_cpu_to_gpu(resources, 0, cpu_index), resources)
    config: Any = faiss.GpuIndexFlatConfig()
    config.useFloat16 = True
    index: Any = faiss.GpuIndexFlatIP(resources, features.shape[1], config)
    for at in range(0, len(features), _ROWS_AT_ONCE):
        index.add(np.ascontiguousarray(features[at : at + _ROWS_AT_ONCE], dtype=np.float32))
    return UnselectedSearch(index, resources)


def _as_wide_as(k: int, cosine: FloatArray, users: IntArray) -> tuple[FloatArray, IntArray]:
    missing = max(k - users.shape[1], 0)
    more = ((0, 0), (0, missing))
    return (
        np.pad(cosine, more, constant_values=-np.inf)[:, :k].astype(np.float32),
        np.pad(users, more, constant_values=-1)[:, :k],
    )
