"""Reads the interactions: finds the columns, parses the values, and counts every bad row.

It does not know the catalogue or the order of events. Event types are read by `isrf.contract.event_types`.
"""

from typing import NamedTuple

import polars as pl

from isrf.contract.errors import DataError
from isrf.contract.event_types import PURCHASE, REMOVE, STANDARD, EventVocabulary, problem
from isrf.contract.ids import SESSION_PREFIX
from isrf.contract.item_fields import MAX_ID_BYTES
from isrf.contract.shown import printable, shown
from offline.reading.bad_rows import NUM_LINES_NAMED, BadRows
from offline.reading.cells import whole_ids
from offline.reading.columns import Wanted, find_columns, no_order_error
from offline.reading.files import ShopFile, check_same_columns, parquet_columns, read_parquet
from offline.reading.lines import first_line, line_text
from offline.reading.names import INTERACTION_NAMES
from offline.reading.notes import ADDRESSES, FileNotes, notes_of_text
from offline.reading.settings import INTERACTION_COLUMNS, IngestConfig
from offline.reading.text_table import TextPart, read_text_part
from offline.reading.times import MAX_TIMESTAMP, Times, format_question, looks_like_time, read_times
from offline.stages.ingest.owners import session_owner

REQUIRED = ("user_id", "item_id")
OPTIONAL = tuple(name for name in INTERACTION_COLUMNS if name not in REQUIRED)
WANTED = Wanted(INTERACTION_COLUMNS, REQUIRED, INTERACTION_NAMES, order=("timestamp", "position"))
_TEXTS = (*REQUIRED, "event", "session_id")
_RETURNS_NAMED = 3
_OF_PEOPLE = ("user_id", "session_id")
_CONTROL = r"\p{Cc}"
_OF_SESSION = (pl.col("user_id").fill_null("") == "") & (pl.col("session_id").fill_null("") != "")
_ENDS_IN_POINT_ZERO = r"^\d{1,15}\.0$"


class ShopEvents(NamedTuple):
    """The content of a shop's interactions.

    Attributes:
        events: the good rows in file order: `line` i64, `user_id` str (the owner:
            `offline.stages.ingest.owners`), `session` str (where a row has both ids, the session's name as an owner;
            else null), `item_id` str, `timestamp` f64 (seconds) or null in all rows, `position`
            i64 or null in all rows, `event` str (a missing event is a purchase), `weight` f64 (a missing weight is 1).
        num_rows: of all rows.
        notes: how the file was read.
    """

    events: pl.DataFrame
    num_rows: int
    notes: FileNotes


class _Raw(NamedTuple):
    """The file's own values: `line`, and the columns of ours that it has, texts where it is CSV."""

    table: pl.DataFrame
    notes: FileNotes


def read_interactions(
    source: ShopFile,
    bad_rows: BadRows,
    settings: IngestConfig | None = None,
    vocabulary: EventVocabulary = STANDARD,
    *,
    catalogue: pl.Series | None = None,
) -> ShopEvents:
    """Reads the file.

    Args:
        source: the file or its parts.
        bad_rows: takes the bad rows.
        settings: how the file is written.
        vocabulary: what the shop's event types mean.
        catalogue: (N,) str, the ids of the shop's items; ids that it has stay as they are.

    Raises:
        DataError: a column is missing, doubled or of a wrong type; there are no rows; there is neither timestamp nor
            position; the times are in no form that is recognised (`data.time_format`).
    """
    settings = settings or IngestConfig()
    raw, notes = (_read_parquet if source.format == "parquet" else _read_csv)(source, bad_rows, settings)
    num_rows = raw.height + len(bad_rows)
    if num_rows == 0:
        raise DataError(
            "data.no_rows", f"{source.path} has no rows below its header.", fix="Export the shop's data again."
        )
    raw = raw.select(
        "line",
        *REQUIRED,
        *(c if c in raw.columns else pl.lit(None, dtype=pl.String).alias(c) for c in OPTIONAL),
    )
    raw, remarks = _without_points(raw, catalogue)
    has_values = {column: raw[column].null_count() < raw.height for column in ("timestamp", "position")}
    if raw.height and not any(has_values.values()):
        raise no_order_error(str(source.path))
    times = _times(source, raw, settings)
    types = raw["event"].unique().to_list()
    refused = [name for name in types if problem(name)]
    meanings = {name: vocabulary.read(name) or PURCHASE for name in types}
    parsed = raw.with_columns(times.seconds.alias("timestamp"), _weight(settings).alias("weight_number"))
    checked = parsed.select(_kind(has_values, refused).alias("kind"), "line", *_values(meanings))
    for (kind,), rows in checked.filter(pl.col("kind").is_not_null()).group_by("kind", maintain_order=True):
        bad_rows.add(str(kind), rows["line"].to_list(), _shown(raw, str(kind), rows["line"].head(NUM_LINES_NAMED)))
    events, returned = _returns_as_removes(checked.filter(pl.col("kind").is_null()).drop("kind"))
    if returned:
        named = ", ".join(line_text(line, source.parts) for line in returned[:_RETURNS_NAMED])
        more = ", …" if len(returned) > _RETURNS_NAMED else ""
        remarks.append(f"{len(returned)} rows have a negative weight and count as remove ({named}{more})")
    if any(raw[column].str.contains("@", literal=True).any() for column in _OF_PEOPLE):
        remarks.append(ADDRESSES)
    if times.form and has_values["timestamp"]:
        remarks.insert(0, f"times are {times.describe()}")
    facts = {"time_form": times.form, "negative_weights": len(returned)}
    notes = notes._replace(remarks=(*notes.remarks, *remarks), facts=facts)
    return ShopEvents(events, num_rows, notes)


