"""Holds the attributes of all items as columns: our fields that conditions read, and the shop's own. Pure.

The columns of one version of the catalogue are built at their first use, so that a shop without conditions pays
nothing. After a change of items only the changed rows are read again. A column has one type; where its values are of
several kinds, it holds their texts.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import orjson
import polars as pl

from isrf.contract.item_fields import AttributeType, ColumnType, ValueKind, kind_of, parse_time, type_of

FIELD_TYPES: Mapping[str, ColumnType] = {
    "item_id": ColumnType("text"),
    "title": ColumnType("text"),
    "brand": ColumnType("text"),
    "categories": ColumnType("texts"),
    "price": ColumnType("number"),
    "group_id": ColumnType("text"),
    "available": ColumnType("boolean"),
}
"""Our own fields, which every item has."""
MOST_ATTRIBUTES = 256
"""Attributes with a column: those of most items. A shop that writes ids into names has any number of them."""
REBUILT_SHARE = 0.25
"""Where more of the rows change at once, all columns are built anew."""

DTYPES: Mapping[AttributeType, Any] = {
    "number": pl.Float64,
    "text": pl.String,
    "boolean": pl.Boolean,
    "time": pl.Datetime("us"),
    "texts": pl.List(pl.String),
}


class ItemFields(Protocol):
    """What a column reads of an item."""

    @property
    def item_id(self) -> str: ...
    @property
    def title(self) -> str | None: ...
    @property
    def brand(self) -> str | None: ...
    @property
    def categories(self) -> list[str]: ...
    @property
    def price(self) -> float | None: ...
    @property
    def group_id(self) -> str | None: ...
    @property
    def available(self) -> bool: ...
    def own_fields(self) -> dict[str, Any]:
        """The shop's own fields."""


@runtime_checkable
class QuickItems(Protocol):
    """Items that can all be read faster than one after the other."""

    def fields(self) -> Iterable[ItemFields]:
        """All items in the order of their rows."""


def is_request_name(name: str) -> bool:
    """Whether conditions use a name for a value of the request; an attribute of that name has no column."""
    return name == "now" or name.startswith(("user.", "context."))


@dataclass(frozen=True, kw_only=True, eq=False)
class AttributeTable:
    """The columns of one version of the catalogue.

    Attributes:
        items: in the order of their rows.
        columns: (N,) each, by name.
        types: of the columns.
        kinds: how many values of each kind an attribute has, of all attributes.
    """

    items: Sequence[ItemFields]
    columns: Mapping[str, pl.Series]
    types: Mapping[str, ColumnType]
    kinds: Mapping[str, Counter[ValueKind]] = field(repr=False)

    def __len__(self) -> int:
        return len(self.items)

    @classmethod
    def of(cls, items: Sequence[ItemFields]) -> "AttributeTable":
        """Builds all columns, which takes some microseconds an item."""
        kinds: defaultdict[str, Counter[ValueKind]] = defaultdict(Counter)
        values: defaultdict[str, tuple[list[int], list[Any]]] = defaultdict(lambda: ([], []))
        ours: dict[str, list[Any]] = {name: [] for name in FIELD_TYPES}
        for row, item in enumerate(_all(items)):
            for name, of_field in ours.items():
                of_field.append(getattr(item, name))
            for name, value, kind in _attributes(item):
                kinds[name][kind] += 1
                rows, of_rows = values[name]
                rows.append(row)
                of_rows.append(value)
        types = _types(kinds)
        columns = {name: _series(FIELD_TYPES[name], ours.pop(name)) for name in FIELD_TYPES}
        for name in types.keys() - FIELD_TYPES.keys():
            column: list[Any] = [None] * len(items)
            for row, value in zip(*values[name], strict=True):
                column[row] = value
            columns[name] = _series(types[name], column)
        return cls(items=items, columns=columns, types=types, kinds=dict(kinds))

    def with_rows(self, items: Sequence[ItemFields], rows: Collection[int]) -> "AttributeTable":
        """Returns the columns of the same items with changed rows; rows beyond the last one are new items."""
        added = range(len(self), len(items))
        changed = sorted(row for row in rows if row < len(self))
        if len(changed) + len(added) > REBUILT_SHARE * len(items):
            return AttributeTable.of(items)
        kinds = {name: Counter(counts) for name, counts in self.kinds.items()}
        differing = set(self.columns) if added else set()
        fresh: dict[int, dict[str, Any]] = {}  # the attributes of changed and new rows, which are read once
        for row in (*changed, *added):
            before = [] if row >= len(self) else list(_attributes(self.items[row]))
            after = list(_attributes(items[row]))
            for name, _, kind in before:
                kinds[name][kind] -= 1
            for name, _, kind in after:
                kinds.setdefault(name, Counter())[kind] += 1
            fresh[row] = {name: value for name, value, _ in after}
            if row < len(self):
                old, new = self.items[row], items[row]
                differing |= {name for name in FIELD_TYPES if getattr(old, name) != getattr(new, name)}
                was = {name: value for name, value, _ in before}
                differing |= {name for name in {*was, *fresh[row]} if not _same(was.get(name), fresh[row].get(name))}
        kinds = {name: +counts for name, counts in kinds.items() if +counts}
        types = _types(kinds)
        anew = {name for name in types if types[name] != self.types.get(name)}
        columns = {name: self.columns[name] for name in types if name not in anew}
        for name in columns.keys() & differing:
            columns[name] = _patched(columns[name], types[name], name, items, fresh, changed)
        if anew:
            columns |= _read_columns(anew, types, items, fresh)
        return AttributeTable(items=items, columns=columns, types=types, kinds=kinds)


