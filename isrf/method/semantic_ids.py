"""Unique semantic IDs from residual codebooks (arrays in, arrays out).

Every level has the same rule: an item gets the nearest code with room, where a code of level l (1 … L) has room for
C^(L − l) items. So on the last level an item gets the nearest *free* code, a full prefix overflows to the nearest
prefix with room, and assignment fails only where N > C^L. If a code has too little room, the items nearest to it get
it; exact ties go to the lower row.

Source: residual quantisation as in TIGER, arXiv 2305.05065, section 3.1, without its extra collision level.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.contract.errors import ConfigError
from isrf.method.interest import FloatArray, unit_rows

_BLOCK_ITEMS = 8192


class SemanticIds(NamedTuple):
    """Every item's tuple of codes; no two are equal."""

    codes: NDArray[np.int32]  # (N, L) in 0 … C − 1
    displaced: NDArray[np.int64]  # (L,) items that did not get their nearest code on that level


def check_capacity(num_items: int, *, levels: int, codebook_size: int) -> None:
    """Raises `ConfigError` (`config.semantic_ids_capacity`) where num_items > codebook_size ** levels."""
    if num_items <= codebook_size**levels:
        return
    enough_levels = levels
    while codebook_size > 1 and codebook_size**enough_levels < num_items:
        enough_levels += 1
    enough_codes = codebook_size
    while enough_codes**levels < num_items:
        enough_codes += 1
    more_levels = f"--set semantic_ids.levels={enough_levels} or " if codebook_size > 1 else ""
    raise ConfigError(
        "config.semantic_ids_capacity",
        f"{num_items} items do not fit into {levels} levels of {codebook_size} codes "
        f"({codebook_size**levels} semantic IDs).",
        fix=f"Give {more_levels}--set semantic_ids.codebook_size={enough_codes}.",
    )


def fuse_vectors(item_text: FloatArray, embeddings: FloatArray, text_share: float) -> FloatArray:
    """[sqrt(share) · text ⊕ sqrt(1 − share) · unit LightGCN embedding], (N, D_t + E) float32."""
    text = np.sqrt(text_share) * unit_rows(item_text)
    graph = np.sqrt(1.0 - text_share) * unit_rows(embeddings)
    return np.concatenate([text, graph], axis=1).astype(np.float32)


def nearest_codes(vectors: FloatArray, codebooks: Sequence[FloatArray]) -> NDArray[np.int64]:
    """(N, L): every level's nearest code, whether it has room or not.

    `assign_semantic_ids` gives the same codes where no two items compete for a code.

    Args:
        vectors: (N, D) float32.
        codebooks: per level (C_l, D) float32.
    """
    residual = vectors.astype(np.float32)
    codes = np.zeros((len(vectors), len(codebooks)), dtype=np.int64)
    for level, codebook in enumerate(codebooks):
        codes[:, level] = _nearest_code(residual, codebook)
        residual -= codebook[codes[:, level]]
    return codes


def assign_semantic_ids(vectors: FloatArray, codebooks: Sequence[FloatArray], *, codebook_size: int) -> SemanticIds:
    """Assigns unique codes to N items by residual quantisation with limited room per code.

    Args:
        vectors: (N, D) float32.
        codebooks: per level (C_l, D) float32, C_l <= codebook_size. Codes without a row are used last, in order.
        codebook_size: C.

    Raises:
        ConfigError: `config.semantic_ids_capacity`, more items than semantic IDs.
    """
    num_items, levels = len(vectors), len(codebooks)
    check_capacity(num_items, levels=levels, codebook_size=codebook_size)
    codes = np.zeros((num_items, levels), dtype=np.int32)
    displaced = np.zeros(levels, dtype=np.int64)
    residual = vectors.astype(np.float32)
    group = np.zeros(num_items, dtype=np.int64)  # number of the item's prefix among those in use
    for level, codebook in enumerate(codebooks):
        room = min(codebook_size ** (levels - 1 - level), max(num_items, 1))
        chosen = _assign_level(residual, codebook, group, codebook_size=codebook_size, room=room)
        codes[:, level], displaced[level] = chosen.codes, chosen.displaced
        real = chosen.codes < len(codebook)
        residual[real] -= codebook[chosen.codes[real]]
        _, group = np.unique(group * codebook_size + chosen.codes, return_inverse=True)
    return SemanticIds(codes, displaced)


