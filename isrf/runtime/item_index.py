"""Finds the best items of a query by inner product (FAISS): among all items, or by HNSW in a large catalogue.

It implements `isrf.method.recommend.item_search.ItemSearch`, for service and offline job alike. Without HNSW a search
scores every item, which costs 8 µs for a thousand items of width 64. With it a search follows links between near items
(Malkov and Yashunin 2016), or where a filter leaves few items it scores these alone; then it scores what it found
exactly, and estimates the normaliser of the softmax: the best items exactly, the rest from a fixed sample.
`offline.runtime.hnsw` makes the index, and measures how many candidates a search must keep.
"""

from dataclasses import dataclass, replace
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from isrf.method.interest import BoolArray, FloatArray, IntArray
from isrf.method.recommend.item_masks import ItemMask
from isrf.method.recommend.item_search import BestItems

_faiss: Any = faiss  # whose stubs lack some functions

SCORED_ALL = 100.0
"""All allowed items are scored where they are fewer than this times √N; from there on a search by HNSW is faster, whose
cost grows with the items for each allowed one (docs/lab-notebook.md)."""
ROWS_AT_ONCE = 4_096
"""Rows that are gathered at once, so that they stay in the processor's cache."""
HEAD = 256
"""Best items whose share of the normaliser is exact."""
SAMPLE = 8_192
"""Items from which the share of all others is estimated."""
LEAST_ALLOWED = 0.9
"""Share of allowed items from which the normaliser's best items serve the list too, without a second search."""
SPARE = 64
"""Further items that a search by HNSW finds: they make up for the rounding to 8 bits, and for best ones not allowed."""


class HnswIndex:
    """FAISS's HNSW index of a table's known rows, with their values in 8 bits; threads may share it."""

    def __init__(self, data: NDArray[np.uint8], ef: int, known: BoolArray) -> None:
        """
        Args:
            data: (bytes,) the index in FAISS's format; it is read in place, so a mapped file's pages stay shared.
            ef: candidates that a search keeps.
            known: (N,) the table's rows that the index holds.

        Raises:
            RuntimeError: FAISS cannot read it.
            ValueError: it holds another number of rows.
        """
        self.data, self.ef, self.known = data, ef, known
        self.num_rows = len(known)  # N
        self._rows: IntArray | None = None if known.all() else np.flatnonzero(known)
        self._reader = _faiss.ZeroCopyIOReader(faiss.swig_ptr(data), data.size)
        self._index: Any = faiss.read_index(self._reader)
        if self._index.ntotal != np.count_nonzero(known):
            raise ValueError(f"it holds {self._index.ntotal} rows, its table has {np.count_nonzero(known)}")

    def __reduce__(self) -> tuple[type["HnswIndex"], tuple[NDArray[np.uint8], int, BoolArray]]:
        return HnswIndex, (self.data, self.ef, self.known)

    @property
    def width(self) -> int:
        return int(self._index.d)

    def search(self, query: FloatArray, k: int, *, ef: int, allowed: ItemMask | None = None) -> IntArray:
        """(≤ k,) rows of the best items of a query (W,), best first by their scores in 8 bits.

        Args:
            ef: candidates that the search keeps.
            allowed: the rows that may be found, of N items or more; None: all.
        """
        selector = None
        if allowed is not None:
            of_rows = None if self._rows is None else np.packbits(allowed.mask[self._rows], bitorder="little")
            packed = allowed.packed if of_rows is None else of_rows
            selector = faiss.IDSelectorBitmap(len(packed), faiss.swig_ptr(packed))
        parameters = _faiss.SearchParametersHNSW(sel=selector, efSearch=ef)
        found: IntArray = self._index.search(query[None], k, params=parameters)[1][0]
        found = found[found >= 0]
        return found if self._rows is None else self._rows[found]


class ItemIndex:
    """The search of one table."""

    def __init__(self, table: FloatArray, *, zero_is_unknown: bool = False, hnsw: HnswIndex | None = None) -> None:
        """
        Args:
            table: (N, W) float32; it is not copied where it is contiguous.
            zero_is_unknown: a row of zeros cannot be scored, so no search finds it.
            hnsw: of the first rows; if present, a search uses it, and scores the rows behind them one by one.
        """
        self._table = np.ascontiguousarray(table, dtype=np.float32)
        self._zero_is_unknown = zero_is_unknown
        known = _known(self._table, zero_is_unknown, None if hnsw is None else hnsw.known)
        self._known: BoolArray | None = None if known.all() else known
        self._hnsw = hnsw
        self._approximate = None if hnsw is None else _HnswSearch(self._table, known, hnsw)

    def over(self, table: FloatArray) -> "ItemIndex":
        """As `ItemSearch.over`."""
        return ItemIndex(table, zero_is_unknown=self._zero_is_unknown, hnsw=self._hnsw)

    def find(self, query: FloatArray, allowed: ItemMask, k: int) -> BestItems:
        """As `ItemSearch.find`."""
        query = np.ascontiguousarray(query, dtype=np.float32)
        approximate = self._approximate
        return self._find_all(query, allowed, k) if approximate is None else approximate.find(query, allowed, k)

    def _find_all(self, query: FloatArray, allowed: ItemMask, k: int) -> BestItems:
        scores = inner_products(query, self._table)
        if self._known is not None:
            scores[~self._known] = -np.inf
        scores -= log_sum(scores)
        usable = np.where(allowed.mask, scores, -np.inf)
        items = _best(usable, k)
        return BestItems(items, scores[items], _AllScores(scores))


