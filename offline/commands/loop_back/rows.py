"""Writes an interactions file anew: as the shop left it, without some users' rows, with new rows behind.

Lines that cannot be understood stay as they are: `ingest` counts them. It knows no store and no cursor.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import polars as pl

from isrf.contract.errors import DataError
from offline.stages.ingest.bad_rows import BadRows
from offline.stages.ingest.files import read_parquet
from offline.stages.ingest.interactions import check_columns, read_interactions

Forgets = Callable[[str], float | None]
"""Until when (seconds) a user's rows are left out: infinity for all of them, None for none. A row without a time is
left out with all of them only."""
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
        forgets: until when a user's rows are left out; None for nobody's.

    Raises:
        DataError: the file's columns are not the contract's.
    """
    write = _write_parquet if old.suffix == ".parquet" else _write_csv
    return write(old, new, rows, forgets)


def holds_forgotten(path: Path, forgets: Forgets) -> bool:
    """Whether an interactions file has rows that `write_interactions` would leave out."""
    if path.suffix == ".parquet":
        table = read_parquet(path)
        return _without_forgotten(table, forgets).height < table.height
    with path.open("rb") as source:
        columns = _fields(source.readline().removeprefix(BOM)) or []
        return "user_id" in columns and any(_is_forgotten(line, columns, forgets) for line in source)


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
        for line in source:
            if forgets is not None and _is_forgotten(line, columns, forgets):
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


def _is_forgotten(line: bytes, columns: Sequence[str], forgets: Forgets) -> bool:
    user_id = _field(line, columns.index("user_id"))
    until = None if user_id is None else forgets(user_id)
    if until is None or math.isinf(until):
        return until is not None
    text = _field(line, columns.index("timestamp")) if "timestamp" in columns else None
    try:
        return text is not None and float(text) <= until
    except ValueError:
        return False


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
        table = _without_forgotten(table, forgets)
    left_out = height - table.height
    if rows:
        table = _with_rows(old, table, rows)
    table.write_parquet(new)
    return left_out


def _without_forgotten(table: pl.DataFrame, forgets: Forgets) -> pl.DataFrame:
    users = table["user_id"].cast(pl.String)
    moments_of = {user: forgets(user) for user in users.unique().drop_nulls().to_list()}
    known = {user: moment for user, moment in moments_of.items() if moment is not None}
    until = users.replace_strict(list(known), list(known.values()), default=None, return_dtype=pl.Float64)
    moments = pl.lit(None, dtype=pl.Float64)
    if "timestamp" in table.columns:
        moments = _seconds(table.schema["timestamp"])
    gone = until.is_infinite() | (moments <= until)
    return table.filter(~gone.fill_null(False))


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
