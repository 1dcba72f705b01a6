"""Reads `interactions.{csv,parquet}`: checks the columns, parses the values, and counts every bad row.

It does not know the catalogue or the order of events. Event types are read by `isrf.contract.event_types`.
"""

import csv
from pathlib import Path

import polars as pl

from isrf.contract.errors import DataError
from isrf.contract.event_types import PURCHASE, STANDARD, EventVocabulary, problem
from isrf.contract.item_fields import MAX_ID_BYTES
from isrf.contract.shown import printable, shown
from offline.stages.ingest.bad_rows import NUM_LINES_NAMED, BadRows
from offline.stages.ingest.files import TextLines, read_lines, read_parquet
from offline.stages.ingest.names import INTERACTION_NAMES, suggestions

REQUIRED = ("user_id", "item_id")
OPTIONAL = ("timestamp", "position", "event", "weight")
MAX_TIMESTAMP = 253_402_300_799.0
"""The end of the year 9999, in seconds. A larger timestamp is in milliseconds and would be misordered among events of
the service."""
_CONTROL = r"\p{Cc}"


def read_interactions(
    path: Path, bad_rows: BadRows, vocabulary: EventVocabulary = STANDARD
) -> tuple[pl.DataFrame, int]:
    """Reads the file: the good rows in file order, and the number of all rows.

    Columns: `line` i64, `user_id` str, `item_id` str, `timestamp` f64 or null in all rows, `position` i64 or null in
    all rows, `event` str (a missing event is a purchase), `weight` f64 (a missing weight is 1).

    Raises:
        DataError: a column is unknown, missing, doubled or of a wrong type; there are no rows; there is neither
            timestamp nor position.
    """
    raw = _typed_parquet(path) if path.suffix == ".parquet" else _read_csv(path, bad_rows)
    num_rows = raw.height + len(bad_rows)
    if num_rows == 0:
        raise DataError("data.no_rows", f"{path} has no rows below its header.", fix="Export the shop's data again.")
    raw = raw.select(
        "line",
        *REQUIRED,
        *(c if c in raw.columns else pl.lit(None, dtype=pl.String).alias(c) for c in OPTIONAL),
    )
    has_values = {column: raw[column].null_count() < raw.height for column in ("timestamp", "position")}
    if raw.height and not any(has_values.values()):
        raise _no_order(path)
    types = raw["event"].unique().to_list()
    refused = [name for name in types if problem(name)]
    meanings = {name: vocabulary.read(name) or PURCHASE for name in types}
    checked = raw.select(_kind(has_values, refused).alias("kind"), "line", *_values(meanings))
    for (kind,), rows in checked.filter(pl.col("kind").is_not_null()).group_by("kind", maintain_order=True):
        bad_rows.add(str(kind), rows["line"].to_list(), _shown(raw, str(kind), rows["line"].head(NUM_LINES_NAMED)))
    return checked.filter(pl.col("kind").is_null()).drop("kind"), num_rows


def _shown(raw: pl.DataFrame, kind: str, lines: pl.Series) -> list[str]:
    """The values in the first bad rows; only the length of a user id, because messages end up in logs."""
    column = kind.split("_", 1)[1]
    values = raw.filter(pl.col("line").is_in(lines.implode()))[column].to_list()
    if column == "user_id":
        return ["" if value is None else f"{len(str(value).encode())} bytes" for value in values]
    return ["empty" if value is None else printable(str(value)) for value in values]


def check_columns(path: Path, columns: list[str]) -> None:
    """Checks a file's column names.

    Raises:
        DataError: `data.unknown_column`, `data.missing_column`, `data.duplicate_column`, `data.no_order`.
    """
    known = (*REQUIRED, *OPTIONAL)
    unknown = [column for column in columns if column not in known]
    if unknown:
        hints = suggestions(set(unknown), set(known) - set(columns), INTERACTION_NAMES)
        raise DataError(
            "data.unknown_column",
            f"{path} has unknown columns {', '.join(map(shown, unknown))}; known are {', '.join(known)}.",
            fix=f"Rename or drop them (CSV is separated by commas). {hints}".strip(),
        )
    if len(set(columns)) < len(columns):
        raise DataError("data.duplicate_column", f"{path} names a column twice: {columns}.", fix="Keep one of each.")
    missing = [column for column in REQUIRED if column not in columns]
    if missing:
        raise DataError(
            "data.missing_column", f"{path} has no column {', '.join(missing)}.", fix=f"Needed: {', '.join(REQUIRED)}."
        )
    if not {"timestamp", "position"} & set(columns):
        raise _no_order(path)


def _no_order(path: Path) -> DataError:
    return DataError(
        "data.no_order",
        f"{path} has neither timestamps nor positions, so the order of a user's events is unknown.",
        fix="Add a column `timestamp` (seconds since 1970) or `position` (rising whole numbers).",
    )


def _read_csv(path: Path, bad_rows: BadRows) -> pl.DataFrame:
    """The file's columns as strings, empty values as null, and `line`."""
    frames: list[pl.DataFrame] = []
    columns: list[str] = []
    for lines in read_lines(path, bad_rows):
        if not columns:
            if not lines.numbers or (len(bad_rows) and lines.numbers[0] > 1):
                raise DataError(
                    "data.no_header",
                    f"{path} must begin with a header in UTF-8; it begins with {shown(_first_bytes(path))}.",
                    fix="Save the file as UTF-8 with its column names in the first line.",
                )
            columns = _split_quoted(lines.texts[0]) or [lines.texts[0]]
            check_columns(path, columns)
            lines = TextLines(lines.numbers[1:], lines.texts[1:])
        frames.append(_split(lines, columns, bad_rows))
    return pl.concat(frames)