def _times(source: ShopFile, raw: pl.DataFrame, settings: IngestConfig) -> Times:
    column = raw["timestamp"]
    times = read_times(column, settings.time_format)
    if times.seconds.null_count() == len(column) > column.null_count():
        row = raw.filter(pl.col("timestamp").is_not_null()).row(0, named=True)
        text = str(row["timestamp"])
        if settings.time_format != "auto" or looks_like_time(text):
            tried = "" if settings.time_format == "auto" else f" as {settings.time_format}"
            raise DataError(
                "data.time_format",
                f"{source.path}: no time can be read{tried}; {line_text(row['line'], source.parts)} has "
                f"{shown(text)}. Read are seconds and milliseconds since 1970, and ISO 8601.",
                fix=f"Say how times are written: {format_question(text)}.",
            )
    return times


def _without_points(raw: pl.DataFrame, catalogue: pl.Series | None) -> tuple[pl.DataFrame, list[str]]:
    """Takes `.0` off the ids of a column where every id is such a number: so tables with gaps write whole numbers.

    Ids of items stay where the catalogue writes one of them so too.
    """
    remarks: list[str] = []
    for column in (*REQUIRED, "session_id"):
        ids = raw[column].drop_nulls()
        if column == "item_id" and catalogue is not None and ids.is_in(catalogue.implode()).any():
            continue
        if len(ids) and str(ids[0]).endswith(".0") and ids.str.contains(_ENDS_IN_POINT_ZERO).all():
            raw = raw.with_columns(pl.col(column).str.strip_suffix(".0"))
            example = "" if column in _OF_PEOPLE else f", such as {ids[0]}"
            remarks.append(f"every {column} is a number that ends in .0{example}; it is read without .0")
    return raw, remarks


def _returns_as_removes(events: pl.DataFrame) -> tuple[pl.DataFrame, list[int]]:
    """Makes rows of a negative weight removes, and returns their lines: exports write goods sent back so."""
    lines = events.filter(pl.col("weight") < 0)["line"].to_list()
    if lines:
        kind = pl.when(pl.col("weight") < 0).then(pl.lit(REMOVE)).otherwise(pl.col("event"))
        events = events.with_columns(kind.alias("event"), pl.col("weight").abs())
    return events, lines


def _shown(raw: pl.DataFrame, kind: str, lines: pl.Series) -> list[str]:
    """The values in the first bad rows; only the length of a person's id, because messages end up in logs."""
    column = kind.split("_", 1)[1]
    values = raw.filter(pl.col("line").is_in(lines.implode()))[column].to_list()
    if column in _OF_PEOPLE:
        return ["" if value is None else f"{len(str(value).encode())} bytes" for value in values]
    return ["empty" if value is None else printable(str(value)) for value in values]


def _read_csv(source: ShopFile, bad_rows: BadRows, settings: IngestConfig) -> _Raw:
    """The file's columns as strings, empty values as null, and `line`."""
    frames: list[pl.DataFrame] = []
    parts: list[TextPart] = []
    for number, path in enumerate(source.files):
        where = f"{path}"
        part = read_text_part(
            path,
            where,
            bad_rows,
            settings,
            lambda where, header: find_columns(where, header, WANTED, settings.columns),
            part=number,
        )
        check_same_columns(source, number, parts[0].columns.header if parts else (), part.columns.header)
        parts.append(part)
        frames += part.blocks
    return _Raw(pl.concat(frames), notes_of_text(source.name, source.parts, parts))


def _read_parquet(source: ShopFile, _: BadRows, settings: IngestConfig) -> _Raw:
    """Ids and event as strings, other columns as they are; `line` counts rows from 1."""
    frames: list[pl.DataFrame] = []
    first: tuple[str, ...] = ()
    notes = FileNotes(source.name, source.format, source.parts)
    for number, path in enumerate(source.files):
        names = parquet_columns(path)
        columns = find_columns(str(path), names, WANTED, settings.columns)
        check_same_columns(source, number, first, columns.header)
        if not number:
            first, notes = columns.header, notes._replace(columns=columns)
        table = read_parquet(path, list(dict.fromkeys(names[place] for place in columns.ours.values())))
        table = table.select(pl.col(names[place]).alias(field) for field, place in columns.ours.items())
        typed = [_typed(path, field, table[field]) for field in columns.ours]
        lines = pl.int_range(pl.len(), dtype=pl.Int64) + (first_line(number) + 1)
        frames.append(table.select(lines.alias("line"), *typed))
    return _Raw(_joined(source, frames), notes)


