"""Writes a catalogue file anew: as the shop left it, with what the service was told of its items since.

Lines of other items stay as they are, byte for byte; lines that cannot be understood too: `ingest` counts them. What is
written is a state, not an event: writing it twice gives the same file. It knows no store and no cursor.
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
from offline.stages.ingest.files import read_parquet

BOM = b"\xef\xbb\xbf"


def write_items(old: Path, new: Path, entries: Mapping[str, ItemEntry]) -> int:
    """Copies `old` to `new` with the entries in it; returns how many items were added.

    Args:
        old: `items.jsonl` or `.parquet` as the data contract has it.
        new: written, not synced.
        entries: by item_id, what was said.

    Raises:
        DataError: the Parquet file's columns do not take what was said.
    """
    return (_write_parquet if old.suffix == ".parquet" else _write_jsonl)(old, new, entries)


def _write_jsonl(old: Path, new: Path, entries: Mapping[str, ItemEntry]) -> int:
    found: set[str] = set()
    with old.open("rb") as source, new.open("wb") as target:
        for number, line in enumerate(source):
            start = BOM if number == 0 and line.startswith(BOM) else b""
            record = _record(line.removeprefix(start))
            item_id = None if record is None else _item_id(record)
            if record is None or item_id is None or item_id not in entries:
                target.write(line if line.endswith(b"\n") else line + b"\n")
                continue
            found.add(item_id)
            target.write(start + _line(changed_row(record, values_of(entries[item_id]))))
        more = [item_id for item_id in entries if item_id not in found]
        for item_id in more:
            target.write(_line(changed_row({"item_id": item_id}, values_of(entries[item_id]))))
    return len(more)


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _item_id(record: Mapping[str, Any]) -> str | None:
    """None for a row whose id `ingest` refuses, too."""
    try:
        return read_item_id(record.get("item_id"))
    except FieldError:
        return None


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def _write_parquet(old: Path, new: Path, entries: Mapping[str, ItemEntry]) -> int:
    table = read_parquet(old)
    if table.schema["item_id"].is_float() or table.schema["item_id"] == pl.Boolean:
        raise DataError(
            "data.bad_column_type",
            f"{old}: the column item_id holds {table.schema['item_id']}.",
            fix=f"An item_id is {RIGHT['item_id']}.",
        )
    ids = table["item_id"].cast(pl.String)
    concerned = ids.is_in(pl.Series(list(entries), dtype=pl.String).implode())
    before = {str(row["item_id"]): row for row in table.filter(concerned).iter_rows(named=True)}
    rows = [
        {
            **dict.fromkeys(table.columns),
            **changed_row({**before.get(item_id, {}), "item_id": item_id}, values_of(entry)),
        }
        for item_id, entry in entries.items()
    ]
    try:
        kept = table.with_columns(ids.alias("item_id")).filter(~concerned)
        changed = pl.DataFrame(rows, schema_overrides={"item_id": pl.String}, infer_schema_length=None)
        pl.concat([kept, changed], how="diagonal_relaxed").write_parquet(new)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            "data.bad_column_type",
            f"{old}: items of the service do not fit its columns: {str(error).splitlines()[0]}.",
            fix="title, brand and description are strings, categories lists of strings, price a number.",
        ) from None
    return len(entries) - len(before)
