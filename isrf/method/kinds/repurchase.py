"""Finds items that users take again and again, and after how long. Arrays in, arrays out."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.method.interest import BoolArray, FloatArray, IntArray

SAME_PURCHASE_S = 86_400.0
"""Two purchases of an item that are nearer than this are one."""


class Repurchases(NamedTuple):
    """What a shop's users buy again, by item."""

    intervals: NDArray[np.float64]  # (N,) seconds between two purchases of one user, the median; NaN where none repeats
    users: IntArray  # (N,) users who bought the item again


def repurchases(
    indptr: IntArray,
    items: NDArray[np.int32],
    timestamps: NDArray[np.float64],
    bought: BoolArray,
    *,
    num_items: int,
) -> Repurchases:
    """Measures repeated purchases.

    Args:
        indptr: (U + 1,) the users' events.
        items: (E,) item rows.
        timestamps: (E,) seconds; events without a time (NaN) are left out.
        bought: (E,) whether an event is a purchase.
    """
    users = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    counted = bought & np.isfinite(timestamps)
    owners, rows, times = users[counted], items[counted].astype(np.int64), timestamps[counted]
    order = np.lexsort((times, owners, rows))
    owners, rows, times = owners[order], rows[order], times[order]
    gaps = np.diff(times)
    again = (rows[1:] == rows[:-1]) & (owners[1:] == owners[:-1]) & (gaps >= SAME_PURCHASE_S)
    repeated, gaps, who = rows[1:][again], gaps[again], owners[1:][again]
    intervals = np.full(num_items, np.nan)
    by_gap = np.lexsort((gaps, repeated))
    distinct, starts, counts = np.unique(repeated[by_gap], return_index=True, return_counts=True)
    sorted_gaps = gaps[by_gap]
    intervals[distinct] = (sorted_gaps[starts + (counts - 1) // 2] + sorted_gaps[starts + counts // 2]) / 2
    pairs = np.unique(np.stack([repeated, who], axis=1), axis=0)
    return Repurchases(intervals, np.bincount(pairs[:, 0], minlength=num_items).astype(np.int64))


def due(elapsed_s: NDArray[np.float64], intervals_s: NDArray[np.float64]) -> FloatArray:
    """(k,) how due each item is, from 0 to 1: 1 where exactly its interval has passed, 1/2 at half or twice of it."""
    ratio = np.maximum(elapsed_s, 1.0) / intervals_s
    return np.minimum(ratio, 1.0 / ratio).astype(np.float32)
