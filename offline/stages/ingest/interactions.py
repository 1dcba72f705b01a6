"""Reads the interactions: finds the columns, parses the values, and counts every bad row.

It does not know the catalogue or the order of events. Event types are read by `isrf.contract.event_types`.
"""

from collections.abc import Iterator
from typing import NamedTuple

import polars as pl

from isrf.contract.errors import DataError
from isrf.contract.event_types import PURCHASE, REMOVE, STANDARD, EventVocabulary, problem
from isrf.contract.ids import SESSION_PREFIX
from isrf.contract.item_fields import MAX_ID_BYTES
from isrf.contract.shown import printable, shown
from offline.reading.bad_rows import NUM_LINES_NAMED, BadRows
from offline.reading.columns import no_order_error
from offline.reading.files import ShopFile
from offline.reading.lines import line_text
from offline.reading.notes import ADDRESSES, FileNotes
from offline.reading.settings import IngestConfig
from offline.reading.times import (
    DATE,
    MAX_TIMESTAMP,
    format_question,
    looks_like_time,
    most_used,
    read_form,
    time_form_text,
)
from offline.stages.ingest.owners import session_owner
from offline.stages.ingest.parts.raw import IDS, OF_PEOPLE, OPTIONAL, REQUIRED, WANTED, RawInteractions
from offline.stages.ingest.parts.spool import PART_ROWS

__all__ = ["OPTIONAL", "REQUIRED", "WANTED", "InteractionReader", "ShopEvents", "read_interactions"]
_RETURNS_NAMED = 3
_CONTROL = r"\p{Cc}"
_OF_SESSION = (pl.col("user_id").fill_null("") == "") & (pl.col("session_id").fill_null("") != "")


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


def read_interactions(
    source: ShopFile,
    bad_rows: BadRows,
    settings: IngestConfig | None = None,
    vocabulary: EventVocabulary = STANDARD,
    *,
    catalogue: pl.Series | None = None,
) -> ShopEvents:
    """Reads the file as one table, in memory; arguments and errors are those of `InteractionReader`."""
    reader = InteractionReader(source, bad_rows, settings, vocabulary, catalogue=catalogue)
    events = pl.concat(list(reader.blocks()))
    return ShopEvents(events, reader.num_rows, reader.notes())


