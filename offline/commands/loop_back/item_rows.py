"""Rewrites a catalogue file with the item changes that the service accepted.

Lines of other items stay byte for byte. So do lines that cannot be parsed; `ingest` counts them. Writing the same
changes twice gives the same file. It knows no store and no read position.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from isrf.contract.errors import DataError
from isrf.contract.item_changes import ItemEntry, changed_row, values_of
from isrf.contract.item_fields import RIGHT, FieldError, read_item_id
from offline.commands.loop_back.own_form import not_changeable
from offline.reading.files import read_parquet

BOM = b"\xef\xbb\xbf"


def write_items(old: Path, new: Path, entries: Mapping[str, ItemEntry]) -> int:
    """Copies `old` to `new` with the changes applied; returns the number of added items.

    Args:
        old: `items.jsonl` or `.parquet` in the format of the data contract.
        new: the file to write; the caller syncs it to disk.
        entries: the changes by item_id.

    Raises:
        DataError: the changes do not fit the types of the Parquet file's columns; `data.not_changeable`.
    """
    return (_write_parquet if old.suffix == ".parquet" else _write_jsonl)(old, new, entries)


def _write_jsonl(old: Path, new: Path, entries: Mapping[str, ItemEntry]) -> int:
    found: set[str] = set()
    num_rows = num_items = 0
    with old.open("rb") as source, new.open("wb") as target:
        for number, line in enumerate(source):
            start = BOM if number == 0 and line.startswith(BOM) else b""
            record = _record(line.removeprefix(start))
            item_id = None if record is None else _item_id(record)
            num_rows, num_items = num_rows + (record is not None), num_items + (item_id is not None)
            if record is None or item_id is None or item_id not in entries:
                target.write(line if line.endswith(b"\n") else line + b"\n")
                continue
            found.add(item_id)
            target.write(start + _line(changed_row(record, values_of(entries[item_id]))))
        if num_rows and not num_items:
            raise not_changeable(old, "has no item_id in any row")
        added = [item_id for item_id in entries if item_id not in found]
        for item_id in added:
            target.write(_line(changed_row({"item_id": item_id}, values_of(entries[item_id]))))
    return len(added)


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _item_id(record: Mapping[str, Any]) -> str | None:
    """Returns the row's item_id; None if `ingest` would refuse it."""
    try:
        return read_item_id(record.get("item_id"))
    except FieldError:
        return None


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def _write_parquet(old: Path, new: Path, entries: Mapping[str, ItemEntry]) -> int:
    table = read_parquet(old)
    if "item_id" not in table.columns:
        raise not_changeable(old, "has no column item_id")
    if table.schema["item_id"].is_float() or table.schema["item_id"] == pl.Boolean:
        raise DataError(
            "data.bad_column_type",
            f"{old}: the column item_id holds {table.schema['item_id']}.",
            fix=f"An item_id is {RIGHT['item_id']}.",
        )
    ids = table["item_id"].cast(pl.String)
    is_changed = ids.is_in(pl.Series(list(entries), dtype=pl.String).implode())
    old_rows = {str(row["item_id"]): row for row in table.filter(is_changed).iter_rows(named=True)}
    rows = [
        {
            **dict.fromkeys(table.columns),
            **changed_row({**old_rows.get(item_id, {}), "item_id": item_id}, values_of(entry)),
        }
        for item_id, entry in entries.items()
    ]
    try:
        unchanged = table.with_columns(ids.alias("item_id")).filter(~is_changed)
        changed = pl.DataFrame(rows, schema_overrides={"item_id": pl.String}, infer_schema_length=None)
        pl.concat([unchanged, changed], how="diagonal_relaxed").write_parquet(new)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            "data.bad_column_type",
            f"{old}: items of the service do not fit its columns: {str(error).splitlines()[0]}.",
            fix="title, brand and description are strings, categories lists of strings, price a number.",
        ) from None
    return len(entries) - len(old_rows)
