"""Reads the items: one catalogue row per item, other fields as metadata; counts every bad row.

The rows of all formats become the same records (`item_records`). `isrf.contract.item_fields` reads them, as it reads
items sent to the service.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson
import polars as pl

from isrf.contract.errors import DataError
from isrf.contract.item_changes import AVAILABLE, GROUP_ID, HIDDEN, METADATA
from isrf.contract.item_fields import (
    ITEM_NAMES,
    ColumnType,
    FieldError,
    ValueKind,
    kind_of,
    read_fields,
    read_item_id,
    type_of,
)
from isrf.contract.shown import shown
from offline.reading.bad_rows import BadRows
from offline.reading.files import ShopFile
from offline.reading.names import near_miss, option, suggestions
from offline.reading.notes import FileNotes
from offline.reading.settings import IngestConfig
from offline.stages.ingest.item_records import ItemRecords

SCHEMA: dict[str, pl.DataType] = {
    "line": pl.Int64(),
    "item_id": pl.String(),
    "title": pl.String(),
    "brand": pl.String(),
    "categories": pl.List(pl.String()),
    "description": pl.String(),
    "price": pl.Float64(),
    GROUP_ID: pl.String(),
    "metadata": pl.String(),
}
CONTENT = ("title", "brand", "categories", "description", "price", "metadata")
_OURS = ("title", "brand", "categories", "description", "price")
_MOST_NAMED = 20


class Names(NamedTuple):
    """Remarks on the file's field names."""

    empty: list[str]  # our fields that no item has
    near_misses: dict[str, tuple[str, int]]  # the shop's field name → our field it may mean, and rows without our field

    def describe(self) -> list[str]:
        """The remarks as sentences for people."""
        sentences = [f"no item has {', '.join(self.empty)}"] if self.empty else []
        return sentences + [
            f"{rows} items have {shown(name)} but no {field}: if it means {field}, {option(field, name)}"
            for name, (field, rows) in self.near_misses.items()
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "empty": self.empty,
            "near_misses": {name: {"field": field, "rows": rows} for name, (field, rows) in self.near_misses.items()},
        }


class ShopAttributes(NamedTuple):
    """The shop's own fields, which the service's conditions read."""

    types: dict[str, ColumnType]  # by name, those of most items first
    num_items: dict[str, int]  # items with a value

    def describe(self) -> list[str]:
        """The attributes as sentences for people."""
        if not self.types:
            return []
        named = [
            f"{shown(name)} ({kind.type}, {self.num_items[name]} items)"
            for name, kind in list(self.types.items())[:_MOST_NAMED]
        ]
        more = f" and {len(self.types) - _MOST_NAMED} more" if len(self.types) > _MOST_NAMED else ""
        mixed = [shown(name) for name, kind in self.types.items() if kind.mixed][:_MOST_NAMED]
        remark = f"; values of several types, read as text: {', '.join(mixed)}" if mixed else ""
        return [f"{len(self.types)} attributes: {', '.join(named)}{more}{remark}"]

    def as_json(self) -> dict[str, Any]:
        return {
            name: {"type": kind.type, "items": self.num_items[name], "mixed": kind.mixed}
            for name, kind in self.types.items()
        }


class ShopCatalogue(NamedTuple):
    items: pl.DataFrame  # columns of SCHEMA, in file order, one row per item_id
    refused: list[str]  # item ids with bad rows only
    num_rows: int  # rows of the file, bad ones included
    num_repeated: int  # rows equal to an earlier row, left out
    num_offered: int  # items that may be recommended
    names: Names
    attributes: ShopAttributes
    notes: FileNotes  # how the file was read
    file_columns: list[str]  # all names that the file has


