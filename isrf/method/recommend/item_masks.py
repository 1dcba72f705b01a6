"""What a search needs of the items that a request allows, without a pass over all items for every request.

Two requests mostly allow nearly the same items: all that are on offer, or those that pass one filter, without the few
that the user took. So the masks of recent requests are kept with what follows from them, and a request's own values are
the values of a similar mask, corrected for the few items in which they differ. Comparing two masks is the one pass that
is left, over a byte per item.
"""

import threading
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from isrf.method.interest import BoolArray, IntArray
from isrf.method.trie import TrieTables

NUM_KEPT = 4
"""Masks that are kept: each takes about 8 bytes per item."""
MOST_DIFFERENCES = 2_000
"""Items in which a kept mask may differ; from about here on a mask is as fast to read anew."""


class TrieLevels:
    """Finds the nodes above a leaf: the first leaf of every node, level by level."""

    def __init__(self, trie: TrieTables) -> None:
        self.trie = trie
        self.num_leaves = len(trie.leaf_items)
        self._leaf_of_item = np.empty(self.num_leaves, dtype=np.int32)
        self._leaf_of_item[trie.leaf_items] = np.arange(self.num_leaves, dtype=np.int32)
        self._levels: list[tuple[int, IntArray]] = []  # a level's first node, and its nodes' first leaves
        first, stop = 0, 1
        while first < len(trie.trie_code):
            self._levels.append((first, trie.trie_leaf_start[first:stop]))
            first, stop = stop, int(trie.trie_child_start[stop])

    def leaves(self, items: IntArray) -> IntArray:
        """The leaves of items; items that came since the release have none."""
        return self._leaf_of_item[items].astype(np.int64)

    def nodes_above(self, leaves: IntArray) -> IntArray:
        """(levels, n): the nodes on the path to each of n leaves, the leaf's own node among them."""
        return np.stack(
            [first + np.searchsorted(starts, leaves, side="right") - 1 for first, starts in self._levels], axis=0
        )


@dataclass(frozen=True, eq=False)
class ItemMask:
    """The items that a request allows, and what the searches read of them.

    Attributes:
        mask: (N,) bool.
        open_nodes: (M,) bool, the trie's nodes with an allowed item below them.
        leaves_before: (leaves + 1,) int32, allowed leaves before each leaf; None in a mask that was corrected.
    """

    mask: BoolArray
    open_nodes: BoolArray
    leaves_before: NDArray[np.int32] | None

    @cached_property
    def count(self) -> int:
        """The number of allowed items."""
        return int(np.count_nonzero(self.mask))

    @cached_property
    def packed(self) -> NDArray[np.uint8]:
        """(⌈N / 8⌉,) the mask as bits, the lowest bit first."""
        return np.packbits(self.mask, bitorder="little")

    @cached_property
    def rows(self) -> IntArray:
        """(count,) the allowed items, ascending."""
        return np.flatnonzero(self.mask)


class ItemMasks:
    """The masks of recent requests over one set of items; threads may share it."""

    def __init__(self, trie: TrieTables) -> None:
        self._levels = TrieLevels(trie)
        self._kept: list[ItemMask] = []  # the most recent first; replaced as a whole
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["ItemMasks"], tuple[TrieTables]]:
        # In another process it starts anew.
        return ItemMasks, (self._levels.trie,)

    def find(self, allowed: BoolArray) -> ItemMask:
        """What a search needs of `allowed` (N,) bool."""
        for kept in self._kept:
            if len(kept.mask) == len(allowed):
                changed = np.flatnonzero(kept.mask != allowed)
                if len(changed) <= MOST_DIFFERENCES:
                    self._keep(kept)
                    return self._corrected(kept, allowed, changed) if len(changed) else kept
        read = self._read(allowed.copy())  # the caller may change its own
        self._keep(read)
        return read

    def _keep(self, used: ItemMask) -> None:
        if self._kept and self._kept[0] is used:
            return
        with self._lock:
            self._kept = [used, *(mask for mask in self._kept if mask is not used)][:NUM_KEPT]

    def _read(self, allowed: BoolArray) -> ItemMask:
        trie = self._levels.trie
        before = np.zeros(self._levels.num_leaves + 1, dtype=np.int32)
        np.cumsum(allowed[trie.leaf_items], out=before[1:])
        return ItemMask(allowed, before[trie.trie_leaf_stop] > before[trie.trie_leaf_start], before)

    def _corrected(self, kept: ItemMask, allowed: BoolArray, changed: IntArray) -> ItemMask:
        """The mask `allowed`, which differs from a kept one in the items `changed`."""
        trie, before = self._levels.trie, kept.leaves_before
        assert before is not None
        in_trie = changed[changed < self._levels.num_leaves]
        nodes = self._levels.nodes_above(self._levels.leaves(in_trie))
        above, places = np.unique(nodes, return_inverse=True)
        steps = np.broadcast_to(np.where(allowed[in_trie], 1.0, -1.0), nodes.shape)
        below = before[trie.trie_leaf_stop[above]] - before[trie.trie_leaf_start[above]]
        is_open = kept.open_nodes.copy()
        is_open[above] = below + np.bincount(places.ravel(), weights=steps.ravel(), minlength=len(above)) > 0
        return ItemMask(allowed, is_open, None)
