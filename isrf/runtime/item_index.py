"""Finds the best items of a query by inner product (FAISS): among all items, or in a few cells of a large catalogue.

It implements `isrf.method.recommend.item_search.ItemSearch`, for service and offline job alike. Without cells a search
scores every item, which costs 8 µs for a thousand items of width 64. With cells it looks into a few of them, or where a
filter leaves few items it scores these alone; then it scores what it found exactly, and estimates the normaliser of the
softmax: the best items exactly, the rest from a fixed sample. `offline.stages.export_onnx.item_cells` makes the cells,
and measures how many a search must look into.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from isrf.method.interest import BoolArray, FloatArray, IntArray
from isrf.method.recommend.item_masks import ItemMask
from isrf.method.recommend.item_search import BestItems
from isrf.runtime.neighbour_index import Cells, divided_index

SCORED_ALL = 10_000
"""Allowed items up to which all of them are scored, rather than cells searched."""
HEAD = 256
"""Best items whose share of the normaliser is exact."""
SAMPLE = 8_192
"""Items from which the share of all others is estimated."""
LEAST_ALLOWED = 0.9
"""Share of allowed items from which the normaliser's best items serve the list too, without a second search."""
SPARE = 64
"""Further items that such a search finds, for those of the best that are not allowed."""


class DividedItems(NamedTuple):
    """The first rows of a table as a FAISS index with cells."""

    index: Any
    num_rows: int
    num_cells: int
    probes: int  # cells that a search looks into

    @classmethod
    def of(cls, table: FloatArray, cells: Cells) -> "DividedItems":
        """Puts all rows of a table (N, W) into their cells; a row with the cell −1 is found by no search."""
        return cls(divided_index(table, cells), len(table), len(cells.centroids), cells.probes)


class ItemIndex:
    """The search of one table."""

    def __init__(
        self, table: FloatArray, *, zero_is_unknown: bool = False, divided: DividedItems | None = None
    ) -> None:
        """
        Args:
            table: (N, W) float32; it is not copied where it is contiguous.
            zero_is_unknown: a row of zeros cannot be scored, so no search finds it.
            divided: if present, a search looks into a few of its cells; it scores the rows behind them one by one.
        """
        self._table = np.ascontiguousarray(table, dtype=np.float32)
        self._zero_is_unknown = zero_is_unknown
        known = np.any(self._table != 0, axis=1) if zero_is_unknown else np.ones(len(table), dtype=np.bool_)
        self._known: BoolArray | None = None if known.all() else known
        self._divided = divided
        self._cells = None if divided is None else _CellSearch(self._table, known, divided)

    def with_rows(self, rows: FloatArray) -> "ItemIndex":
        """A search over the same items and then x more, (x, W) float32."""
        table = np.concatenate([self._table, rows])
        return ItemIndex(table, zero_is_unknown=self._zero_is_unknown, divided=self._divided)

    def find(self, query: FloatArray, allowed: ItemMask, k: int) -> BestItems:
        """As `ItemSearch.find`."""
        query = np.ascontiguousarray(query, dtype=np.float32)
        return self._find_all(query, allowed, k) if self._cells is None else self._cells.find(query, allowed, k)

    def _find_all(self, query: FloatArray, allowed: ItemMask, k: int) -> BestItems:
        scores = inner_products(query, self._table)
        if self._known is not None:
            scores[~self._known] = -np.inf
        scores -= log_sum(scores)
        usable = np.where(allowed.mask, scores, -np.inf)
        items = _best(usable, k)
        return BestItems(items, scores[items], _AllScores(scores))


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
        scores = inner_products(self.query, self.table[items]) - self.normaliser
        if self.known is not None:
            scores[~self.known[items]] = -np.inf
        return scores


class _CellSearch:
    """The search in cells."""

    def __init__(self, table: FloatArray, known: BoolArray, divided: DividedItems) -> None:
        self._table, self._divided = table, divided
        rows = np.flatnonzero(known)
        self._num_known, self._known = len(rows), None if len(rows) == len(table) else known
        self._more = np.arange(divided.num_rows, len(table))
        drawn = np.random.default_rng(0).integers(0, max(len(rows), 1), SAMPLE if len(rows) else 0)
        self._sample: IntArray = rows[np.unique(drawn)]
        self._sampled = table[self._sample]

    def find(self, query: FloatArray, allowed: ItemMask, k: int) -> BestItems:
        more = self._more
        head = self._search(query, max(k, HEAD) + SPARE, None, self._divided.probes)
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
        """Rows among the divided items, in no order: the k best allowed ones, and perhaps more."""
        if allowed.count <= SCORED_ALL:
            return allowed.rows[allowed.rows < self._divided.num_rows]
        if allowed.count >= LEAST_ALLOWED * len(self._table):
            found = head[allowed.mask[head]]
            if len(found) >= k:
                return found
        # A cell holds fewer allowed items than items: look into more cells.
        probes = -(-self._divided.probes * len(self._table) // allowed.count)
        found = self._search(query, k, allowed.packed, probes)
        return found if len(found) >= k else self._search(query, k, allowed.packed, self._divided.num_cells)

    def _search(self, query: FloatArray, k: int, packed: NDArray[np.uint8] | None, probes: int) -> IntArray:
        """Rows of the k best divided items, best first by their float16 scores."""
        selector = None if packed is None else faiss.IDSelectorBitmap(len(packed), faiss.swig_ptr(packed))
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=min(probes, self._divided.num_cells))  # type: ignore[call-arg]
        rows: IntArray = self._divided.index.search(query[None], k, params=parameters)[1][0]
        return rows[rows >= 0]

    def _normaliser(self, scores_of: _SomeScores, head: IntArray) -> np.float32:
        """The logarithm of the sum of exp(score) over all known items; `head` is summed exactly."""
        exact = scores_of(head)
        exact = exact[np.isfinite(exact)]
        rest = inner_products(scores_of.query, self._sampled)[~np.isin(self._sample, head)]
        num_rest = self._num_known - len(exact)
        if not len(rest) or num_rest <= 0:
            return log_sum(exact)
        of_rest = log_sum(rest) + np.float32(np.log(num_rest / len(rest)))
        return np.float32(np.logaddexp(log_sum(exact), of_rest))


def inner_products(query: FloatArray, table: FloatArray) -> FloatArray:
    """(N,) float32: the query (W,) by every row of a table (N, W), both contiguous float32; one thread.

    An element's bits do not depend on the other rows: NumPy's product would use BLAS, with threads of its own.
    """
    scores = np.empty(len(table), dtype=np.float32)
    faiss_functions: Any = faiss  # whose stubs lack this one
    pointers = [faiss.swig_ptr(array) for array in (scores, query, table)]
    faiss_functions.fvec_inner_products_ny(*pointers, table.shape[1], len(table))
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
