"""Checks that a file is in the form that this program can change in place, before events or erasures change it.

That is UTF-8, commas, our own column names, one line for a row, and times in seconds: what the service sends is written
so. A file in another form is read, but never changed.
"""

from pathlib import Path

import polars as pl

from isrf.contract.errors import DataError
from isrf.contract.shown import shown
from offline.reading.bad_rows import BadRows
from offline.reading.columns import Columns, find_columns
from offline.reading.files import INTERACTION_FORMATS, ITEM_FORMATS, find_source, parquet_columns, read_parquet
from offline.reading.separators import separator_name
from offline.reading.settings import IngestConfig
from offline.reading.text_table import read_text_part
from offline.reading.times import read_times
from offline.stages.ingest.interactions import WANTED

_SUFFIXES: dict[str, tuple[str, ...]] = {"interactions": (".csv", ".parquet"), "items": (".jsonl", ".parquet")}


def changeable_file(data: Path, stem: str) -> Path:
    """The file `stem` of a shop's folder, in a format that can be changed.

    Raises:
        DataError: `data.not_changeable`, and as `find_source`.
    """
    source = find_source(data, stem, ITEM_FORMATS if stem == "items" else INTERACTION_FORMATS)
    if source.parts or "".join(source.path.suffixes) not in _SUFFIXES[stem]:
        raise not_changeable(source.path, "is packed, in parts, or of a format that is only read")
    return source.path


def check_own_form(path: Path) -> None:
    """Checks the interactions file.

    Raises:
        DataError: `data.not_changeable`; `data.missing_column`, `data.no_order`, `data.no_header`.
    """
    (_check_parquet if path.suffix == ".parquet" else _check_csv)(path)


def not_changeable(path: Path, what: str) -> DataError:
    """The error for a file that is read and not changed."""
    return DataError(
        "data.not_changeable",
        f"{path} {what}, so the service's events and erasures cannot be written into it.",
        fix="Keep the file in our own form: UTF-8, separated by commas, our column names, one line for a row, times in "
        "seconds (JSON Lines for items).",
    )


def _check_csv(path: Path) -> None:
    part = read_text_part(path, str(path), BadRows(path.name), IngestConfig(), _understand)
    _check_names(path, part.columns)
    if part.encoding.codec != "utf-8" or part.encoding.cr_only:
        raise not_changeable(path, f"is in {part.encoding.describe()}")
    if part.separator != ",":
        raise not_changeable(path, f"is separated by {separator_name(part.separator)}")
    table = pl.concat(part.blocks)
    if part.long_rows:
        raise not_changeable(path, f"has a row of several lines (line {part.long_rows[0]})")
    if "timestamp" in table.columns:
        _check_times(path, table["timestamp"])


def _check_parquet(path: Path) -> None:
    columns = _understand(str(path), parquet_columns(path))
    _check_names(path, columns)
    if "timestamp" in columns.ours:
        _check_times(path, read_parquet(path, ["timestamp"])["timestamp"])


def _understand(where: str, header: list[str]) -> Columns:
    return find_columns(where, header, WANTED)


def _check_names(path: Path, columns: Columns) -> None:
    for name, place in columns.ours.items():
        if columns.header[place] != name:
            raise not_changeable(path, f"calls {name} {shown(columns.header[place])}")


def _check_times(path: Path, column: pl.Series) -> None:
    if column.dtype.is_temporal() or column.dtype.is_nested():
        return
    times = read_times(column)
    if times.form not in ("", "seconds"):
        raise not_changeable(path, f"has times in {times.describe()}")
