"""Computes a history's individual and group interest, in training, evaluation and serving alike.

Every training, validation and served sample gets its explicit vector, its query feature and its group vector from these
functions, applied to the history before the target. So no sample can see its target, and training and serving compute
the same. `lightgcn.onnx` is `read_history` with its tables inside (a test checks that the two are equal).

It knows no index: the caller searches the nearest base users and passes them to `select_neighbours`.
Source: arXiv 2603.13934, section 3 (explicit and implicit interests); LightGCN, arXiv 2002.02126, equation 3.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from isrf.contract.manifest import GroupSearch

FloatArray: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]

NeighbourSearch: TypeAlias = Callable[[FloatArray, int], tuple[FloatArray, IntArray]]
"""(features (B, F), k) → cosine (B, k) best first, rows of base users (B, k); −1 where there are fewer than k."""

_TINY = np.float32(1e-12)
_MIN_SPAN = 1e-4
"""Smallest difference between random and nearest pairs; below it they differ by rounding only (all histories equal)."""


class InterestTables(NamedTuple):
    """The tables that `read_history` needs. Rows of `item_text` have length 1, or 0 for an item without text."""

    item_text: FloatArray  # (N, D_t)
    item_layers: FloatArray  # (N, E) LightGCN layers, degree normalisation folded in
    feature_map: FloatArray  # (D_t, D_t) mean item text → predicted semantic user feature
    recency: float  # weight of an item: recency ** age, newest 1
    text_share: float  # share of the semantic part in a feature's squared length; the rest is the LightGCN part


class HistoryInterest(NamedTuple):
    explicit: FloatArray  # (B, E) length 1; 0 for a history without information
    feature: FloatArray  # (B, F) the query feature, F = D_t + E; length 1 or 0


class Neighbours(NamedTuple):
    """Similar users of B queries, best first."""

    users: IntArray  # (B, M) rows of base users, −1 padded
    similarity: FloatArray  # (B, M) calibrated, 0 where padded
    weak: BoolArray  # (B,) no user reached the threshold


def unit_rows(array: FloatArray) -> FloatArray:
    """Rows scaled to length 1; rows of length 0 stay 0. (…, D) float32 → (…, D) float32."""
    norms = np.sqrt(np.sum(np.square(array), axis=-1, keepdims=True))
    scaled: FloatArray = (array / np.maximum(norms, _TINY)).astype(np.float32)
    return scaled


def pad_histories(histories: Sequence[Sequence[int]], length: int) -> tuple[IntArray, BoolArray]:
    """The last `length` items of each history, most recent first.

    The width is always `length`. Otherwise the last bits of an answer could depend on a longer history in the same
    batch.

    Args:
        histories: item rows, oldest first.
        length: H, the most items of a history that are used.

    Returns:
        rows (B, H) int64, 0 where there is none, and their mask (B, H) bool.
    """
    rows = np.zeros((len(histories), length), dtype=np.int64)
    mask = np.zeros((len(histories), length), dtype=np.bool_)
    for b, history in enumerate(histories):
        recent = history[-length:][::-1]
        rows[b, : len(recent)] = recent
        mask[b, : len(recent)] = True
    return rows, mask


def read_history(tables: InterestTables, history: IntArray, mask: BoolArray) -> HistoryInterest:
    """Explicit vectors and query features of B histories.

    Explicit: a user's layer k is the normalised sum of its items' layers k − 1 (LightGCN, equation 3, without
    parameters per user), weighted by recency. Feature: a map fitted offline *predicts* the semantic part from the
    items' features, in training too, so that a query never needs a feature from the LLM.

    Args:
        history: (B, H) int64 item rows, most recent first.
        mask: (B, H) bool, False where there is no item.
    """
    age = np.arange(history.shape[1], dtype=np.float32)
    weights = np.where(mask, np.float32(tables.recency) ** age, np.float32(0))  # (B, H)
    explicit = unit_rows(np.einsum("bh,bhe->be", weights, tables.item_layers[history]))
    mean_text = np.einsum("bh,bht->bt", weights, tables.item_text[history])
    semantic = unit_rows(mean_text @ tables.feature_map)
    feature = np.concatenate(
        [
            np.float32(np.sqrt(tables.text_share)) * semantic,
            np.float32(np.sqrt(1.0 - tables.text_share)) * explicit,
        ],
        axis=1,
    )
    return HistoryInterest(explicit, unit_rows(feature))


def calibrate(search: GroupSearch, cosine: FloatArray) -> FloatArray:
    """Cosine → calibrated similarity: 0 for a random pair of users, 1 for a typical nearest pair.

    Cosine scales differ from encoder to encoder, so ISRF's threshold of 0.7 means nothing for raw cosines. Where a
    random pair is as near as a nearest pair, there is no scale: a user at least that near gets 1, any other 0.
    """
    span = search.nearest_cosine - search.background_cosine
    if span < _MIN_SPAN:
        return (cosine >= search.background_cosine - _MIN_SPAN).astype(np.float32)
    return ((cosine - search.background_cosine) / span).astype(np.float32)


def select_neighbours(search: GroupSearch, cosine: FloatArray, users: IntArray, own: IntArray) -> Neighbours:
    """Selects the similar users from the nearest users.

    Users at or above the threshold are selected, at most `max_neighbours` of them, without the query's own row. Where
    no user reaches the threshold, the nearest `min_neighbours` are selected and marked weak. A cosine of exactly 0 is
    skipped: the query or the user has no feature then. (The background cosine may lie below 0.)

    Args:
        cosine: (B, M') float32, best first.
        users: (B, M') int64 rows of base users, −1 padded.
        own: (B,) int64 the query's own row, or −1.

    Returns:
        M = `search.max_neighbours` columns, or M' where that is fewer.
    """
    width = min(search.max_neighbours, users.shape[1])
    real = (users >= 0) & (users != own[:, None]) & (cosine != 0)
    similarity = calibrate(search, np.where(users >= 0, cosine, np.float32(0)))  # the index pads with huge negatives
    near = real & (similarity >= search.threshold)
    weak = ~near.any(axis=1)
    few = real & (np.cumsum(real, axis=1) <= search.min_neighbours)
    chosen = np.where(weak[:, None], few & (similarity > 0), near)
    chosen &= np.cumsum(chosen, axis=1) <= width
    order = np.argsort(~chosen, axis=1, kind="stable")[:, :width]
    selected = np.take_along_axis(chosen, order, axis=1)
    return Neighbours(
        users=np.where(selected, np.take_along_axis(users, order, axis=1), -1),
        similarity=np.where(selected, np.take_along_axis(similarity, order, axis=1), np.float32(0)),
        weak=weak,
    )


def group_interest(neighbours: Neighbours, group_layers: NDArray[np.float16] | FloatArray) -> FloatArray:
    """The group vectors (B, G) float32 of length 1 or 0: the normalised sum of the neighbours' stored layers.

    Args:
        group_layers: (U, G), the last layer but one over the similar-user graph, degree normalisation folded in.
    """
    rows = group_layers[np.maximum(neighbours.users, 0)].astype(np.float32)  # (B, M, G)
    real = (neighbours.users >= 0).astype(np.float32)
    return unit_rows(np.einsum("bm,bmg->bg", real, rows))
