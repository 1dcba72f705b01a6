"""Holds the items with their ids, categories, prices and popularity; filters them and lists popular ones.

A catalogue is frozen: it has the release's items with the shop's changes since. Later catalogues only add rows, so that
a row is the same item in every later catalogue of the same process.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Annotated, Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from isrf.contract.html_text import clean_text
from isrf.contract.ids import IdMap, ItemId, ItemIndex
from isrf.contract.item_changes import AVAILABLE, HIDDEN, METADATA, ROW_FIELDS
from isrf.contract.item_fields import MAX_PRICE, read_fields, read_flag, read_item_id
from isrf.method.interest import BoolArray, IntArray
from isrf.method.recommend.product_groups import ProductGroups
from service.release.conditions import ConditionMasks
from service.release.conditions.attributes import Attributes


class _Metadata(BaseModel):
    """The shop's own fields, and two of ours."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    available: bool | None = None
    hidden: bool | None = None


_NO_FLAGS = _Metadata()


class ItemLine(BaseModel):
    """One line of `items.jsonl`."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    item_id: str
    title: str | None = None
    brand: str | None = None
    categories: list[str] = Field(default_factory=list)
    price: Annotated[float, Field(ge=0, le=MAX_PRICE, allow_inf_nan=False)] | None = None
    group_id: str | None = None
    """The product that the item is a variant of."""
    feature: str | None = None
    """The text of the semantic feature, as the reasoner wrote it."""
    metadata: _Metadata | None = Field(default=None, exclude=True)
    available: bool = True
    hidden: bool = False
    own_json: bytes = Field(default=b"", exclude=True, repr=False)
    """The shop's own fields as a JSON object, which takes a tenth of the memory of a dictionary; empty for none."""

    def own_fields(self) -> dict[str, Any]:
        """Returns the shop's own fields, which are the item's attributes beside our fields."""
        fields: dict[str, Any] = orjson.loads(self.own_json) if self.own_json else {}
        return fields

    @property
    def offered(self) -> bool:
        """Whether it may be recommended."""
        return self.available and not self.hidden


def own_json_of(fields: Mapping[str, Any]) -> bytes:
    """Returns the shop's own fields of an item as `ItemLine.own_json` holds them."""
    # A copy: orjson's own result keeps a buffer of kilobytes.
    return bytes(memoryview(orjson.dumps(fields))) if fields else b""


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
    groups: ProductGroups
    attributes: Attributes
    conditions: ConditionMasks
    version: str = ""
    added_at: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, items: Sequence[ItemLine], popularity: NDArray[np.float32]) -> "Catalogue":
        """Makes a catalogue; `popularity` is (N,). Raises `DataError` where an item_id occurs twice."""
        by_popularity: IntArray = np.lexsort((np.arange(len(items)), -popularity)).astype(np.int64)
        ranks = np.empty(len(items), dtype=np.int64)
        ranks[by_popularity] = np.arange(1, len(items) + 1)
        rows: dict[str, list[int]] = {}
        for row, item in enumerate(items):
            for category in set(item.categories):
                rows.setdefault(category, []).append(row)
        attributes = Attributes(items)
        return cls(
            items=items,
            ids=IdMap(ItemId(item.item_id) for item in items),
            popularity=popularity,
            by_popularity=by_popularity,
            ranks=ranks,
            prices=np.array([np.nan if item.price is None else item.price for item in items], dtype=np.float64),
            offered=np.array([item.offered for item in items], dtype=np.bool_),
            in_category={name: np.asarray(members, dtype=np.int64) for name, members in rows.items()},
            groups=ProductGroups.of(item.group_id for item in items),
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
        items = [*self.items, *(lines[item_id] for item_id in added)]
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
            items[row], offered[row] = line, line.offered
            prices[row] = np.nan if line.price is None else line.price
        attributes = self.attributes.with_rows(items, rows.values())
        return replace(
            self,
            version=version,
            added_at={**self.added_at, **{rows[item_id]: at for item_id, at in added_at.items()}},
            groups=ProductGroups.of(item.group_id for item in items)
            if regrouped
            else self.groups.with_rows(len(added)),
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


def read_item(line: bytes) -> ItemLine:
    """Reads one line of `items.jsonl`.

    Raises:
        ValueError: the line cannot be read. It is a `isrf.contract.item_fields.FieldError`, which shows the field's
            value, or pydantic's error.
    """
    try:
        item = ItemLine.model_validate_json(line)
    except ValidationError:
        _read_again(line)
        raise
    metadata = item.metadata
    if metadata is None and not item.own_json:
        return item
    update: dict[str, Any] = {"own_json": b""}
    if metadata is not None:
        flags = _Metadata(available=metadata.available, hidden=metadata.hidden)
        update["metadata"] = None if flags == _NO_FLAGS else flags
        update["available"] = item.available if metadata.available is None else metadata.available
        update["hidden"] = item.hidden if metadata.hidden is None else metadata.hidden
        update["own_json"] = own_json_of(metadata.model_extra or {})
    # In place, as nobody has the item yet: a copied model takes a kilobyte more.
    vars(item).update(update)
    return item


def _read_again(line: bytes) -> None:
    """Reads a line as a row of the shop's file, whose readers raise errors with the wrong value."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return
    if not isinstance(record, dict):
        return
    read_item_id(record.get("item_id"))
    read_fields({name: value for name, value in record.items() if name in ROW_FIELDS and name != METADATA})
    metadata = record.get(METADATA)
    for name in (AVAILABLE, HIDDEN):
        read_flag(name, metadata.get(name) if isinstance(metadata, dict) else None)
