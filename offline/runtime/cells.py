"""Cells of a large table, and how many of them a search looks into.

k-means makes the cells. The number of searched cells is measured, not guessed: enough to find nearly all rows that an
exact search finds, for a sample of queries. `isrf.runtime` has the indexes that search them.
"""

from collections.abc import Callable
from typing import NamedTuple

import faiss
import numpy as np

from isrf.method.interest import FloatArray, IntArray
from isrf.runtime.neighbour_index import Cells

_TRAINING_ROWS_PER_CELL = 64
_ITERATIONS = 10


class Division(NamedTuple):
    cells: Cells
    recall: float


def centroids(rows: FloatArray, *, seed: int, spherical: bool) -> FloatArray:
    """The centroids of cells for n rows (n, W): about 2 sqrt(n) of them, a power of two.

    Args:
        spherical: the centroids have length 1.
    """
    num_cells = 1 << round(np.log2(2 * np.sqrt(len(rows))))
    kmeans = faiss.Kmeans(
        rows.shape[1],
        int(min(num_cells, len(rows))),
        niter=_ITERATIONS,
        seed=seed,
        spherical=spherical,
        min_points_per_centroid=1,
        max_points_per_centroid=_TRAINING_ROWS_PER_CELL,
    )
    kmeans.train(np.ascontiguousarray(rows))
    return np.asarray(kmeans.centroids, dtype=np.float32)


def with_probes(cells: Cells, found: Callable[[Cells], IntArray], wanted: IntArray, *, recall: float) -> Division:
    """Doubles the number of searched cells until the search reaches a recall, or looks into all cells.

    Args:
        found: searches a sample of queries with so many probes; (R, k) rows.
        wanted: (R, k) rows that an exact search finds for the same queries.
        recall: the share of them that the search must find, on average.
    """
    k = wanted.shape[1]
    while True:
        pairs = zip(found(cells), wanted, strict=True)
        reached = float(np.mean([len(np.intersect1d(a, b)) / k for a, b in pairs]))
        if reached >= recall or cells.probes == len(cells.centroids):
            return Division(cells, reached)
        cells = cells._replace(probes=min(2 * cells.probes, len(cells.centroids)))