class _Level(NamedTuple):
    codes: NDArray[np.int64]  # (N,)
    displaced: int


def _assign_level(
    residual: FloatArray, codebook: FloatArray, group: NDArray[np.int64], *, codebook_size: int, room: int
) -> _Level:
    """Assigns each item the nearest code with room; at most `room` items per (group, code).

    In every round each unassigned item proposes to its next nearest code; a code accepts the nearest of the proposing
    items while it has room. No item proposes to a code twice, so there are at most C rounds.
    """
    num_items = len(residual)
    codes = _nearest_code(residual, codebook)
    left = np.full((int(group.max(initial=-1)) + 1) * codebook_size, room, dtype=np.int32)
    distance = _distance(residual, codebook, codes)
    accepted = _accept(group * codebook_size + codes, distance, left)
    waiting = np.flatnonzero(~accepted)
    displaced = len(waiting)
    if displaced == 0:
        return _Level(codes, 0)
    order, distances = _preferences(residual[waiting], codebook, codebook_size)
    place = np.zeros(num_items, dtype=np.int64)
    place[waiting] = np.arange(len(waiting))
    for choice in range(codebook_size):
        rows = place[waiting]
        proposed = order[rows, choice]
        cell = group[waiting] * codebook_size + proposed
        accepted = _accept(cell, distances[rows, choice], left)
        codes[waiting[accepted]] = proposed[accepted]
        waiting = waiting[~accepted]
        if len(waiting) == 0:
            break
    return _Level(codes, displaced)


def _accept(cell: NDArray[np.int64], distance: FloatArray, left: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which proposals are accepted: per cell the nearest `left[cell]`, ties to the earlier one; counts `left` down."""
    order = np.lexsort((distance, cell))  # stable: equal distances stay in row order
    ranked = cell[order]
    position = np.arange(len(order)) - np.searchsorted(ranked, ranked)
    accepted = np.zeros(len(order), dtype=np.bool_)
    accepted[order] = position < left[ranked]
    np.subtract.at(left, cell[accepted], 1)
    return accepted


def _squared_distances(residual: FloatArray, codebook: FloatArray) -> FloatArray:
    """(N, C): squared Euclidean distances minus the item's own squared length, which does not change the order."""
    return np.asarray(np.square(codebook).sum(axis=1) - 2 * (residual @ codebook.T), dtype=np.float32)


def _nearest_code(residual: FloatArray, codebook: FloatArray) -> NDArray[np.int64]:
    blocks = [
        _squared_distances(residual[first : first + _BLOCK_ITEMS], codebook).argmin(axis=1)
        for first in range(0, len(residual), _BLOCK_ITEMS)
    ]
    return np.concatenate([np.zeros(0, dtype=np.int64), *blocks])


def _distance(residual: FloatArray, codebook: FloatArray, codes: NDArray[np.int64]) -> FloatArray:
    return np.asarray(np.square(residual - codebook[codes]).sum(axis=1), dtype=np.float32)


def _preferences(
    residual: FloatArray, codebook: FloatArray, codebook_size: int
) -> tuple[NDArray[np.int64], FloatArray]:
    """Every item's codes from near to far with their distances, (W, C) each; codes without a vector come last."""
    distances = np.full((len(residual), codebook_size), np.inf, dtype=np.float32)
    distances[:, : len(codebook)] = _squared_distances(residual, codebook)
    distances[:, : len(codebook)] += np.square(residual).sum(axis=1, keepdims=True)
    order = np.argsort(distances, axis=1, kind="stable")
    return order, np.take_along_axis(distances, order, axis=1)
