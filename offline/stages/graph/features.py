"""Computes base users' features, and fits the map that predicts a user's semantic feature from its items' texts.

A query has no feature from the reasoner: `feature_map` predicts its semantic part from its items' texts, in training as
in serving. Base users, among whom neighbours are searched, have the reasoner's feature. Arrays in, arrays out.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from isrf.method.interest import FloatArray, InterestTables, pad_histories, read_history, unit_rows

RIDGE = 1e-3
"""Strength of the ridge relative to the mean variance of an input dimension."""

_BLOCK_USERS = 2048


def split_histories(users: NDArray[np.int64], items: NDArray[np.int64], num_users: int) -> list[list[int]]:
    """The training items of every user, oldest first; `users` (T,) is sorted. A user without events has none."""
    stops = np.cumsum(np.bincount(users, minlength=num_users))[:-1]
    return [part.tolist() for part in np.split(items, stops)]


def read_base_users(
    tables: InterestTables, histories: list[list[int]], *, length: int
) -> Iterator[tuple[slice, FloatArray, FloatArray]]:
    """Runs `read_history` over all base users' last `length` items, in blocks.

    Yields:
        rows, explicit vectors (B, E) and features (B, F) of a block.
    """
    for first in range(0, len(histories), _BLOCK_USERS):
        rows = slice(first, min(first + _BLOCK_USERS, len(histories)))
        explicit, feature = read_history(tables, *pad_histories(histories[rows], length))
        yield rows, explicit, feature


def mean_item_text(item_text: FloatArray, histories: list[list[int]], *, recency: float, length: int) -> FloatArray:
    """The recency-weighted mean text of each history's last `length` items, (U, D_t), scaled to length 1 or 0."""
    identity = InterestTables(
        item_text=item_text,
        item_layers=np.zeros((len(item_text), 1), dtype=np.float32),
        feature_map=np.eye(item_text.shape[1], dtype=np.float32),
        recency=recency,
        text_share=1.0,
    )
    means = np.zeros((len(histories), item_text.shape[1]), dtype=np.float32)
    for rows, _, feature in read_base_users(identity, histories, length=length):
        means[rows] = feature[:, : item_text.shape[1]]
    return means


def fit_feature_map(means: FloatArray, user_text: FloatArray) -> FloatArray:
    """Fits a ridge regression from mean item text to semantic user feature, (D_t, D_t) float32.

    The ridge pulls towards the identity (both sides are in one embedding space), so that directions without any base
    user stay unchanged. Without usable users the map is the identity.
    """
    usable = (np.abs(means).sum(axis=1) > 0) & (np.abs(user_text).sum(axis=1) > 0)
    identity = np.eye(means.shape[1])
    if not usable.any():
        return identity.astype(np.float32)
    inputs, outputs = means[usable].astype(np.float64), user_text[usable].astype(np.float64)
    gram = inputs.T @ inputs
    strength = RIDGE * np.trace(gram) / len(gram)
    solution = np.linalg.solve(gram + strength * identity, inputs.T @ outputs + strength * identity)
    return np.asarray(solution, dtype=np.float32)


def join_features(semantic: FloatArray, explicit: FloatArray, text_share: float) -> FloatArray:
    """[sqrt(share) · semantic ⊕ sqrt(1 − share) · explicit], (U, F) float32, scaled to length 1 or 0.

    Both parts have rows of length 1 or 0.
    """
    return unit_rows(
        np.concatenate([np.sqrt(text_share) * semantic, np.sqrt(1.0 - text_share) * explicit], axis=1).astype(
            np.float32
        )
    )
