"""Rewrites an interactions file: leaves out erased users' rows and appends new rows.

Lines that cannot be parsed stay as they are; `ingest` counts them. It knows no store and no read position.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import polars as pl

from isrf.contract.errors import DataError
from isrf.contract.ids import SESSION_PREFIX, session_of, session_owner
from offline.commands.loop_back.own_form import check_own_form
from offline.reading.bad_rows import BadRows
from offline.reading.files import read_parquet, single
from offline.stages.ingest.interactions import read_interactions

Forgets = Callable[[str], float | None]
"""Returns until which time (seconds) the rows of a user, or of a session's owner (`isrf.contract.ids`), are left
out: infinity for all rows, None for none. A row without a timestamp is left out only if all rows are."""
_OPTIONAL = ("event", "session_id")
"""Columns that a file gets when a new row has a value for one."""

BOM = b"\xef\xbb\xbf"


class NewRow(NamedTuple):
    """A row to append."""

    user_id: str  # "" for a session
    item_id: str
    event: str  # "" without a type
    timestamp: float  # seconds
    session_id: str = ""  # of a visitor without an account


def new_row(owner: str, item_id: str, event: str, timestamp: float) -> NewRow:
    """The row of an event as the log stores it; `owner` is a user_id or the owner of a session's events."""
    session_id = session_of(owner)
    return NewRow(owner if session_id is None else "", item_id, event, timestamp, session_id or "")


def write_interactions(old: Path, new: Path, rows: Sequence[NewRow], *, forgets: Forgets | None = None) -> int:
    """Copies `old` to `new` and appends `rows`; returns the number of rows left out.

    Args:
        old: `interactions.csv` or `.parquet` in the format of the data contract.
        new: the file to write; the caller syncs it to disk.
        rows: the new rows in order of time; in a file with positions they get the next ones.
        forgets: until which time a user's rows are left out; None leaves out no row.

    Raises:
        DataError: the file's columns are not the contract's, or it is not in our own form (`data.not_changeable`).
    """
    check_own_form(old)
    write = _write_parquet if old.suffix == ".parquet" else _write_csv
    return write(old, new, rows, forgets)


def holds_forgotten(path: Path, forgets: Forgets) -> bool:
    """Returns whether an interactions file has rows that `write_interactions` would leave out."""
    check_own_form(path)
    if path.suffix == ".parquet":
        table = read_parquet(path)
        return _without_forgotten(table, forgets).height < table.height
    with path.open("rb") as source:
        columns = _fields(source.readline().removeprefix(BOM)) or []
        return "user_id" in columns and any(_is_forgotten(line, columns, forgets) for line in source)


class _Order(NamedTuple):
    """The columns that order the file's rows."""

    timestamps: bool
    next_position: int | None


def _order(path: Path, columns: Sequence[str]) -> _Order:
    if "position" not in columns:
        return _Order(timestamps=True, next_position=None)
    interactions = read_interactions(single(path), BadRows(path.name)).events
    positions = interactions["position"].max()
    return _Order(
        timestamps="timestamp" in columns and interactions["timestamp"].null_count() < interactions.height,
        next_position=int(positions) + 1 if isinstance(positions, int) else None,
    )


def _write_csv(old: Path, new: Path, rows: Sequence[NewRow], forgets: Forgets | None) -> int:
    with old.open("rb") as source, new.open("wb") as target:
        header = source.readline()
        columns = _fields(header.removeprefix(BOM)) or []
        order = _order(old, columns) if rows else _Order(timestamps=True, next_position=None)
        more = [name for name in _OPTIONAL if name not in columns and any(getattr(row, name) for row in rows)]
        columns = [*columns, *more]
        _copy(target, header, "".join(f",{name}" for name in more).encode())
        left_out = 0
        for line in source:
            if forgets is not None and _is_forgotten(line, columns, forgets):
                left_out += 1
            else:
                _copy(target, line, b"," * len(more) if line.strip() else b"")
        target.write(_lines(columns, rows, order))
        return left_out


def _copy(target: IO[bytes], line: bytes, suffix: bytes) -> None:
    """Writes a line with `suffix` at its end, and a line end."""
    body = line.rstrip(b"\r\n")
    target.write(body + suffix + (line[len(body) :] or b"\n"))


