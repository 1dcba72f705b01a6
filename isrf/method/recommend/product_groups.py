"""Which items are variants of one product: the items of one group_id, as row numbers.

Built once for each version of a catalogue; a request looks its items up without a loop over the catalogue. Arrays in,
arrays out.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from isrf.method.evidence import Entries, ItemLists, ranges
from isrf.method.interest import BoolArray, FloatArray, IntArray


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
    def of(cls, group_ids: Sequence[str | None]) -> Self:
        """From each item's group_id in row order; None: the item is no variant of another."""
        if group_ids.count(None) == len(group_ids):
            return cls(np.arange(len(group_ids)))
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

    def first_of(self, row: int) -> int:
        """The lowest row among the item's variants; its own where it came after these groups."""
        return int(self.first[row]) if row < len(self.first) else row

    def members(self, row: int) -> IntArray:
        """(m,) the item and its other variants, ascending."""
        first = self.first_of(row)
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
        return np.concatenate([items, self._rows[ranges(starts, counts)]])

    def are_variants(self, item: int | IntArray, others: NDArray[np.integer]) -> BoolArray:
        """(m,) whether each of `others` (m,) is a variant of the item, or of the item (m,) beside it.

        Rows that came after these groups are variants of themselves alone.
        """
        same: BoolArray = self._firsts_of(np.asarray(item)) == self._firsts_of(others)
        return same

    def _firsts_of(self, rows: NDArray[np.integer]) -> NDArray[np.integer]:
        return np.where(rows < len(self.first), self.first[np.minimum(rows, len(self.first) - 1)], rows)


class Products(NamedTuple):
    """Which items are variants now, and whose evidence of the release counts for each.

    A product is counted as one on the side of the item that evidence is asked for: all its variants have one row.
    """

    groups: ProductGroups
    release_rows: IntArray  # (N,) a row of the release, or the item's own row where none counts for it

    @classmethod
    def of_release(cls, first_variants: IntArray) -> Self:
        """As the release knows them; first_variants: (N,) as `ProductGroups.first`."""
        return cls(ProductGroups(first_variants.astype(np.int64)), first_variants.astype(np.int64))

    @classmethod
    def of_catalogue(
        cls,
        groups: ProductGroups,
        group_ids: Sequence[str | None],
        of_release: Sequence[str | None],
        takers: FloatArray,
    ) -> Self:
        """After changes of the catalogue since the release.

        An item has the evidence of its product in the release. Where the release does not know the product, an item of
        the release keeps its own, and a new item has that of the variant that most users took.

        Args:
            groups: of the catalogue.
            group_ids: the items' group_ids, in row order.
            of_release: the same of the release's items.
            takers: (items of the release,) users who took each.
        """
        known: dict[str, int] = {}
        own = [row if group is None else known.setdefault(group, row) for row, group in enumerate(of_release)]
        rows = np.array([*own, *range(len(own), len(group_ids))], dtype=np.int64)
        for row, group in enumerate(group_ids):
            if group is None:
                continue
            if group in known:
                rows[row] = known[group]
            elif row >= len(own):
                others = groups.members(row)
                others = others[others < len(own)]
                rows[row] = own[others[takers[others].argmax()]] if len(others) else row
        return cls(groups, rows)

    def release_row(self, row: int) -> int:
        """The row of the release whose evidence counts for an item."""
        return int(self.release_rows[row]) if row < len(self.release_rows) else row


class ProductLists:
    """Lists of a release in which every item has those of its product, without its own variants.

    It is an `isrf.method.evidence.ItemLists`, for lists to which no live counts are added.
    """

    def __init__(self, lists: ItemLists, products: Products) -> None:
        """lists: with a row for every item."""
        self._lists, self._products = lists, products

    def entries(self, row: int) -> Entries:
        """As `ItemLists.entries`."""
        entries = self._lists.entries(self._products.release_row(row))
        own = self._products.groups.are_variants(row, entries.indices)
        return Entries(entries.indices[~own], entries.weights[~own]) if own.any() else entries

    def gather(self, rows: IntArray) -> tuple[Entries, IntArray]:
        """As `ItemLists.gather`."""
        return gathered([self.entries(row) for row in rows.tolist()])

    def with_rows(self, count: int) -> "ProductLists":
        """As `ItemLists.with_rows`."""
        return ProductLists(self._lists.with_rows(count), self._products)


def gathered(rows: Sequence[Entries]) -> tuple[Entries, IntArray]:
    """The entries of several rows, r > 0, one row after the other, and the number of entries of each row (r,)."""
    counts = np.array([len(entries.indices) for entries in rows], dtype=np.int64)
    indices, weights = (np.concatenate(column) for column in zip(*rows, strict=True))
    return Entries(indices, weights), counts
