"""Base users' features, and the map that predicts a user's semantic feature from its items' (arrays in, arrays out).

A query brings no feature of its own: its semantic part is predicted from its items' texts by `feature_map`, in training
as in serving. Base users, the ones that are searched, carry the reasoner's feature.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from isrf.method.interest import FloatArray, InterestTables, pad_histories, read_history, unit_rows

RIDGE = 1e-3
"""Strength of the ridge relative to the mean variance of an input dimension."""

_BLOCK_USERS = 2048


def split_histories(users: NDArray[np.int64], items: NDArray[np.int64], num_users: int) -> list[list[int]]:
    """Training items of every user, oldest first; `users` (T,) is sorted. Users without events get an empty list."""
    stops = np.cumsum(np.bincount(users, minlength=num_users))[:-1]
    return [part.tolist() for part in np.split(items, stops)]


def read_base_users(
    tables: InterestTables, histories: list[list[int]], *, length: int
) -> Iterator[tuple[slice, FloatArray, FloatArray]]:
    """`read_history` over all base users' last `length` items, in blocks: rows, explicit (B, E), feature (B, F)."""
    for first in range(0, len(histories), _BLOCK_USERS):
        rows = slice(first, min(first + _BLOCK_USERS, len(histories)))
        explicit, feature = read_history(tables, *pad_histories(histories[rows], length))
        yield rows, explicit, feature


def mean_item_text(item_text: FloatArray, histories: list[list[int]], *, recency: float, length: int) -> FloatArray:
    """Direction of the recency-weighted mean text of each history's last `length` items, (U, D_t), length 1 or 0."""
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
    """Ridge from mean item text to semantic user feature, (D_t, D_t) float32; the identity with nobody to learn from.

    The ridge pulls towards the identity (both sides live in one embedding space), so that directions which no base
    user has are kept as they are.
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
    """[sqrt(share) · semantic ⊕ sqrt(1 − share) · explicit], (U, F) float32, length 1, 0 where both parts are.

    Both parts have rows of length 1 or 0.
    """
    return unit_rows(
        np.concatenate([np.sqrt(text_share) * semantic, np.sqrt(1.0 - text_share) * explicit], axis=1).astype(
            np.float32
        )
    )
