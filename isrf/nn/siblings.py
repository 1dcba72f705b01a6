"""Which codes an item's code competes with: those that the trie has after the same prefix.

The decoder's distribution is over a prefix's own children, in training as in the search. It is then a distribution
over items (it sums to 1 over the catalogue), and a small decoder need not spend itself on learning the trie by heart.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from isrf.trie import TrieTables, prefix_nodes


class Siblings(NamedTuple):
    """The trie, from the items' side."""

    code: Tensor  # (M,) int64
    child_start: Tensor  # (M + 1,) int64
    prefixes: Tensor  # (N, L) int64 the node that each of an item's codes is chosen at

    @classmethod
    def of(cls, trie: TrieTables, device: torch.device) -> "Siblings":
        """From the packed trie."""
        arrays = (trie.trie_code, trie.trie_child_start, prefix_nodes(trie))
        return cls(*(torch.from_numpy(array).to(device) for array in arrays))

    def mask(self, items: Tensor, codebook_size: int) -> Tensor:
        """(B, L, C) bool: the codes that some item has after the prefixes of the items (B,) int64."""
        nodes = self.prefixes[items]
        children = self.child_start[nodes][:, :, None] + torch.arange(codebook_size, device=nodes.device)
        exists = children < self.child_start[nodes + 1][:, :, None]
        codes = self.code[torch.where(exists, children, 0)]
        count = torch.zeros(exists.shape, dtype=torch.int32, device=nodes.device)
        return count.scatter_add_(2, codes, exists.to(torch.int32)) > 0