def read_items(source: ShopFile, bad_rows: BadRows, settings: IngestConfig | None = None) -> ShopCatalogue:
    """Reads the catalogue.

    A row that equals another row of its item is left out. Of different rows of one item, the longest stays (of equally
    long rows, the first in the order of content), so that the order of rows does not matter; the others are counted as
    `duplicate_item`.

    Raises:
        DataError: `data.missing_column`, `data.no_rows`, `data.bad_column_type`, and of a file that cannot be read.
    """
    rows: list[tuple[Any, ...]] = []
    refused: set[str] = set()
    near: dict[str, str | None] = {}
    misses: Counter[str] = Counter()
    records = ItemRecords(source, bad_rows, settings or IngestConfig())
    for line, record in records:
        item_id = None
        try:
            item_id = read_item_id(record.get("item_id"))
            fields = read_fields(record)
        except FieldError as error:
            bad_rows.add(error.kind, [line], [_shown(error, record)])
            if item_id is not None:
                refused.add(item_id)
            continue
        rows.append((line, item_id, *_columns(fields)))
        for name in fields.get(METADATA) or ():
            if name not in near:
                near[name] = near_miss(name, (*_OURS, GROUP_ID, AVAILABLE), ITEM_NAMES)
            field = near[name]
            if field is not None and fields.get(field) is None:
                misses[name] += 1
    num_rows = len(rows) + len(bad_rows)
    if num_rows == 0:
        raise DataError("data.no_rows", f"{source.path} has no rows.", fix="Export the shop's catalogue again.")
    table = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    items, others = _one_row_each(table)
    bad_rows.add("duplicate_item", others["line"].to_list(), [shown(item_id) for item_id in others["item_id"]])
    empty = [name for name in _OURS if items.height and items[name].null_count() == items.height]
    near_misses = {name: (str(near[name]), count) for name, count in sorted(misses.items())}
    return ShopCatalogue(
        items=items,
        refused=sorted(refused - set(items["item_id"].to_list())),
        num_rows=num_rows,
        num_repeated=table.height - items.height - others.height,
        num_offered=sum(map(_is_offered, items["metadata"])),
        names=Names(empty, near_misses),
        attributes=_attributes(items["metadata"]),
        notes=records.notes(),
        file_columns=records.file_columns(),
    )


def _attributes(metadata: pl.Series) -> ShopAttributes:
    """Counts the attributes of all items; `metadata` is (N,) str, JSON objects or null."""
    kinds: dict[str, Counter[ValueKind]] = {}
    for text in metadata.drop_nulls():
        for name, value in orjson.loads(text).items():
            kind = kind_of(value)
            if kind is not None and name not in (AVAILABLE, HIDDEN):
                kinds.setdefault(name, Counter())[kind] += 1
    names = sorted(kinds, key=lambda name: (-kinds[name].total(), name))
    return ShopAttributes({name: type_of(kinds[name]) for name in names}, {name: kinds[name].total() for name in names})


def content_json(items: pl.DataFrame, *, group: bool = True) -> pl.Series:
    """Each item's content without its id, as a canonical JSON text; (N,) str.

    Args:
        group: whether the group_id belongs to the content. It is an id: row numbers must not depend on its spelling.
    """
    rows = items.select(*CONTENT, GROUP_ID).iter_rows()
    texts = [orjson.dumps(row if group and row[-1] is not None else row[:-1]).decode() for row in rows]
    return pl.Series("content", texts, dtype=pl.String)


def _one_row_each(table: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One row per item, and the other rows of items with several different rows, without repetitions."""
    if table["item_id"].n_unique() == table.height:
        return table, table.clear()
    distinct = table.with_columns(content_json(table)).unique(("item_id", "content"), keep="first", maintain_order=True)
    ranked = distinct.sort(pl.col("content").str.len_bytes(), "content", "line", descending=[True, False, False])
    chosen = ranked.unique("item_id", keep="first", maintain_order=True).drop("content").sort("line")
    return chosen, distinct.join(chosen, on="line", how="anti").drop("content").sort("line")


def _columns(fields: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values of SCHEMA after `item_id`. The flags `available` and `hidden` go into the metadata."""
    rest = {name: value for name, value in (fields.get(METADATA) or {}).items() if value is not None}
    rest |= {name: fields[name] for name in (AVAILABLE, HIDDEN) if fields.get(name) is not None}
    metadata = orjson.dumps(rest, option=orjson.OPT_SORT_KEYS).decode() if rest else None
    return (*(fields.get(name) for name in _OURS), fields.get(GROUP_ID), metadata)


def _is_offered(metadata: str | None) -> bool:
    fields = orjson.loads(metadata) if metadata else {}
    return fields.get(AVAILABLE) is not False and fields.get(HIDDEN) is not True


def _shown(error: FieldError, record: Mapping[str, Any]) -> str:
    if not error.missing or "item_id" in record:
        return error.value
    return suggestions(set(record), ["item_id"], ITEM_NAMES) or error.value
