"""Finds each item's nearest items by text, with the encoder's full detail, for the content channel.

Reduced vectors lose the information of rare words. On Amazon Beauty the channel alone reaches NDCG@10 0.0494 with full
TF-IDF rows and 0.0370 with their 128-dimensional reduction (test, seen items excluded).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from rich.progress import Progress
from scipy import sparse

from isrf.method.evidence import CONTENT_LENGTH, CONTENT_POWER, SparseLists, counted_lists
from isrf.method.interest import FloatArray, IntArray
from isrf.method.text.encoder import TextEncoder, TextFields
from isrf.runtime.item_index import SPARE, HnswIndex
from isrf.runtime.neighbour_index import NeighbourIndex
from offline.engine.engine import StageEngine
from offline.engine.local import LOCAL
from offline.runtime.hnsw import RECALL, index_table
from offline.stages.embed.tfidf import weigh

MAX_ITEMS_BY_TERMS = 50_000
"""For more items the product of all items with all items costs too much, so the reduced vectors are used."""

HNSW_FROM = 100_000
"""From so many items on, an item's nearest ones by their vectors are searched by HNSW: comparing all items with all
takes a time that grows with their square (docs/lab-notebook.md)."""
SAMPLE = 256
"""Items on which the recall of that search is measured."""

_BLOCK_CELLS = 8_000_000
_BLOCK_ITEMS = 4096
"""Items that are searched at once: FAISS's own block, so that a block sums as all items together do."""


class _Nearest(NamedTuple):
    """The nearest items of a block of items."""

    start: int  # the block's first row
    columns: IntArray  # (block, CONTENT_LENGTH + 1) rows, −1 padded
    cosine: FloatArray  # (block, CONTENT_LENGTH + 1)


def nearest_by_terms(encoder: TextEncoder, texts: Sequence[TextFields], *, engine: StageEngine = LOCAL) -> SparseLists:
    """Each item's nearest items by the cosine of TF-IDF rows, without the item itself; nearer items weigh more."""
    terms = weigh(encoder, texts)
    num_items = len(texts)
    size = max(1, _BLOCK_CELLS // max(num_items, 1))
    width = min(CONTENT_LENGTH + 1, num_items)
    return _lists(engine.map(_by_terms, (terms, size, width), range(0, num_items, size)), num_items)


def nearest_by_vectors(
    vectors: FloatArray, *, engine: StageEngine = LOCAL, progress: Progress | None = None
) -> SparseLists:
    """Each item's nearest items by the cosine of unit vectors (N, D); otherwise as `nearest_by_terms`.

    From `HNSW_FROM` items on nearly all of them (`offline.runtime.hnsw.RECALL`), with exact cosines; where a search by
    HNSW finds too few, as among very many equal texts, all are compared.
    """
    vectors = np.ascontiguousarray(vectors)
    width, starts = min(CONTENT_LENGTH + 1, len(vectors)), range(0, len(vectors), _BLOCK_ITEMS)
    hnsw = _hnsw(vectors, progress) if len(vectors) >= HNSW_FROM else None
    found = (
        engine.map(_by_vectors, (vectors, NeighbourIndex(vectors), width), starts)
        if hnsw is None
        else engine.map(_by_hnsw, (vectors, hnsw, width), starts)
    )
    return _lists(found, len(vectors))


def _hnsw(vectors: FloatArray, progress: Progress | None) -> HnswIndex | None:
    """The index of the items with a text; None where none has one, or where a search finds too few."""
    known = np.any(vectors != 0, axis=1)
    rows = np.flatnonzero(known)
    if not len(rows):
        return None
    sample = vectors[rows[np.sort(np.random.default_rng(0).permutation(len(rows))[:SAMPLE])]]
    made = index_table(vectors, known, sample, title="embed: indexing items", progress=progress)
    return HnswIndex(made.data, made.ef, known) if made.recall >= RECALL else None


def _by_hnsw(start: int, vectors: FloatArray, index: HnswIndex, width: int) -> _Nearest:
    block = vectors[start : start + _BLOCK_ITEMS]
    columns = np.full((len(block), width), -1, dtype=np.int64)
    cosine = np.zeros((len(block), width), dtype=np.float32)
    for place, vector in enumerate(block):
        # A search in 8 bits finds a few more, which are then compared exactly.
        found = index.search(vector, width + SPARE, ef=index.ef) if vector.any() else columns[place, :0]
        exact = vectors[found] @ vector
        best = np.lexsort((found, -exact))[:width]
        columns[place, : len(best)], cosine[place, : len(best)] = found[best], exact[best]
    return _Nearest(start, columns, cosine)


def _by_vectors(start: int, vectors: FloatArray, index: NeighbourIndex, width: int) -> _Nearest:
    cosine, columns = index(vectors[start : start + _BLOCK_ITEMS], width)
    return _Nearest(start, columns, cosine)


def _by_terms(start: int, terms: sparse.csr_array, size: int, width: int) -> _Nearest:
    cosine = np.asarray((terms[start : start + size] @ terms.T).todense(), dtype=np.float32)
    columns = np.argpartition(-cosine, width - 1, axis=1)[:, :width]
    return _Nearest(start, columns, np.take_along_axis(cosine, columns, axis=1))


def _lists(blocks: Iterator[_Nearest], num_items: int) -> SparseLists:
    parts = [
        [np.repeat(np.arange(start, start + len(columns)), columns.shape[1]), columns.ravel(), cosine.ravel()]
        for start, columns, cosine in blocks
    ]
    rows, columns, cosine = (np.concatenate(part) for part in zip(*parts, strict=True))
    near = (rows != columns) & (columns >= 0) & (cosine > 0)
    weights = cosine[near].astype(np.float64) ** CONTENT_POWER
    return counted_lists(
        rows[near], columns[near].astype(np.int64), weights, num_rows=num_items, length=CONTENT_LENGTH
    ).lists
