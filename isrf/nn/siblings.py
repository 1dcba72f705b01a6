"""The trie from the items' side: which codes an item's code competes with, and what lies below each of them.

The decoder's distribution is over a prefix's own children, in training as in the search. It is then a distribution
over items (it sums to 1 over the catalogue), and a small decoder need not spend itself on learning the trie by heart.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from isrf.method.trie import TrieTables, prefix_nodes

TINY = 1e-30
"""A floor under a node's share, where a softmax underflows."""


class Choices(NamedTuple):
    """What B items' codes are chosen among, level by level; C places, the last of them mostly empty."""

    nodes: Tensor  # (B, L, C) int64 the prefix's children, the root where there is none
    exists: Tensor  # (B, L, C) bool
    codes: Tensor  # (B, L, C) int64 the code on the edge into each
    own: Tensor  # (B, L) int64 the place of the item's own code


class Siblings(NamedTuple):
    """The trie of N items with M nodes."""

    code: Tensor  # (M,) int64
    child_start: Tensor  # (M + 1,) int64
    prefixes: Tensor  # (N, L) int64 the node that each of an item's codes is chosen at
    parent: Tensor  # (M,) int64, the root's own for the root
    depths: tuple[int, ...]  # nodes of each depth, root and leaves included
    leaf_items: Tensor  # (N,) int64
    leaf_of: Tensor  # (N,) int64 the leaf of each item

    @classmethod
    def of(cls, trie: TrieTables, device: torch.device) -> "Siblings":
        """From the packed trie."""
        counts = np.diff(trie.trie_child_start)
        parent = np.concatenate([[0], np.repeat(np.arange(len(counts)), counts)])
        prefixes = prefix_nodes(trie)
        depths = (*(len(np.unique(nodes)) for nodes in prefixes.T), len(trie.leaf_items))
        leaf_of = np.empty(len(trie.leaf_items), dtype=np.int64)
        leaf_of[trie.leaf_items] = np.arange(len(trie.trie_code) - len(trie.leaf_items), len(trie.trie_code))
        code, start, nodes, above, leaves, leaf = (
            torch.from_numpy(array).to(device)
            for array in (trie.trie_code, trie.trie_child_start, prefixes, parent, trie.leaf_items, leaf_of)
        )
        return cls(code, start, nodes, above, depths, leaves, leaf)

    def choices(self, items: Tensor, codebook_size: int) -> Choices:
        """What the codes of the items (B,) int64 compete with."""
        prefixes = self.prefixes[items]
        first = self.child_start[prefixes]
        children = first[:, :, None] + torch.arange(codebook_size, device=first.device)
        exists = children < self.child_start[prefixes + 1][:, :, None]
        nodes = torch.where(exists, children, 0)
        path = torch.cat([prefixes[:, 1:], self.leaf_of[items][:, None]], dim=1)
        return Choices(nodes, exists, self.code[nodes], path - first)

    def conditionals(self, choices: Choices, probabilities: Tensor) -> Tensor:
        """What a distribution over the items (B, N) says of each choice: (B, L, C), a distribution at each level."""
        row = torch.arange(len(probabilities), device=probabilities.device)[:, None, None]
        mass = self.sums(probabilities.T)[choices.nodes, row].clamp(min=TINY) * choices.exists
        return mass / mass.sum(2, keepdim=True)

    def means(self, vectors: Tensor) -> Tensor:
        """(M, P): the mean below each node of the items' vectors (N, P)."""
        return self.sums(vectors) / self.leaf_counts()[:, None]

    def leaf_counts(self) -> Tensor:
        """(M,) float32: items below each node."""
        return self.sums(torch.ones(len(self.leaf_items), 1, device=self.leaf_items.device))[:, 0]

    def sums(self, values: Tensor) -> Tensor:
        """(M, P): what the items below each node have together of `values` (N, P)."""
        total = values.new_zeros(len(self.code), values.shape[1])
        stop = len(self.code)
        total[stop - self.depths[-1] :] = values[self.leaf_items]
        for count in reversed(self.depths[1:]):
            total.index_add_(0, self.parent[stop - count : stop], total[stop - count : stop].clone())
            stop -= count
        return total
