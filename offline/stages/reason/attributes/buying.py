"""What an item's buyers also take, more and less often than shoppers at large (sparse matrices in, short lists out).

For an attribute (category, brand) with one label per item: observed purchases of the label by the item's buyers, the
item itself left out, against what the label's share of all purchases would give. Fast path in blocks of items.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

MIN_OBSERVED = 2
MIN_EXPECTED = 1.0
MIN_DEVIATION = 1.0
"""Standard deviations (Poisson) from the expected count, either way, before a label is worth a word."""

NUM_LABELS = 4
_BLOCK_ITEMS = 1024


class Labels(NamedTuple):
    """One label per item: `names` sorted, `rows` (N,) int64 into it, −1 without a label."""

    names: list[str]
    rows: NDArray[np.int64]


class Leaning(NamedTuple):
    """Per item: rows of the labels its buyers take more, and less, than expected; strongest first."""

    over: list[list[int]]
    under: list[list[int]]


def number_labels(labels: Sequence[str]) -> Labels:
    """Numbers the distinct labels in alphabetical order; an empty one is none."""
    names = sorted(set(labels) - {""})
    index = {name: row for row, name in enumerate(names)}
    return Labels(names, np.array([index.get(label, -1) for label in labels], dtype=np.int64))


def measure_leaning(taken: sparse.csr_array, labels: Labels) -> Leaning:
    """`Leaning` of every item's buyers.

    Args:
        taken: (U, N) float32 of ones.
        labels: one attribute.
    """
    num_items, num_labels = taken.shape[1], len(labels.names)
    if not num_labels:
        return Leaning([[] for _ in range(num_items)], [[] for _ in range(num_items)])
    has = np.flatnonzero(labels.rows >= 0)
    one_hot = sparse.csr_array(
        (np.ones(len(has), dtype=np.float32), (has, labels.rows[has])), shape=(num_items, num_labels)
    )
    by_user = (taken @ one_hot).tocsr()  # (U, labels)
    totals = np.asarray(by_user.sum(axis=0), dtype=np.float64).ravel()
    share = totals / max(totals.sum(), 1.0)
    buyers = taken.T.tocsr()  # (N, U)
    over: list[list[int]] = []
    under: list[list[int]] = []
    for first in range(0, num_items, _BLOCK_ITEMS):
        rows = np.arange(first, min(first + _BLOCK_ITEMS, num_items))
        observed = (buyers[rows] @ by_user).toarray().astype(np.float64)
        own = labels.rows[rows]
        known = own >= 0
        observed[np.flatnonzero(known), own[known]] -= np.diff(buyers[rows].indptr)[known]
        expected = observed.sum(axis=1, keepdims=True) * share
        deviation = (observed - expected) / np.sqrt(expected + 0.5)
        deviation[np.flatnonzero(known), own[known]] = 0.0  # its own label is said first, in its own words
        more = np.where(observed >= MIN_OBSERVED, deviation, 0.0)
        less = np.where(expected >= MIN_EXPECTED, -deviation, 0.0)
        over += _strongest(more)
        under += _strongest(less)
    return Leaning(over, under)


def _strongest(deviation: NDArray[np.float64]) -> list[list[int]]:
    """Per row the columns of the largest deviations above the minimum; equal ones in column order."""
    rounded = np.round(deviation, 6)  # sums of one matrix in another order differ in their last bits
    order = np.argsort(-rounded, axis=1, kind="stable")[:, :NUM_LABELS]
    values = np.take_along_axis(rounded, order, axis=1)
    return [
        [int(column) for column, value in zip(columns, row, strict=True) if value >= MIN_DEVIATION]
        for columns, row in zip(order, values, strict=True)
    ]
