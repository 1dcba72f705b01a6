"""A release's items as the service needs them: ids, categories, words, popularity. Rows mean nothing beyond it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from isrf.ids import IdMap, ItemId, ItemIndex
from isrf.interest import BoolArray, IntArray


class ItemLine(BaseModel):
    """One line of `items.jsonl`; more fields than these are the shop's own and are left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    item_id: str
    title: str | None = None
    brand: str | None = None
    categories: list[str] = Field(default_factory=list)
    price: float | None = None
    feature: str | None = None
    """The semantic feature, as the reasoner put it."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What a caller leaves of the catalogue. An item without a price is in no price range.

    Attributes:
        exclude: item_ids.
        min_price, max_price: both inclusive.
    """

    category: str | None = None
    exclude: tuple[str, ...] = ()
    min_price: float | None = None
    max_price: float | None = None


EVERYTHING = Filter()


class Best(NamedTuple):
    item_index: int
    popularity: float


class Catalogue:
    """Frozen; shared by all requests of a release."""

    def __init__(self, items: Sequence[ItemLine], popularity: NDArray[np.float32]) -> None:
        """Row i of `popularity` (N,) is item i; raises `DataError` on an item_id that stands twice."""
        self.ids: IdMap[ItemId, ItemIndex] = IdMap(ItemId(item.item_id) for item in items)
        self.items = items
        self._popularity = popularity
        self._by_popularity: IntArray = np.lexsort((np.arange(len(items)), -popularity)).astype(np.int64)
        self._rank = np.empty(len(items), dtype=np.int64)
        self._rank[self._by_popularity] = np.arange(1, len(items) + 1)
        self._prices = np.array([np.nan if item.price is None else item.price for item in items], dtype=np.float64)
        rows: dict[str, list[int]] = {}
        for row, item in enumerate(items):
            for category in set(item.categories):
                rows.setdefault(category, []).append(row)
        self._in_category: Mapping[str, IntArray] = {
            name: np.asarray(members, dtype=np.int64) for name, members in rows.items()
        }

    def __len__(self) -> int:
        return len(self.items)

    def knows(self, item_id: str) -> bool:
        return item_id in self.ids

    def rows(self, item_ids: Iterable[str]) -> list[int]:
        """Rows of the items that this release knows, in the given order."""
        return [int(row) for row in self.ids.known([ItemId(item_id) for item_id in item_ids])]

    def item_id(self, row: int) -> str:
        return self.ids.external(ItemIndex(row))

    def has_category(self, category: str) -> bool:
        return category in self._in_category

    def allowed(self, excluded: Iterable[str] = (), only: Filter = EVERYTHING) -> BoolArray:
        """(N,) bool: the items that the filter leaves, without those excluded besides."""
        if only.category is None:
            mask = np.ones(len(self.items), dtype=np.bool_)
        else:
            mask = np.zeros(len(self.items), dtype=np.bool_)
            mask[self._in_category.get(only.category, np.zeros(0, np.int64))] = True
        # Comparisons with NaN, an unknown price, are false.
        if only.min_price is not None:
            mask &= self._prices >= only.min_price
        if only.max_price is not None:
            mask &= self._prices <= only.max_price
        mask[self.rows(excluded)] = False
        mask[self.rows(only.exclude)] = False
        return mask

    def popularity_rank(self, row: int) -> int:
        """1 for the most popular item, equal ones in row order."""
        return int(self._rank[row])

    def times_taken(self, row: int) -> int:
        """In the training interactions."""
        return round(float(self._popularity[row]))

    def popular(self, allowed: BoolArray, n: int) -> list[Best]:
        """The n most popular allowed items, equal ones in row order."""
        order = self._by_popularity[allowed[self._by_popularity]][:n]
        return [Best(int(row), float(self._popularity[row])) for row in order]


def read_item(line: bytes) -> ItemLine:
    """One line of `items.jsonl`; raises pydantic's `ValidationError`."""
    return ItemLine.model_validate_json(line)


def words(items: Iterable[ItemLine], *, limit: int) -> list[dict[str, Any]]:
    """What items have in common, most frequent first: their categories, else their brands.

    Returns:
        `{"words", "items"}`: the shared word, and how many of the items carry it.
    """
    counts: dict[str, int] = {}
    for item in items:
        for name in dict.fromkeys(item.categories or ([item.brand] if item.brand else [])):
            counts[name] = counts.get(name, 0) + 1
    best = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:limit]
    return [{"words": name, "items": count} for name, count in best]
