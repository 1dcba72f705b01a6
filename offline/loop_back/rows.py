"""Writes an interactions file anew: as the shop left it, without some users' rows, with new rows behind.

Lines that cannot be understood stay as they are: `ingest` counts them. It knows no store and no cursor.
"""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import polars as pl

from isrf.errors import DataError
from offline.ingest.bad_rows import BadRows
from offline.ingest.files import read_parquet
from offline.ingest.interactions import check_columns, read_interactions

Forgets = Callable[[str], bool]
BOM = b"\xef\xbb\xbf"


class NewRow(NamedTuple):
    user_id: str
    item_id: str
    event: str  # "" for one without a type
    timestamp: float  # seconds


def write_interactions(old: Path, new: Path, rows: Sequence[NewRow], *, forgets: Forgets | None = None) -> int:
    """Copies `old` to `new` with `rows` behind; returns the number of rows left out.

    Args:
        old: `interactions.csv` or `.parquet` as the data contract has it.
        new: written, not synced.
        rows: in order of time; where the file has positions they get the next ones.
        forgets: whether a user's rows are left out; None for nobody's.

    Raises:
        DataError: the file's columns are not the contract's.
    """
    write = _write_parquet if old.suffix == ".parquet" else _write_csv
    return write(old, new, rows, forgets)


class _Order(NamedTuple):
    """What orders the file's rows."""

    timestamps: bool
    next_position: int | None


def _order(path: Path, columns: Sequence[str]) -> _Order:
    if "position" not in columns:
        return _Order(timestamps=True, next_position=None)
    kept, _ = read_interactions(path, BadRows(path.name))
    positions = kept["position"].max()
    return _Order(
        timestamps="timestamp" in columns and kept["timestamp"].null_count() < kept.height,
        next_position=int(positions) + 1 if isinstance(positions, int) else None,
    )


def _write_csv(old: Path, new: Path, rows: Sequence[NewRow], forgets: Forgets | None) -> int:
    with old.open("rb") as source, new.open("wb") as target:
        header = source.readline()
        columns = _fields(header.removeprefix(BOM)) or []
        check_columns(old, columns)
        order = _order(old, columns) if rows else _Order(timestamps=True, next_position=None)
        widened = "event" not in columns and any(row.event for row in rows)
        if widened:
            columns = [*columns, "event"]
        _copy(target, header, b",event" if widened else b"")
        left_out = 0
        place = columns.index("user_id")
        for line in source:
            if forgets is not None and (user_id := _field(line, place)) is not None and forgets(user_id):
                left_out += 1
            else:
                _copy(target, line, b"," if widened and line.strip() else b"")
        target.write(_lines(columns, rows, order))
        return left_out


def _copy(target: IO[bytes], line: bytes, more: bytes) -> None:
    """A line with `more` at its end, and an end."""
    body = line.rstrip(b"\r\n")
    target.write(body + more + (line[len(body) :] or b"\n"))


def _lines(columns: Sequence[str], rows: Sequence[NewRow], order: _Order) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for place, row in enumerate(rows):
        values: dict[str, str] = {"user_id": row.user_id, "item_id": row.item_id, "event": row.event}
        if order.timestamps:
            values["timestamp"] = repr(row.timestamp)
        if order.next_position is not None:
            values["position"] = str(order.next_position + place)
        writer.writerow([values.get(column, "") for column in columns])
    return text.getvalue().encode()


def _field(line: bytes, place: int) -> str | None:
    fields = line.rstrip(b"\r\n").split(b",") if b'"' not in line else _fields(line)
    if fields is None or len(fields) <= place:
        return None
    value = fields[place]
    if isinstance(value, str):
        return value
    return value.decode("utf-8", errors="replace")


def _fields(line: bytes) -> list[str] | None:
    try:
        return next(csv.reader([line.decode("utf-8").rstrip("\r\n")], strict=True), None)
    except (csv.Error, UnicodeDecodeError):
        return None


def _write_parquet(old: Path, new: Path, rows: Sequence[NewRow], forgets: Forgets | None) -> int:
    table = read_parquet(old)
    check_columns(old, table.columns)
    height = table.height
    if forgets is not None:
        users = table["user_id"].cast(pl.String).unique().drop_nulls().to_list()
        gone = pl.Series([user for user in users if forgets(user)], dtype=pl.String)
        table = table.filter(~pl.col("user_id").cast(pl.String).is_in(gone.implode()).fill_null(False))
    left_out = height - table.height
    if rows:
        table = _with_rows(old, table, rows)
    table.write_parquet(new)
    return left_out


def _with_rows(old: Path, table: pl.DataFrame, rows: Sequence[NewRow]) -> pl.DataFrame:
    order = _order(old, table.columns)
    more = pl.DataFrame(rows, schema=["user_id", "item_id", "event", "timestamp"], orient="row")
    more = more.with_columns(pl.col("event").replace("", None))
    if order.next_position is not None:
        more = more.with_row_index("position", offset=order.next_position)
    if not order.timestamps:
        more = more.drop("timestamp")
    for name in ("user_id", "item_id", "event"):
        if name in table.columns and table.schema[name] != pl.String:
            table = table.with_columns(pl.col(name).cast(pl.String))
    if "timestamp" in table.columns and order.timestamps:
        table = table.with_columns(_seconds(table.schema["timestamp"]))
    if order.next_position is not None and not table.schema["position"].is_integer():
        table = table.with_columns(pl.col("position").cast(pl.String).cast(pl.Float64).cast(pl.Int64))
    if "event" not in table.columns and more["event"].null_count() == more.height:
        more = more.drop("event")
    try:
        return pl.concat([table, more], how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        raise DataError(
            "data.bad_column_type",
            f"{old}: events of the service do not fit its columns: {str(error).splitlines()[0]}.",
            fix="Ids and events are strings, timestamp and position numbers.",
        ) from None


def _seconds(dtype: pl.DataType) -> pl.Expr:
    """The column `timestamp` as `ingest` reads it: seconds, Float64."""
    if dtype.is_temporal():
        return (pl.col("timestamp").dt.timestamp("us") / 1e6).alias("timestamp")
    return pl.col("timestamp").cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