class Attributes:
    """The columns of one version of the catalogue, built at their first use. Threads may share it."""

    def __init__(
        self, items: Sequence[ItemFields], *, before: AttributeTable | None = None, changed: Iterable[int] = ()
    ) -> None:
        """before: columns of an earlier version, of which only the `changed` rows differ; None where none are built."""
        self._items, self._before, self._changed = items, before, frozenset(changed)
        self._table: AttributeTable | None = None
        self._building = threading.Lock()

    def table(self) -> AttributeTable:
        """Returns the columns. The first call builds them: run it in a thread."""
        with self._building:
            if self._table is None:
                before = self._before
                table = (
                    AttributeTable.of(self._items) if before is None else before.with_rows(self._items, self._changed)
                )
                self._table, self._before = table, None
            return self._table

    @property
    def built(self) -> AttributeTable | None:
        """The columns where they are built."""
        return self._table

    def with_rows(self, items: Sequence[ItemFields], rows: Iterable[int]) -> "Attributes":
        """Returns the columns of the next version, where `rows` changed or are new; it reads nothing."""
        if self._table is not None:
            return Attributes(items, before=self._table, changed=rows)
        return Attributes(items, before=self._before, changed=self._changed | frozenset(rows))


def _all(items: Sequence[ItemFields]) -> Iterable[ItemFields]:
    return items.fields() if isinstance(items, QuickItems) else items


def _attributes(item: ItemFields) -> Iterable[tuple[str, Any, ValueKind]]:
    """Yields name, value and kind of an item's attributes that can have a column."""
    for name, value in item.own_fields().items():
        kind = kind_of(value)
        if kind is not None and name not in FIELD_TYPES and not is_request_name(name):
            yield name, value, kind


def _types(kinds: Mapping[str, Counter[ValueKind]]) -> dict[str, ColumnType]:
    most = sorted(kinds, key=lambda name: (-kinds[name].total(), name))[:MOST_ATTRIBUTES]
    return {**FIELD_TYPES, **{name: type_of(kinds[name].keys()) for name in most}}


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of one type; 1 and true are not."""
    return type(one) is type(other) and bool(one == other)


def _read_columns(
    names: Collection[str],
    types: Mapping[str, ColumnType],
    items: Sequence[ItemFields],
    fresh: Mapping[int, Mapping[str, Any]],
) -> dict[str, pl.Series]:
    """Builds some columns; `fresh` has the attributes of rows that were read already."""
    values: dict[str, list[Any]] = {name: [None] * len(items) for name in names}
    for row, item in enumerate(_all(items)):
        of_row = fresh[row] if row in fresh else {name: value for name, value, _ in _attributes(item)}
        for name in names & of_row.keys():
            values[name][row] = of_row[name]
    return {name: _series(types[name], column) for name, column in values.items()}


def _patched(
    column: pl.Series,
    kind: ColumnType,
    name: str,
    items: Sequence[ItemFields],
    fresh: Mapping[int, Mapping[str, Any]],
    changed: Sequence[int],
) -> pl.Series:
    """Returns a column with the values of changed rows and of the new ones after them, all of them in `fresh`."""
    values = [getattr(items[row], name) if name in FIELD_TYPES else of_row.get(name) for row, of_row in fresh.items()]
    order = np.arange(len(items))
    order[changed] = len(column) + np.arange(len(changed))
    order[len(column) :] += len(changed)
    return pl.concat([column, _series(kind, values)], rechunk=True).gather(order)


def _series(kind: ColumnType, values: Iterable[Any]) -> pl.Series:
    if kind.type == "time":
        values = [None if value is None else parse_time(value) for value in values]
    elif kind.mixed:
        values = [
            value if value is None or isinstance(value, str) else orjson.dumps(value).decode() for value in values
        ]
    if kind.type == "texts":
        # Polars takes ten times as long to read lists of Python's.
        texts = [None if value is None else orjson.dumps(value).decode() for value in values]
        return pl.Series("", texts, dtype=pl.String).str.json_decode(DTYPES["texts"])
    return pl.Series("", values, dtype=DTYPES[kind.type], strict=False)
