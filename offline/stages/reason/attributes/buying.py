"""Finds the categories and brands that an item's buyers take more, and less, often than all shoppers.

An attribute (category, brand) has one label per item. The module counts how often the item's buyers purchased each
label, without the item itself, and compares the count with the label's share of all purchases. It works in blocks of
items to bound the memory. Sparse matrices go in, short lists come out.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

MIN_OBSERVED = 2
MIN_EXPECTED = 1.0
MIN_DEVIATION = 1.0
"""A label is listed from this many standard deviations (Poisson) above or below the expected count."""

NUM_LABELS = 4
_BLOCK_ITEMS = 1024


class Labels(NamedTuple):
    """One label per item: `names` is sorted; `rows`, (N,) int64, points into it and is −1 without a label."""

    names: list[str]
    rows: NDArray[np.int64]


class Leaning(NamedTuple):
    """Per item: rows of the labels that its buyers take more, and less, than expected; strongest first."""

    over: list[list[int]]
    under: list[list[int]]


def number_labels(labels: Sequence[str]) -> Labels:
    """Numbers the distinct labels in alphabetical order; an empty string counts as no label."""
    names = sorted(set(labels) - {""})
    index = {name: row for row, name in enumerate(names)}
    return Labels(names, np.array([index.get(label, -1) for label in labels], dtype=np.int64))


def measure_leaning(interactions: sparse.csr_array, labels: Labels) -> Leaning:
    """Returns the labels that every item's buyers take more, and less, than expected.

    Args:
        interactions: (U, N) float32, 1 where the user took the item.
        labels: the labels of one attribute.
    """
    num_items, num_labels = interactions.shape[1], len(labels.names)
    if not num_labels:
        return Leaning([[] for _ in range(num_items)], [[] for _ in range(num_items)])
    labelled = np.flatnonzero(labels.rows >= 0)
    one_hot = sparse.csr_array(
        (np.ones(len(labelled), dtype=np.float32), (labelled, labels.rows[labelled])), shape=(num_items, num_labels)
    )
    by_user = (interactions @ one_hot).tocsr()  # (U, labels)
    totals = np.asarray(by_user.sum(axis=0), dtype=np.float64).ravel()
    share = totals / max(totals.sum(), 1.0)
    buyers = interactions.T.tocsr()  # (N, U)
    over: list[list[int]] = []
    under: list[list[int]] = []
    for first in range(0, num_items, _BLOCK_ITEMS):
        rows = np.arange(first, min(first + _BLOCK_ITEMS, num_items))
        observed = (buyers[rows] @ by_user).toarray().astype(np.float64)
        own_labels = labels.rows[rows]
        has_label = own_labels >= 0
        observed[np.flatnonzero(has_label), own_labels[has_label]] -= np.diff(buyers[rows].indptr)[has_label]
        expected = observed.sum(axis=1, keepdims=True) * share
        deviation = (observed - expected) / np.sqrt(expected + 0.5)
        # the sentences name the item's own label already
        deviation[np.flatnonzero(has_label), own_labels[has_label]] = 0.0
        more = np.where(observed >= MIN_OBSERVED, deviation, 0.0)
        less = np.where(expected >= MIN_EXPECTED, -deviation, 0.0)
        over += _strongest(more)
        under += _strongest(less)
    return Leaning(over, under)


def _strongest(deviation: NDArray[np.float64]) -> list[list[int]]:
    """Per row the columns of the largest deviations above the minimum; equal deviations in column order."""
    rounded = np.round(deviation, 6)  # the order of a sum changes its last bits
    order = np.argsort(-rounded, axis=1, kind="stable")[:, :NUM_LABELS]
    values = np.take_along_axis(rounded, order, axis=1)
    return [
        [int(column) for column, value in zip(columns, row, strict=True) if value >= MIN_DEVIATION]
        for columns, row in zip(order, values, strict=True)
    ]