def _known(table: FloatArray, zero_is_unknown: bool, of_first: BoolArray | None) -> BoolArray:
    """(N,) rows that can be scored; `of_first` holds what is known of the first ones."""
    first = 0 if of_first is None else len(of_first)
    rest = np.any(table[first:] != 0, axis=1) if zero_is_unknown else np.ones(len(table) - first, dtype=np.bool_)
    return rest if of_first is None else np.concatenate([of_first, rest])


@dataclass(frozen=True, eq=False)
class _AllScores:
    """Log-probabilities of all items (N,), called with some; it can be sent to another process."""

    log_probs: FloatArray

    def __call__(self, items: IntArray) -> FloatArray:
        return self.log_probs[items]


@dataclass(frozen=True, eq=False)
class _SomeScores:
    """Log-probabilities that are computed when they are asked for; it can be sent to another process."""

    query: FloatArray  # (W,)
    normaliser: np.float32
    table: FloatArray  # (N, W)
    known: BoolArray | None  # (N,) None: all are

    def __call__(self, items: IntArray) -> FloatArray:
        scores = np.empty(len(items), dtype=np.float32)
        for first in range(0, len(items), ROWS_AT_ONCE):
            part = slice(first, first + ROWS_AT_ONCE)
            scores[part] = inner_products(self.query, self.table[items[part]])
        scores -= self.normaliser
        if self.known is not None:
            scores[~self.known[items]] = -np.inf
        return scores


class _HnswSearch:
    """The search by HNSW."""

    def __init__(self, table: FloatArray, known: BoolArray, hnsw: HnswIndex) -> None:
        self._table, self._hnsw, self._num_rows = table, hnsw, hnsw.num_rows
        rows = np.flatnonzero(known)
        self._num_known, self._known = len(rows), None if len(rows) == len(table) else known
        self._more = np.arange(self._num_rows, len(table))
        drawn = np.random.default_rng(0).integers(0, max(len(rows), 1), SAMPLE if len(rows) else 0)
        self._sample: IntArray = rows[np.unique(drawn)]
        self._sampled = table[self._sample]

    def find(self, query: FloatArray, allowed: ItemMask, k: int) -> BestItems:
        more = self._more
        head = self._hnsw.search(query, max(k, HEAD) + SPARE, ef=self._hnsw.ef)
        scores_of = _SomeScores(query, np.float32(0), self._table, self._known)
        normaliser = self._normaliser(scores_of, np.concatenate([head[:HEAD], more]))
        log_probs_of = replace(scores_of, normaliser=normaliser)
        found = self._allowed_items(query, allowed, k, head)
        found = np.concatenate([found, more[allowed.mask[more]]])
        scores = log_probs_of(found)
        order = np.lexsort((found, -scores))
        order = order[np.isfinite(scores[order])][:k]
        return BestItems(found[order], scores[order], log_probs_of)

    def _allowed_items(self, query: FloatArray, allowed: ItemMask, k: int, head: IntArray) -> IntArray:
        """Rows of the index, in no order: the k best allowed ones, and perhaps more."""
        if allowed.count >= SCORED_ALL * len(self._table) ** 0.5:
            share = allowed.count / len(self._table)
            found = head[allowed.mask[head]]
            if share < LEAST_ALLOWED or len(found) < k:
                # Of the candidates that a search keeps only this share is allowed.
                ef = round(max(self._hnsw.ef, k) / share)
                found = self._hnsw.search(query, k + SPARE, ef=ef, allowed=allowed)
            if len(found) >= k:
                return found
        return allowed.rows[allowed.rows < self._num_rows]

    def _normaliser(self, scores_of: _SomeScores, head: IntArray) -> np.float32:
        """The logarithm of the sum of exp(score) over all known items; `head` is summed exactly."""
        exact = scores_of(head)
        exact = exact[np.isfinite(exact)]
        rest = inner_products(scores_of.query, self._sampled)
        places = np.searchsorted(self._sample, head)  # the sample ascends
        places = places[self._sample[np.minimum(places, len(rest) - 1)] == head] if len(rest) else places[:0]
        rest[places] = -np.inf
        num_rest, num_sampled = self._num_known - len(exact), len(rest) - len(places)
        if num_sampled <= 0 or num_rest <= 0:
            return log_sum(exact)
        of_rest = log_sum(rest) + np.float32(np.log(num_rest / num_sampled))
        return np.float32(np.logaddexp(log_sum(exact), of_rest))


def inner_products(query: FloatArray, table: FloatArray) -> FloatArray:
    """(N,) float32: the query (W,) by every row of a table (N, W), both contiguous float32; one thread.

    An element's bits do not depend on the other rows: NumPy's product would use BLAS, with threads of its own.
    """
    scores = np.empty(len(table), dtype=np.float32)
    pointers = [faiss.swig_ptr(array) for array in (scores, query, table)]
    _faiss.fvec_inner_products_ny(*pointers, table.shape[1], len(table))
    return scores


def log_sum(scores: FloatArray) -> np.float32:
    """The logarithm of the sum of exp(score); 0 where no score is finite, so that −inf stays −inf."""
    highest = scores.max(initial=-np.inf)
    if not np.isfinite(highest):
        return np.float32(0)
    return np.float32(highest + np.log(np.exp(scores - highest).sum()))


def _best(scores: FloatArray, k: int) -> IntArray:
    """The rows of the k largest scores above −inf, best first, ties to the lower row."""
    if k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        rows = np.flatnonzero((scores >= least) & (scores > -np.inf))
    else:
        rows = np.flatnonzero(scores > -np.inf)
    return rows[np.argsort(-scores[rows], kind="stable")][:k]
