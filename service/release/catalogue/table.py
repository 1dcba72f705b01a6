"""Holds the items of a release as the lines of their file: an object is made when somebody asks for an item.

Objects of 10^6 items take 2 GB and 15 s. The lines may be a mapping of the file, which workers share.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import overload

from service.release.catalogue.columns import ItemLines, each_item
from service.release.catalogue.lines import ItemLine, read_item
from service.release.conditions.attributes import ItemFields

CACHED_ITEMS = 16_384
"""Items that are kept as objects, those that were asked for last: some 30 MB."""


class ItemTable(Sequence[ItemLine]):
    """The items of `items.jsonl`, whose lines can all be read (`service.release.catalogue.columns.read_columns`)."""

    def __init__(self, lines: ItemLines) -> None:
        self._lines, self._count = lines, len(lines.starts) - 1
        # A cache that led back here would be a cycle, which keeps a replaced release in memory.
        self._read = lru_cache(maxsize=CACHED_ITEMS)(lambda row: read_item(lines.line(row)))

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, row: int) -> ItemLine: ...
    @overload
    def __getitem__(self, row: slice) -> list[ItemLine]: ...
    def __getitem__(self, row: int | slice) -> ItemLine | list[ItemLine]:
        if isinstance(row, slice):
            return [self._read(one) for one in range(self._count)[row]]
        return self._read(range(self._count)[row])

    def fields(self) -> Iterator[ItemFields]:
        """Yields all items for columns of attributes, without the objects that an item has here."""
        return each_item(self._lines)


class ChangedItems(Sequence[ItemLine]):
    """The items of a release with changed ones in their places, and new ones after them."""

    def __init__(self, items: Sequence[ItemLine], changed: Mapping[int, ItemLine], count: int) -> None:
        """
        Args:
            items: as they were.
            changed: by row; all rows from `len(items)` on.
            count: how many items there are now.
        """
        self._items, self._changed, self._count = items, changed, count

    def with_changes(self, changed: Mapping[int, ItemLine], count: int) -> "ChangedItems":
        """Returns the items with more changes; arguments as those of the constructor."""
        return ChangedItems(self._items, {**self._changed, **changed}, count)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, row: int) -> ItemLine: ...
    @overload
    def __getitem__(self, row: slice) -> list[ItemLine]: ...
    def __getitem__(self, row: int | slice) -> ItemLine | list[ItemLine]:
        if isinstance(row, slice):
            return [self[one] for one in range(self._count)[row]]
        row = range(self._count)[row]
        changed = self._changed.get(row)
        return self._items[row] if changed is None else changed

    def fields(self) -> Iterator[ItemFields]:
        """As `ItemTable.fields`."""
        before = self._items.fields() if isinstance(self._items, ItemTable) else iter(self._items)
        for row, item in enumerate(before):
            yield self._changed.get(row, item)
        for row in range(len(self._items), self._count):
            yield self._changed[row]
