"""Packs the semantic IDs into a trie: which codes the decoder may generate next, and which items lie below a prefix.

Arrays in, arrays out; it knows nothing of models. Nodes are numbered level by level, inside a level in order of
their prefixes; node 0 is the root, the last N nodes are the leaves, in order of their codes.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.contract.errors import DataError


class TrieTables(NamedTuple):
    """The trie of N items with M nodes; the names are the inputs of `recommender.onnx`."""

    trie_code: NDArray[np.int64]  # (M,) code on the edge into each node, 0 for the root
    trie_child_start: NDArray[np.int64]  # (M + 1,) children of node n are [start[n], start[n + 1])
    trie_leaf_start: NDArray[np.int64]  # (M,) the leaves below n are [start[n], stop[n]) of `leaf_items`
    trie_leaf_stop: NDArray[np.int64]  # (M,)
    leaf_items: NDArray[np.int64]  # (N,) item row of each leaf
    trie_places: NDArray[np.int64]  # (L,) the most children that a node of each depth has


def build_trie(semantic_ids: NDArray[np.int32], codebook_size: int) -> TrieTables:
    """Packs semantic IDs (N, L) int32, all distinct, into tables; O(N L log N).

    Raises:
        DataError: `semantic_ids.shape` for no items or no levels, `semantic_ids.range` for a code outside
            0 … codebook_size − 1, `semantic_ids.duplicate` for two items with one semantic ID.
    """
    _check_codes(semantic_ids, codebook_size)
    num_items, num_levels = semantic_ids.shape
    order = _order(semantic_ids, codebook_size)
    codes = semantic_ids[order]
    changed = np.zeros(num_items, dtype=bool)  # whether a leaf's prefix differs from that of the leaf before it
    changed[0] = True
    starts = [np.zeros(1, dtype=np.int64)]  # per level: first leaf of every node
    for level in range(num_levels):
        changed[1:] |= codes[1:, level] != codes[:-1, level]
        starts.append(np.flatnonzero(changed))
    if len(starts[-1]) != num_items:
        leaf = int(np.flatnonzero(~changed)[0])
        raise DataError(
            "semantic_ids.duplicate",
            f"items {order[leaf - 1]} and {order[leaf]} share the semantic ID {tuple(codes[leaf].tolist())}.",
            fix="Run the semantic-ids stage again: it gives every item an ID of its own.",
        )
    return _pack(starts, codes, order)


def prefix_nodes(tables: TrieTables) -> NDArray[np.int64]:
    """(N, L) int64: the nodes on each item's path, level by level, from the root to the leaf's parent."""
    columns = []
    first, stop = 0, 1  # one level's nodes; their children are the next level's
    while stop < len(tables.trie_code):
        sizes = tables.trie_leaf_stop[first:stop] - tables.trie_leaf_start[first:stop]
        by_item = np.empty(len(tables.leaf_items), dtype=np.int64)
        by_item[tables.leaf_items] = np.repeat(np.arange(first, stop), sizes)
        columns.append(by_item)
        first, stop = stop, int(tables.trie_child_start[stop])
    return np.stack(columns, axis=1)


def _pack(starts: list[NDArray[np.int64]], codes: NDArray[np.int32], order: NDArray[np.int64]) -> TrieTables:
    """Tables from every level's first leaves, the sorted codes (N, L) and the items in leaf order (N,)."""
    num_items = len(order)
    stops = [np.append(start[1:], num_items) for start in starts]
    edge_codes = [np.zeros(1, dtype=np.int64)]
    edge_codes += [codes[start, level].astype(np.int64) for level, start in enumerate(starts[1:])]
    offsets = np.cumsum([0, *map(len, starts)])
    # A node's first child is the child level's node that starts at the same leaf.
    child_starts = [
        offsets[level + 1] + np.searchsorted(starts[level + 1], starts[level]) for level in range(len(starts) - 1)
    ]
    num_nodes = int(offsets[-1])
    places = [int(np.diff(start, append=offsets[level + 2]).max()) for level, start in enumerate(child_starts)]
    child_starts.append(np.full(num_items + 1, num_nodes, dtype=np.int64))
    return TrieTables(
        trie_code=np.concatenate(edge_codes),
        trie_child_start=np.concatenate(child_starts).astype(np.int64),
        trie_leaf_start=np.concatenate(starts).astype(np.int64),
        trie_leaf_stop=np.concatenate(stops).astype(np.int64),
        leaf_items=order.astype(np.int64),
        trie_places=np.array(places, dtype=np.int64),
    )


def _order(semantic_ids: NDArray[np.int32], codebook_size: int) -> NDArray[np.int64]:
    """(N,) the items in the order of their codes."""
    num_levels = semantic_ids.shape[1]
    if codebook_size**num_levels >= 2**63:
        return np.lexsort(semantic_ids.T[::-1])
    numbers = semantic_ids[:, 0].astype(np.int64)
    for level in range(1, num_levels):
        numbers = numbers * codebook_size + semantic_ids[:, level]
    return np.argsort(numbers, kind="stable")


def _check_codes(semantic_ids: NDArray[np.int32], codebook_size: int) -> None:
    if semantic_ids.ndim != 2 or 0 in semantic_ids.shape:
        raise DataError(
            "semantic_ids.shape",
            f"semantic IDs have the shape {semantic_ids.shape}, which is not (items, levels).",
            fix="Run the semantic-ids stage again.",
        )
    low, high = int(semantic_ids.min()), int(semantic_ids.max())
    if low < 0 or high >= codebook_size:
        raise DataError(
            "semantic_ids.range",
            f"codes reach from {low} to {high}, the codebook has 0 to {codebook_size - 1}.",
            fix="Run the semantic-ids stage and the stages after it with one codebook_size.",
        )
