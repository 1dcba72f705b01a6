"""The trie as torch tensors: which codes an item's code competes with, and sums over the items below each node.

The decoder's distribution is over a prefix's own children, in training as in the search. So it is a distribution over
items (it sums to 1 over the catalogue), and a small decoder does not waste capacity on memorising the trie.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from isrf.method.trie import TrieTables, prefix_nodes

TINY = 1e-30
"""A floor for a node's share, where a softmax underflows."""


class Choices(NamedTuple):
    """The codes that B items' codes compete with, level by level, padded to C positions."""

    nodes: Tensor  # (B, L, C) int64 the prefix's children, the root where there is none
    exists: Tensor  # (B, L, C) bool
    codes: Tensor  # (B, L, C) int64 the code on the edge into each child
    own: Tensor  # (B, L) int64 the position of the item's own code


class Siblings(NamedTuple):
    """The trie of N items with M nodes."""

    code: Tensor  # (M,) int64
    child_start: Tensor  # (M + 1,) int64
    prefixes: Tensor  # (N, L) int64 the node at which each of an item's codes is chosen
    parent: Tensor  # (M,) int64, the root itself for the root
    depths: tuple[int, ...]  # number of nodes of each depth, root and leaves included
    leaf_items: Tensor  # (N,) int64
    leaf_of: Tensor  # (N,) int64 the leaf of each item

    @classmethod
    def of(cls, trie: TrieTables, device: torch.device) -> "Siblings":
        """The tensors of a packed trie."""
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
        """The codes that the codes of the items (B,) int64 compete with."""
        prefixes = self.prefixes[items]
        first = self.child_start[prefixes]
        children = first[:, :, None] + torch.arange(codebook_size, device=first.device)
        exists = children < self.child_start[prefixes + 1][:, :, None]
        nodes = torch.where(exists, children, 0)
        path = torch.cat([prefixes[:, 1:], self.leaf_of[items][:, None]], dim=1)
        return Choices(nodes, exists, self.code[nodes], path - first)

    def conditionals(self, choices: Choices, probabilities: Tensor) -> Tensor:
        """A distribution over items (B, N) as distributions over the choices at each level, (B, L, C)."""
        row = torch.arange(len(probabilities), device=probabilities.device)[:, None, None]
        mass = self.sums(probabilities.T)[choices.nodes, row].clamp(min=TINY) * choices.exists
        return mass / mass.sum(2, keepdim=True)

    def means(self, vectors: Tensor) -> Tensor:
        """(M, P): the mean of the items' vectors (N, P) below each node."""
        return self.sums(vectors) / self.leaf_counts()[:, None]

    def leaf_counts(self) -> Tensor:
        """(M,) float32: the number of items below each node."""
        return self.sums(torch.ones(len(self.leaf_items), 1, device=self.leaf_items.device))[:, 0]

    def sums(self, values: Tensor) -> Tensor:
        """(M, P): the sum of the items' `values` (N, P) below each node."""
        total = values.new_zeros(len(self.code), values.shape[1])
        stop = len(self.code)
        total[stop - self.depths[-1] :] = values[self.leaf_items]
        for count in reversed(self.depths[1:]):
            total.index_add_(0, self.parent[stop - count : stop], total[stop - count : stop].clone())
            stop -= count
        return total
