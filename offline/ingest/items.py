"""Reads `items.{jsonl,parquet}`: one catalogue row per item, further fields kept as metadata, every bad row counted.

JSONL and Parquet rows become the same records and go through the same checks.
"""

import math
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import polars as pl

from isrf.errors import DataError
from offline.ingest.bad_rows import BadRows
from offline.ingest.files import read_lines, read_parquet
from offline.ingest.interactions import MAX_ID_BYTES

TEXTS = ("title", "brand", "description")
KNOWN = ("item_id", *TEXTS, "categories", "price")
SCHEMA: dict[str, pl.DataType] = {
    "line": pl.Int64(),
    "item_id": pl.String(),
    "title": pl.String(),
    "brand": pl.String(),
    "categories": pl.List(pl.String()),
    "description": pl.String(),
    "price": pl.Float64(),
    "metadata": pl.String(),
}
CONTENT = ("title", "brand", "categories", "description", "price", "metadata")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class _BadItemError(Exception):
    """Carries the kind of a bad row, and the item's id where it could be read."""

    def __init__(self, kind: str, item_id: str | None = None) -> None:
        super().__init__(kind)
        self.kind = kind
        self.item_id = item_id


class Catalogue(NamedTuple):
    items: pl.DataFrame  # columns of SCHEMA, in file order, one row per item_id
    refused: list[str]  # ids whose only rows were bad
    num_rows: int  # rows of the file, bad ones included


def read_items(path: Path, bad_rows: BadRows) -> Catalogue:
    """The catalogue.

    Of several rows for one item the one that says most is kept (then the one first in the order of its content), so
    that the order of rows does not matter; the others are counted as `duplicate_item`.

    Raises:
        DataError: `data.missing_column`, `data.no_rows`, `data.too_few_items`.
    """
    rows: list[tuple[Any, ...]] = []
    refused: set[str] = set()
    records = _parquet_records(path) if path.suffix == ".parquet" else _json_records(path, bad_rows)
    for line, record in records:
        try:
            rows.append((line, *_item(record)))
        except _BadItemError as bad:
            bad_rows.add(bad.kind, [line])
            if bad.item_id is not None:
                refused.add(bad.item_id)
    num_rows = len(rows) + len(bad_rows)
    if num_rows == 0:
        raise DataError("data.no_rows", f"{path} has no rows.", fix="Export the shop's catalogue again.")
    table = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    kept = _one_row_each(table)
    bad_rows.add("duplicate_item", table.join(kept, on="line", how="anti")["line"].to_list())
    return Catalogue(kept, sorted(refused - set(kept["item_id"].to_list())), num_rows)


def content_json(items: pl.DataFrame) -> pl.Series:
    """Each item's content, its id aside, as one canonical JSON text. Shape (N,) str."""
    return pl.Series(
        "content", [orjson.dumps(row).decode() for row in items.select(CONTENT).iter_rows()], dtype=pl.String
    )


def _one_row_each(table: pl.DataFrame) -> pl.DataFrame:
    if table["item_id"].n_unique() == table.height:
        return table
    ranked = table.with_columns(content_json(table))
    ranked = ranked.sort(pl.col("content").str.len_bytes(), "content", "line", descending=[True, False, False])
    return ranked.unique("item_id", keep="first", maintain_order=True).drop("content").sort("line")


def _json_records(path: Path, bad_rows: BadRows) -> Iterator[tuple[int, dict[str, Any]]]:
    for lines in read_lines(path, bad_rows):
        for number, text in zip(*lines, strict=True):
            if text.isspace():
                continue
            try:
                record = orjson.loads(text)
            except orjson.JSONDecodeError:
                record = None
            if isinstance(record, dict):
                yield number, record
            else:
                bad_rows.add("malformed_json", [number])


def _parquet_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    table = read_parquet(path)
    if "item_id" not in table.columns:
        raise DataError("data.missing_column", f"{path} has no column item_id.", fix="Name the id's column item_id.")
    yield from enumerate(table.iter_rows(named=True), start=1)


def _item(record: dict[str, Any]) -> tuple[Any, ...]:
    """The values of SCHEMA after `line`."""
    item_id = _item_id(record.get("item_id"))
    texts: dict[str, str | None] = {}
    for field in TEXTS:
        text = record.get(field)
        if text is not None and not isinstance(text, str):
            raise _BadItemError(f"bad_{field}", item_id)
        texts[field] = (text or "").strip() or None
    rest = {key: value for key, value in record.items() if key not in KNOWN and value is not None}
    try:
        metadata = orjson.dumps(rest, default=str, option=orjson.OPT_SORT_KEYS).decode() if rest else None
    except orjson.JSONEncodeError:
        raise _BadItemError("bad_metadata", item_id) from None
    return (
        item_id,
        texts["title"],
        texts["brand"],
        _categories(record.get("categories"), item_id),
        texts["description"],
        _price(record.get("price"), item_id),
        metadata,
    )


def _item_id(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # unambiguous, unlike the other direction
    if value is None or value == "":
        raise _BadItemError("missing_item_id")
    if not isinstance(value, str) or len(value.encode()) > MAX_ID_BYTES or _CONTROL.search(value):
        raise _BadItemError("bad_item_id")
    return value


def _categories(value: object, item_id: str) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _BadItemError("bad_categories", item_id)
    return [name.strip() for name in value if name.strip()] or None


def _price(value: object, item_id: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise _BadItemError("bad_price", item_id)
    price = float(value)
    if not math.isfinite(price) or price < 0:
        raise _BadItemError("bad_price", item_id)
    return price + 0.0  # no negative zero