class InteractionReader:
    """Reads a shop's interactions block by block. Read the blocks once, to the end.

    Attributes:
        num_rows: of all rows.
        sampled_users: as `RawInteractions`, to divide users by.
    """

    def __init__(
        self,
        source: ShopFile,
        bad_rows: BadRows,
        settings: IngestConfig | None = None,
        vocabulary: EventVocabulary = STANDARD,
        *,
        catalogue: pl.Series | None = None,
        part_rows: int = PART_ROWS,
    ) -> None:
        """Reads the file's values.

        Args:
            source: the file or its parts.
            bad_rows: takes the bad rows.
            settings: how the file is written.
            vocabulary: what the shop's event types mean.
            catalogue: (N,) str, the ids of the shop's items; ids that it has stay as they are.
            part_rows: of a larger file only so many rows are in memory.

        Raises:
            DataError: a column is missing, doubled or of a wrong type; there are no rows; there is neither timestamp
                nor position.
        """
        self._source, self._bad_rows, self._settings = source, bad_rows, settings or IngestConfig()
        self._raw = raw = RawInteractions(source, bad_rows, self._settings, catalogue, part_rows=part_rows)
        self.num_rows = raw.num_rows + len(bad_rows)
        self.sampled_users = raw.sampled_users
        if self.num_rows == 0:
            raise DataError(
                "data.no_rows", f"{source.path} has no rows below its header.", fix="Export the shop's data again."
            )
        self._has_values = {column: raw.num_values[column] > 0 for column in ("timestamp", "position")}
        if raw.num_rows and not any(self._has_values.values()):
            raise no_order_error(str(source.path))
        self._without_point = [
            column
            for column in IDS
            if column in raw.first_ids
            and column in raw.point_zero
            and not (column == "item_id" and raw.item_ids_as_listed)
        ]
        self._time_form = most_used(raw.time_forms)
        if self._settings.time_format != "auto" and DATE not in raw.time_forms:
            self._time_form = self._settings.time_format
        self._vocabulary = vocabulary
        self._returns: list[int] = []
        self._num_returns = self._num_times = 0

    def blocks(self) -> Iterator[pl.DataFrame]:
        """The good rows in blocks, as `ShopEvents.events`; always one block.

        Raises:
            DataError: the times are in no form that is recognised (`data.time_format`).
        """
        types = sorted(self._raw.event_types, key=str)
        refused = [name for name in types if name is not None and problem(name)]
        meanings = {name: self._vocabulary.read(name) or PURCHASE for name in types}
        for raw in self._raw.blocks():
            raw = raw.with_columns(pl.col(self._without_point).str.strip_suffix(".0"))
            seconds = read_form(raw["timestamp"], self._time_form, exact=self._settings.time_format == "auto")
            self._num_times += len(seconds) - seconds.null_count()
            parsed = raw.with_columns(seconds.alias("timestamp"), _weight(self._settings).alias("weight_number"))
            checked = parsed.select(_kind(self._has_values, refused).alias("kind"), "line", *_values(meanings))
            for (kind,), rows in checked.filter(pl.col("kind").is_not_null()).group_by("kind", maintain_order=True):
                values = _shown(raw, str(kind), rows["line"].head(NUM_LINES_NAMED))
                self._bad_rows.add(str(kind), rows["line"].to_list(), values)
            yield self._returns_as_removes(checked.filter(pl.col("kind").is_null()).drop("kind"))
        if self._raw.first_time is not None and not self._num_times:
            self._refuse_times(*self._raw.first_time)

    def notes(self) -> FileNotes:
        """How the file was read; call it after the blocks."""
        remarks: list[str] = []
        if self._time_form and self._has_values["timestamp"]:
            remarks.append(f"times are {time_form_text(self._time_form)}")
        for column in self._without_point:
            example = "" if column in OF_PEOPLE else f", such as {self._raw.first_ids[column]}"
            remarks.append(f"every {column} is a number that ends in .0{example}; it is read without .0")
        if self._num_returns:
            named = ", ".join(line_text(line, self._source.parts) for line in self._returns)
            more = ", …" if self._num_returns > _RETURNS_NAMED else ""
            remarks.append(f"{self._num_returns} rows have a negative weight and count as remove ({named}{more})")
        if self._raw.names_addresses:
            remarks.append(ADDRESSES)
        facts = {"time_form": self._time_form, "negative_weights": self._num_returns}
        notes = self._raw.notes
        return notes._replace(remarks=(*notes.remarks, *remarks), facts=facts)

    def _refuse_times(self, line: int, text: str) -> None:
        given = self._settings.time_format
        if given == "auto" and not looks_like_time(text):
            return
        tried = "" if given == "auto" else f" as {given}"
        raise DataError(
            "data.time_format",
            f"{self._source.path}: no time can be read{tried}; {line_text(line, self._source.parts)} has "
            f"{shown(text)}. Read are seconds and milliseconds since 1970, and ISO 8601.",
            fix=f"Say how times are written: {format_question(text)}.",
        )

    def _returns_as_removes(self, events: pl.DataFrame) -> pl.DataFrame:
        """Makes rows of a negative weight removes: exports write goods sent back so."""
        lines = events.filter(pl.col("weight") < 0)["line"]
        if len(lines):
            self._num_returns += len(lines)
            self._returns = [*self._returns, *lines.head(_RETURNS_NAMED).to_list()][:_RETURNS_NAMED]
            kind = pl.when(pl.col("weight") < 0).then(pl.lit(REMOVE)).otherwise(pl.col("event"))
            events = events.with_columns(kind.alias("event"), pl.col("weight").abs())
        return events


def _shown(raw: pl.DataFrame, kind: str, lines: pl.Series) -> list[str]:
    """The values in the first bad rows; only the length of a person's id, because messages end up in logs."""
    column = kind.split("_", 1)[1]
    values = raw.filter(pl.col("line").is_in(lines.implode()))[column].to_list()
    if column in OF_PEOPLE:
        return ["" if value is None else f"{len(str(value).encode())} bytes" for value in values]
    return ["empty" if value is None else printable(str(value)) for value in values]


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
