"""Which items are variants of one product: the items of one group_id, as row numbers.

Built once for each version of a catalogue; a request looks its items up without a loop over the catalogue. Arrays in,
arrays out.
"""

from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np

from isrf.method.interest import IntArray


class ProductGroups:
    """The variants of every item; frozen, so that threads may share it.

    Attributes:
        first: (N,) the lowest row among the item's variants; the item's own row where it has no other variant.
    """

    def __init__(self, first: IntArray) -> None:
        """first: (N,), as the attribute."""
        self.first = first
        several = np.flatnonzero(np.bincount(first, minlength=len(first))[first] > 1)
        self._rows = several[np.argsort(first[several], kind="stable")]  # items with other variants, by product
        self._firsts = first[self._rows]  # ascending

    @classmethod
    def of(cls, group_ids: Iterable[str | None]) -> Self:
        """From each item's group_id in row order; None: the item is no variant of another."""
        firsts: dict[str, int] = {}
        rows = [row if group_id is None else firsts.setdefault(group_id, row) for row, group_id in enumerate(group_ids)]
        return cls(np.array(rows, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.first)

    def with_rows(self, count: int) -> "ProductGroups":
        """The same and `count` more items, which are variants of nothing."""
        added = np.arange(len(self), len(self) + count)
        return ProductGroups(np.concatenate([self.first, added])) if count else self

    @property
    def any(self) -> bool:
        """Whether any item has another variant."""
        return len(self._rows) > 0

    def members(self, row: int) -> IntArray:
        """(m,) the item and its other variants, ascending."""
        first = self.first[row]
        start, end = np.searchsorted(self._firsts, [first, first + 1])
        return self._rows[start:end] if end > start else np.array([row], dtype=np.int64)

    def with_variants(self, rows: Sequence[int] | IntArray) -> IntArray:
        """(m,) some items and all variants of each; an item may be there twice."""
        items = np.asarray(rows, dtype=np.int64)
        if not self.any or not len(items):
            return items
        products = np.unique(self.first[items])
        starts = np.searchsorted(self._firsts, products)
        counts = np.searchsorted(self._firsts, products + 1) - starts
        ends = np.cumsum(counts)
        at = np.arange(ends[-1]) + np.repeat(starts - ends + counts, counts)
        return np.concatenate([items, self._rows[at]])