def _first_bytes(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(40).decode("latin-1")


def _split(lines: TextLines, columns: list[str], bad_rows: BadRows) -> pl.DataFrame:
    """Splits lines into columns: lines without a quote with polars, the few others with the csv module."""
    table = pl.DataFrame({"line": lines.numbers, "text": lines.texts}, schema={"line": pl.Int64, "text": pl.String})
    text = pl.col("text")
    quoted = table.filter(text.str.contains('"', literal=True))
    plain = table.filter(~text.str.contains('"', literal=True))
    fits = text.str.count_matches(",", literal=True) == len(columns) - 1
    unfit = plain.filter(~fits)
    malformed = unfit["line"].to_list()
    wrong = [f"{text.count(',') + 1} fields, not {len(columns)}" for text in unfit["text"].head(NUM_LINES_NAMED)]
    wrong += [""] * (len(malformed) - len(wrong))
    fields = text.str.split_exact(",", len(columns) - 1).struct.rename_fields(columns)
    split = plain.filter(fits).select("line", fields.alias("fields")).unnest("fields")
    by_hand: list[tuple[int | str, ...]] = []
    for line, content in quoted.iter_rows():
        values = _split_quoted(content)
        if values is None or len(values) != len(columns):
            malformed.append(line)
            wrong.append("quotes that do not close" if values is None else f"{len(values)} fields, not {len(columns)}")
        else:
            by_hand.append((line, *values))
    bad_rows.add("malformed_row", malformed, wrong)
    both = pl.concat([split, pl.DataFrame(by_hand, schema=split.schema, orient="row")]) if by_hand else split
    return both.sort("line").with_columns(pl.col(pl.String).replace("", None))


def _split_quoted(line: str) -> list[str] | None:
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error:
        return None


def _typed_parquet(path: Path) -> pl.DataFrame:
    """Ids and event as strings, times as seconds; `line` counts rows from 1."""
    table = read_parquet(path)
    check_columns(path, table.columns)
    casts: list[pl.Expr] = []
    for column, dtype in table.schema.items():
        expression = pl.col(column)
        if column in OPTIONAL and table[column].null_count() == table.height:
            # The column is empty, so its type does not matter.
            fits, expression = True, pl.lit(None, dtype=pl.String).alias(column)
        elif column in ("user_id", "item_id", "event"):
            fits = dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null) or dtype.is_integer()
            expression = expression.cast(pl.String)
        elif column == "timestamp" and dtype.is_temporal():
            fits = dtype in (pl.Date, pl.Datetime)
            expression = expression.dt.timestamp("us") / 1e6  # an instant, so the time zone does not matter
        else:
            fits = dtype.is_numeric() or dtype in (pl.String, pl.Null)
        if not fits:
            example = shown(table[column].drop_nulls().head(1).to_list()) if column != "user_id" else ""
            raise DataError(
                "data.bad_column_type",
                f"{path}: the column {column} holds {dtype}" + (f", such as {example}." if example else "."),
                fix="Write ids and events as strings, and timestamp, position and weight as numbers.",
            )
        casts.append(expression)
    return table.select(*casts).with_row_index("line", offset=1).with_columns(pl.col("line").cast(pl.Int64))


def _number(column: str) -> pl.Expr:
    """The column as Float64, null where it holds no number."""
    return pl.col(column).cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)


def _whole_number(column: str) -> pl.Expr:
    """The column as Int64, null where it holds no whole number; `3.0` is one, because tables with gaps write it so."""
    exact = pl.col(column).cast(pl.String).str.strip_chars().cast(pl.Int64, strict=False)
    number = _number(column)
    integral = number.is_finite() & (number == number.floor()) & (number.abs() < 2.0**53)
    return exact.fill_null(pl.when(integral).then(number).cast(pl.Int64, strict=False))


def _values(types: dict[str | None, str]) -> list[pl.Expr]:
    return [
        *(pl.col(column) for column in REQUIRED),
        (_number("timestamp") + 0.0).alias("timestamp"),  # no negative zero
        _whole_number("position").alias("position"),
        pl.col("event").replace_strict(list(types), list(types.values()), return_dtype=pl.String),
        _number("weight").fill_null(1.0).alias("weight"),
    ]


def _kind(has_values: dict[str, bool], refused_types: list[str]) -> pl.Expr:
    """The kind of a row's first mistake, or null. A column that has values must have one in every row."""
    timestamp, weight = _number("timestamp"), _number("weight")
    valid_time = timestamp.is_between(0, MAX_TIMESTAMP).fill_null(False)  # false for NaN
    valid_weight = pl.col("weight").is_null() | (weight.is_finite() & (weight > 0)).fill_null(False)
    mistakes = {f"missing_{column}": pl.col(column).fill_null("") == "" for column in REQUIRED}
    mistakes |= {f"bad_{column}": _unfit(column, MAX_ID_BYTES) for column in REQUIRED}
    if has_values["timestamp"]:
        mistakes["bad_timestamp"] = ~valid_time
    if has_values["position"]:
        mistakes["bad_position"] = _whole_number("position").is_null()
    mistakes["bad_event"] = pl.col("event").is_in(pl.Series(refused_types, dtype=pl.String).implode()).fill_null(False)
    mistakes["bad_weight"] = ~valid_weight
    return pl.coalesce(pl.when(condition).then(pl.lit(kind)) for kind, condition in mistakes.items())


def _unfit(column: str, max_bytes: int) -> pl.Expr:
    return (pl.col(column).str.len_bytes() > max_bytes) | pl.col(column).str.contains(_CONTROL)
