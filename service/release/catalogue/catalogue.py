"""Holds the items with their ids, categories, prices and popularity; filters them and lists popular ones.

A catalogue is frozen: it has the release's items with the shop's changes since. Later catalogues only add rows, so that
a row is the same item in every later catalogue of the same process.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isrf.contract.html_text import clean_text
from isrf.contract.ids import IdMap, ItemId, ItemIndex
from isrf.method.interest import BoolArray, IntArray
from isrf.method.recommend.product_groups import ProductGroups
from service.release.catalogue.columns import ItemColumns, columns_of
from service.release.catalogue.lines import ItemLine
from service.release.catalogue.table import ChangedItems
from service.release.conditions import ConditionMasks
from service.release.conditions.attributes import Attributes

LEAST_USERS = 3
"""How many similar users must share a word before the service shows it."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """The caller's conditions on items. An item without a price is in no price range.

    Attributes:
        categories: an item is in one of them at least; empty for all items.
        exclude_categories: an item is in none of them.
        exclude: item_ids.
        exclude_variants: whatever excludes an item excludes all variants of its product.
        min_price, max_price: both inclusive.
        condition: the text of a condition (`service.release.conditions`), which `Catalogue.allowed` does not read.
        context: the call's own names and values, which the condition may use.
    """

    categories: tuple[str, ...] = ()
    exclude_categories: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    exclude_variants: bool = False
    min_price: float | None = None
    max_price: float | None = None
    condition: str | None = None
    context: tuple[tuple[str, str], ...] = ()


EVERYTHING = Filter()
NEVER: Mapping[str, float] = {}


@dataclass(frozen=True, kw_only=True, eq=False)
class Catalogue:
    """The items of a release with the changes since; frozen, and shared by all requests.

    Attributes:
        items: in the order of their rows.
        version: opaque; equal versions under one release mean equal items.
        popularity: (N,) users who took each item in the training interactions, by the weight of their events.
        by_popularity: (N,) rows, the most popular first, ties in row order.
        ranks: (N,) rank of each row in `by_popularity`, from 1.
        prices: (N,) NaN where unknown.
        offered: (N,) whether an item may be recommended.
        in_category: rows of each category's items, ascending.
        added_at: seconds by the row of an item that came since the release.
        group_ids: (N,) the product that each item is a variant of.
        groups: which items are variants of one product.
        attributes: the items' fields as columns.
        conditions: the masks of conditions on them.
    """

    items: Sequence[ItemLine]
    ids: IdMap[ItemId, ItemIndex]
    popularity: NDArray[np.float32]
    by_popularity: IntArray
    ranks: IntArray
    prices: NDArray[np.float64]
    offered: BoolArray
    in_category: Mapping[str, IntArray]
    group_ids: Sequence[str | None]
    groups: ProductGroups
    attributes: Attributes
    conditions: ConditionMasks
    version: str = ""
    added_at: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, items: Sequence[ItemLine], popularity: NDArray[np.float32]) -> "Catalogue":
        """Makes a catalogue; `popularity` is (N,). Raises `DataError` where an item_id occurs twice."""
        return cls.with_columns(items, columns_of(items), popularity)

    @classmethod
    def with_columns(
        cls, items: Sequence[ItemLine], columns: ItemColumns, popularity: NDArray[np.float32]
    ) -> "Catalogue":
        """As `of`, for items whose columns are read already."""
        by_popularity: IntArray = np.argsort(-popularity, kind="stable")
        ranks = np.empty(len(items), dtype=np.int64)
        ranks[by_popularity] = np.arange(1, len(items) + 1)
        attributes = Attributes(items)
        return cls(
            items=items,
            ids=IdMap(map(ItemId, columns.ids)),
            popularity=popularity,
            by_popularity=by_popularity,
            ranks=ranks,
            prices=columns.prices,
            offered=columns.offered,
            in_category=columns.categories,
            group_ids=columns.group_ids,
            groups=ProductGroups.of(columns.group_ids),
            attributes=attributes,
            conditions=ConditionMasks(attributes),
        )

    def __len__(self) -> int:
        return len(self.items)

    def knows(self, item_id: str) -> bool:
        return item_id in self.ids

    def rows(self, item_ids: Iterable[str]) -> list[int]:
        """Returns the rows of the known items, in the given order."""
        return [int(row) for row in self.ids.known([ItemId(item_id) for item_id in item_ids])]

    def item_id(self, row: int) -> str:
        return self.ids.external(ItemIndex(row))

    def find(self, item_id: str) -> ItemLine | None:
        """Returns an item's fields as they are now."""
        row = self.ids.index(ItemId(item_id))
        return None if row is None else self.items[row]

    def has_category(self, category: str) -> bool:
        return self._rows_of(category) is not None

    def allowed(self, excluded: Iterable[str] = (), item_filter: Filter = EVERYTHING) -> BoolArray:
        """(N,) bool: the items on offer that pass the filter, without the `excluded` item_ids (and their variants)."""
        if not item_filter.categories:
            mask = self.offered.copy()
        else:
            mask = np.zeros(len(self.items), dtype=np.bool_)
            for category in item_filter.categories:
                inside = self._rows_of(category)
                if inside is not None:
                    mask[inside] = self.offered[inside]
        for category in item_filter.exclude_categories:
            outside = self._rows_of(category)
            if outside is not None:
                mask[outside] = False
        # Comparisons with NaN, an unknown price, are false.
        if item_filter.min_price is not None:
            mask &= self.prices >= item_filter.min_price
        if item_filter.max_price is not None:
            mask &= self.prices <= item_filter.max_price
        rows = self.rows(chain(excluded, item_filter.exclude))
        mask[self.groups.with_variants(rows) if item_filter.exclude_variants else rows] = False
        return mask

    def _rows_of(self, category: str) -> IntArray | None:
        """Finds a category by its name here, or as the shop writes it in its own data (`Toys &amp; Games`)."""
        rows = self.in_category.get(category)
        return self.in_category.get(clean_text(category)) if rows is None else rows

    def popularity_rank(self, row: int) -> int:
        """Returns 1 for the most popular item; ties are in row order."""
        return int(self.ranks[row])

    def with_items(
        self, lines: Mapping[str, ItemLine], version: str, *, added_at: Mapping[str, float] = NEVER
    ) -> "Catalogue":
        """Returns a catalogue with changed items; new items get the next rows, in the given order.

        Args:
            added_at: seconds when the shop sent each new item, as far as it is known.
        """
        added = [ItemId(item_id) for item_id in lines if item_id not in self.ids]
        ids = self.ids.extended(added) if added else self.ids
        # No user took the new items yet: they come after all others, in their order.
        new_rows = np.arange(len(self), len(ids))
        changed: dict[int, ItemLine] = {}
        group_ids = [*self.group_ids, *(lines[item_id].group_id for item_id in added)]
        offered = np.concatenate([self.offered, np.zeros(len(added), dtype=np.bool_)])
        prices = np.concatenate([self.prices, np.zeros(len(added))])
        regrouped = False
        category_changes: dict[str, tuple[set[int], set[int]]] = {}  # category → rows added, rows removed
        rows = dict(zip(lines, ids.known([ItemId(item_id) for item_id in lines]), strict=True))
        for item_id, line in lines.items():
            row = rows[item_id]
            old = self.items[row] if row < len(self) else None
            before = set() if old is None else set(old.categories)
            regrouped |= line.group_id != (None if old is None else old.group_id)
            for name in before ^ set(line.categories):
                category_changes.setdefault(name, (set(), set()))[name in before].add(row)
            changed[row], group_ids[row], offered[row] = line, line.group_id, line.offered
            prices[row] = np.nan if line.price is None else line.price
        were = self.items if isinstance(self.items, ChangedItems) else ChangedItems(self.items, {}, len(self))
        items = were.with_changes(changed, len(ids))
        attributes = self.attributes.with_rows(items, rows.values())
        return replace(
            self,
            version=version,
            added_at={**self.added_at, **{rows[item_id]: at for item_id, at in added_at.items()}},
            group_ids=group_ids,
            groups=ProductGroups.of(group_ids) if regrouped else self.groups.with_rows(len(added)),
            attributes=attributes,
            conditions=ConditionMasks(attributes),
            items=items,
            ids=ids,
            popularity=_appended(self.popularity, np.zeros(len(added), dtype=np.float32)),
            by_popularity=_appended(self.by_popularity, new_rows),
            ranks=_appended(self.ranks, new_rows + 1),
            prices=prices,
            offered=offered,
            in_category={
                **self.in_category,
                **{
                    name: _updated_rows(self.in_category.get(name), added_rows, removed_rows)
                    for name, (added_rows, removed_rows) in category_changes.items()
                },
            },
        )


def _appended(rows: NDArray[Any], more: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([rows, more]) if len(more) else rows


def _updated_rows(rows: IntArray | None, added_rows: set[int], removed_rows: set[int]) -> IntArray:
    return np.array(
        sorted(({*rows.tolist()} if rows is not None else set()) - removed_rows | added_rows), dtype=np.int64
    )
