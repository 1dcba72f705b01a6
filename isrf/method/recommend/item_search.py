"""How a recommender finds the best items of a table: the dense path's item vectors, the interaction graph's embeddings.

`isrf.runtime.item_index` implements it. It knows neither FAISS nor the tables' meaning.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from isrf.method.interest import FloatArray, IntArray
from isrf.method.recommend.item_masks import ItemMask


class BestItems(NamedTuple):
    """The best allowed items of one query.

    A log-probability is the logarithm of the softmax over all items that the table can score, allowed or not.
    """

    items: IntArray  # (k',) best first, ties to the lower row; fewer than k where no more are allowed
    log_probs: FloatArray  # (k',) float32
    log_probs_of: Callable[[IntArray], FloatArray]
    """Of any items (c,) → (c,) float32; −inf for an item that the table cannot score."""


class ItemSearch(Protocol):
    """Finds the best items by inner product; threads may share it."""

    def find(self, query: FloatArray, allowed: ItemMask, k: int) -> BestItems:
        """The k best allowed items of a query (W,) float32. The answer does not depend on other queries."""
        ...

    def over(self, table: FloatArray) -> "ItemSearch":
        """A search of another table (N + x, W) float32, whose first N rows are those of this one.

        The table is not copied: the recommender holds it too.
        """
        ...