def _lines(columns: Sequence[str], rows: Sequence[NewRow], order: _Order) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for index, row in enumerate(rows):
        values = {name: getattr(row, name) for name in ("user_id", "item_id", *_OPTIONAL)}
        if order.timestamps:
            values["timestamp"] = repr(row.timestamp)
        if order.next_position is not None:
            values["position"] = str(order.next_position + index)
        writer.writerow([values.get(column, "") for column in columns])
    return text.getvalue().encode()


def _is_forgotten(line: bytes, columns: Sequence[str], forgets: Forgets) -> bool:
    owner = _field(line, columns.index("user_id"))
    if owner == "" and "session_id" in columns:
        session_id = _field(line, columns.index("session_id"))
        owner = session_owner(session_id) if session_id else ""
    until = None if owner is None else forgets(owner)
    if until is None or math.isinf(until):
        return until is not None
    text = _field(line, columns.index("timestamp")) if "timestamp" in columns else None
    try:
        return text is not None and float(text) <= until
    except ValueError:
        return False


def _field(line: bytes, index: int) -> str | None:
    fields = line.rstrip(b"\r\n").split(b",") if b'"' not in line else _fields(line)
    if fields is None or len(fields) <= index:
        return None
    value = fields[index]
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
    height = table.height
    if forgets is not None:
        table = _without_forgotten(table, forgets)
    left_out = height - table.height
    if rows:
        table = _with_rows(old, table, rows)
    table.write_parquet(new)
    return left_out


def _without_forgotten(table: pl.DataFrame, forgets: Forgets) -> pl.DataFrame:
    owners = _owners(table)
    moments_of = {owner: forgets(owner) for owner in owners.unique().drop_nulls().to_list()}
    affected = {owner: moment for owner, moment in moments_of.items() if moment is not None}
    until = owners.replace_strict(list(affected), list(affected.values()), default=None, return_dtype=pl.Float64)
    moments = pl.lit(None, dtype=pl.Float64)
    if "timestamp" in table.columns:
        moments = _seconds(table.schema["timestamp"])
    is_forgotten = until.is_infinite() | (moments <= until)
    return table.filter(~is_forgotten.fill_null(False))


def _owners(table: pl.DataFrame) -> pl.Series:
    """The user_id of each row, or the owner of its session's events; null where it has neither."""
    users = table["user_id"].cast(pl.String)
    if "session_id" not in table.columns:
        return users
    sessions = pl.lit(SESSION_PREFIX) + pl.col("session_id").cast(pl.String).replace("", None)
    return table.select(pl.when(users.replace("", None).is_null()).then(sessions).otherwise(users)).to_series()


def _with_rows(old: Path, table: pl.DataFrame, rows: Sequence[NewRow]) -> pl.DataFrame:
    order = _order(old, table.columns)
    added = pl.DataFrame(rows, schema=list(NewRow._fields), orient="row")
    added = added.with_columns(pl.col("user_id", *_OPTIONAL).replace("", None))
    if order.next_position is not None:
        added = added.with_row_index("position", offset=order.next_position)
    if not order.timestamps:
        added = added.drop("timestamp")
    for name in ("user_id", "item_id", *_OPTIONAL):
        if name in table.columns and table.schema[name] != pl.String:
            table = table.with_columns(pl.col(name).cast(pl.String))
    if "timestamp" in table.columns and order.timestamps:
        table = table.with_columns(_seconds(table.schema["timestamp"]))
    if order.next_position is not None and not table.schema["position"].is_integer():
        table = table.with_columns(pl.col("position").cast(pl.String).cast(pl.Float64).cast(pl.Int64))
    empty = (name for name in _OPTIONAL if name not in table.columns and added[name].null_count() == added.height)
    added = added.drop(*empty)
    try:
        return pl.concat([table, added], how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        raise DataError(
            "data.bad_column_type",
            f"{old}: events of the service do not fit its columns: {str(error).splitlines()[0]}.",
            fix="Use strings for ids and events, and numbers for timestamp and position.",
        ) from None


def _seconds(dtype: pl.DataType) -> pl.Expr:
    """Returns the column `timestamp` as `ingest` reads it: seconds, Float64."""
    if dtype.is_temporal():
        return (pl.col("timestamp").dt.timestamp("us") / 1e6).alias("timestamp")
    return pl.col("timestamp").cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
