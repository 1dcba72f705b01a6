"""Makes an HNSW index of a table's rows, and measures how many candidates a search of it must keep.

`isrf.runtime.item_index.HnswIndex` searches it. It knows nothing of what the rows are.
"""

from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from isrf.method.interest import FloatArray
from isrf.runtime.item_index import SPARE, HnswIndex
from offline.runtime.one_thread import one_faiss_thread

RECALL = 0.98
"""Share of the best items that a search must find, on average over the sample."""
NUM_BEST = 100
"""Best items that the recall is measured on."""
LEAST_EF, MOST_EF = 128, 4_096
"""Candidates that a search keeps, at least and at most."""
LINKS = 16
"""Links of an item; the lowest level has twice as many."""
EF_CONSTRUCTION = 150
"""Candidates that the search for an item's links keeps (docs/lab-notebook.md)."""
ADD_AT_ONCE = 1 << 13


class Indexed(NamedTuple):
    """A table's index, how many candidates a search keeps, and the recall that this reaches."""

    data: NDArray[np.uint8]  # (bytes,) in FAISS's format
    ef: int
    recall: float


def index_table(
    table: FloatArray,
    known: NDArray[np.bool_],
    queries: FloatArray,
    *,
    title: str = "",
    progress: Progress | None = None,
) -> Indexed:
    """Indexes a table (N, W), and doubles the candidates that a search keeps until it reaches `RECALL`, or `MOST_EF`.

    Args:
        known: (N,) rows that the index holds. Equal rows, as unknown items have, would cut it into parts.
        queries: (R, W) of which the recall is measured.
        title: of the progress.
        progress: shows the progress.
    """
    width, rows = table.shape[1], table[known]
    new_index: Any = faiss.IndexHNSWSQ  # whose stub lacks the measure
    index = new_index(width, faiss.ScalarQuantizer.QT_8bit, LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = EF_CONSTRUCTION
    task = None if progress is None else progress.add_task(title, total=len(rows))
    with one_faiss_thread():
        index.train(rows)  # the range of each column
        for first in range(0, len(rows), ADD_AT_ONCE):
            part = rows[first : first + ADD_AT_ONCE]
            index.add(part)
            if progress is not None and task is not None:
                progress.update(task, advance=len(part))
        searched = HnswIndex(faiss.serialize_index(index), LEAST_EF, known)
        del index
        return _with_ef(searched, table, known, queries)


def _with_ef(index: HnswIndex, table: FloatArray, known: NDArray[np.bool_], queries: FloatArray) -> Indexed:
    k = min(NUM_BEST, int(known.sum()))
    exact = faiss.IndexFlatIP(table.shape[1])
    exact.add(table)
    wanted = exact.search(queries, k, params=_among(known))[1]
    ef = LEAST_EF
    while True:
        # What a search finds is scored exactly afterwards, so a few more make up for the rounding to 8 bits.
        found = [index.search(query, k + SPARE, ef=ef) for query in queries]
        recall = float(np.mean([len(np.intersect1d(a, b)) / max(k, 1) for a, b in zip(found, wanted, strict=True)]))
        if recall >= RECALL or ef >= MOST_EF:
            return Indexed(index.data, ef, recall)
        ef *= 2


def _among(known: NDArray[np.bool_]) -> Any:
    rows = np.flatnonzero(known)
    return faiss.SearchParameters(sel=faiss.IDSelectorBatch(rows))  # type: ignore[call-arg]