def _joined(source: ShopFile, frames: list[pl.DataFrame]) -> pl.DataFrame:
    columns = sorted(frames[0].columns)
    for name in columns:
        kinds = {frame.schema[name] for frame in frames if frame[name].null_count() < frame.height}
        if len(kinds) > 1 and any(kind.is_temporal() for kind in kinds):  # polars would count days as seconds
            raise DataError(
                "data.bad_column_type",
                f"the parts of {source.path} hold {name} as {' and '.join(sorted(map(str, kinds)))}.",
                fix="Write the same type in all parts.",
            )
    table = pl.concat([frame.select(columns) for frame in frames], how="vertical_relaxed")
    return table.with_columns(pl.col(pl.Null).cast(pl.String))


def _typed(path: object, column: str, values: pl.Series) -> pl.Series:
    dtype = values.dtype
    if column in OPTIONAL and values.null_count() == len(values):
        return pl.repeat(None, len(values), dtype=pl.Null, eager=True).alias(column)  # empty: its type does not matter
    if column in _TEXTS:
        values = whole_ids(values)
        fits = values.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)
    elif column == "timestamp" and dtype.is_temporal():
        fits = dtype in (pl.Date, pl.Datetime)
    else:
        fits = dtype.is_numeric() or dtype in (pl.String, pl.Null)
    if not fits:
        example = shown(values.drop_nulls().head(1).to_list()) if column not in _OF_PEOPLE else ""
        raise DataError(
            "data.bad_column_type",
            f"{path}: the column {column} holds {dtype}" + (f", such as {example}." if example else "."),
            fix="Write ids and events as strings, and timestamp, position and weight as numbers.",
        )
    return values.cast(pl.String) if column in _TEXTS else values


def _number(column: str) -> pl.Expr:
    """The column as Float64, null where it holds no number."""
    return pl.col(column).cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)


def _weight(settings: IngestConfig) -> pl.Expr:
    """The column `weight` as Float64, null where it holds no number."""
    if not settings.decimal_comma:
        return _number("weight")
    text = pl.col("weight").cast(pl.String).str.strip_chars().str.replace(",", ".", literal=True)
    return text.cast(pl.Float64, strict=False)


def _whole_number(column: str) -> pl.Expr:
    """The column as Int64, null where it holds no whole number; `3.0` is one, because tables with gaps write it so."""
    exact = pl.col(column).cast(pl.String).str.strip_chars().cast(pl.Int64, strict=False)
    number = _number(column)
    integral = number.is_finite() & (number == number.floor()) & (number.abs() < 2.0**53)
    return exact.fill_null(pl.when(integral).then(number).cast(pl.Int64, strict=False))


def _values(types: dict[str | None, str]) -> list[pl.Expr]:
    return [
        pl.when(_OF_SESSION).then(session_owner(pl.col("session_id"))).otherwise(pl.col("user_id")).alias("user_id"),
        pl.when(~_OF_SESSION & (pl.col("session_id") != "")).then(session_owner(pl.col("session_id"))).alias("session"),
        pl.col("item_id"),
        pl.col("timestamp"),
        _whole_number("position").alias("position"),
        pl.col("event").replace_strict(list(types), list(types.values()), return_dtype=pl.String),
        pl.col("weight_number").fill_null(1.0).alias("weight"),
    ]


def _kind(has_values: dict[str, bool], refused_types: list[str]) -> pl.Expr:
    """The kind of a row's first mistake, or null. A column that has values must have one in every row."""
    weight = pl.col("weight_number")
    valid_time = pl.col("timestamp").is_between(0, MAX_TIMESTAMP).fill_null(False)  # false for NaN
    valid_weight = pl.col("weight").is_null() | (weight.is_finite() & (weight != 0)).fill_null(False)
    mistakes = {f"missing_{column}": pl.col(column).fill_null("") == "" for column in REQUIRED}
    mistakes["missing_user_id"] &= ~_OF_SESSION
    mistakes |= {f"bad_{column}": _unfit(column, MAX_ID_BYTES) for column in REQUIRED}
    # The service would take such a user for a session.
    mistakes["bad_user_id"] |= pl.col("user_id").str.starts_with(SESSION_PREFIX)
    mistakes["bad_session_id"] = _OF_SESSION & _unfit("session_id", MAX_ID_BYTES)
    if has_values["timestamp"]:
        mistakes["bad_timestamp"] = ~valid_time
    if has_values["position"]:
        mistakes["bad_position"] = _whole_number("position").is_null()
    mistakes["bad_event"] = pl.col("event").is_in(pl.Series(refused_types, dtype=pl.String).implode()).fill_null(False)
    mistakes["bad_weight"] = ~valid_weight
    return pl.coalesce(pl.when(condition).then(pl.lit(kind)) for kind, condition in mistakes.items())


def _unfit(column: str, max_bytes: int) -> pl.Expr:
    return (pl.col(column).str.len_bytes() > max_bytes) | pl.col(column).str.contains(_CONTROL)
