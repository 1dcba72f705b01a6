"""Reads CSV files as tables of text: line by line with polars, quoted rows with the csv module.

A quoted value may hold line ends, up to a bound: a quote that never closes spoils its own line, not the file.
"""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from isrf.contract.errors import DataError
from isrf.contract.shown import shown
from offline.reading.bad_rows import NUM_LINES_NAMED, BadRows
from offline.reading.columns import Columns
from offline.reading.encodings import BLOCK_BYTES, Encoding, recognise_encoding
from offline.reading.files import open_bytes
from offline.reading.lines import first_line
from offline.reading.separators import recognise_separator, split_fields
from offline.reading.settings import IngestConfig
from offline.reading.text_lines import read_lines

OTHER = "."
"""Stands before the name of a column that is not ours, so that it collides with none of ours."""
MAX_ROW_LINES = 2_000
MAX_ROW_CHARACTERS = 1 << 20
"""A row that its quotes make longer is malformed: its quote does not close."""

Understand = Callable[[str, list[str]], Columns]
"""Finds our columns: of the part's name and its header."""


class TextPart(NamedTuple):
    """A part of a table, and how it is written.

    Attributes:
        blocks: `line` i64 and, of each wanted column, its text, empty values as null. Read it to its end, once.
        columns: what the header means.
        encoding: of the file.
        separator: of its fields.
        repeated_headers: lines that repeat the header; filled while the blocks are read.
        long_rows: first lines of rows of several lines; filled while the blocks are read.
    """

    blocks: Iterator[pl.DataFrame]
    columns: Columns
    encoding: Encoding
    separator: str
    repeated_headers: list[int]
    long_rows: list[int]


def read_text_part(
    path: Path,
    where: str,
    bad_rows: BadRows,
    settings: IngestConfig,
    understand: Understand,
    *,
    part: int = 0,
    others: bool = False,
    block_bytes: int = BLOCK_BYTES,
) -> TextPart:
    """Opens a CSV file: recognises its encoding and separator, and finds our columns in its header.

    Args:
        path: also packed with gzip.
        where: its name for messages.
        bad_rows: takes rows that are no rows of this header (`malformed_row`, `not_utf8`).
        settings: `separator` and `encoding`.
        understand: finds our columns.
        part: its number in a folder of parts.
        others: whether columns that are not ours are read too, named with `OTHER` before.
        block_bytes: bytes that are read at once.

    Raises:
        DataError: as `understand`; `data.no_header`, `data.separator`, `data.unreadable_file`, `data.line_too_long`,
            `data.not_decodable`.
    """
    encoding = recognise_encoding(path, settings.encoding)
    base, num_bad = first_line(part), len(bad_rows)
    lines = read_lines(path, bad_rows, encoding=encoding, first=base, block_bytes=block_bytes)
    first = next((block for block in lines if block.height), None)
    if first is None or (len(bad_rows) > num_bad and first["line"][0] > base + 1) or "\x00" in first["text"][0]:
        raise _no_header(path, first)
    header, below = first["text"][0], first[1:]
    separator = recognise_separator(path, header, below["text"].head(200).to_list(), settings.separator)
    names = split_fields(header, separator)
    if names is None:  # a name that holds a line end, or a quote that does not close
        raise DataError(
            "data.no_header",
            f"{path}: the quotes of its header do not close: {shown(header)}.",
            fix="Write the columns' names into the first line, without line ends in them.",
        )
    columns = understand(where, names)
    wanted = dict(columns.ours) | {OTHER + name: place for name, place in (columns.others if others else {}).items()}
    repeated: list[int] = []
    splitter = _Splitter(separator, len(names), wanted, bad_rows)

    def blocks() -> Iterator[pl.DataFrame]:
        rest = below.clear()
        following: pl.DataFrame | None = below
        while following is not None:
            block, following = following, next(lines, None)
            is_header = block["text"].str.strip_prefix("\ufeff") == header
            repeated.extend(block.filter(is_header)["line"].to_list())
            table = pl.concat([rest, block.filter(~is_header)])
            frame, rest = splitter.split(table, last=following is None)
            yield frame

    return TextPart(blocks(), columns, encoding, separator, repeated, splitter.long_rows)


def _no_header(path: Path, first: pl.DataFrame | None) -> DataError:
    with open_bytes(path) as file:
        begin = file.read(40)
    wide = "" if first is None or b"\x00" not in begin else " If it is UTF-16, add --set ingest.encoding=utf-16-le."
    return DataError(
        "data.no_header",
        f"{path} must begin with a header; it begins with {shown(begin.decode('latin-1'))}.",
        fix=f"Save the file as UTF-8 with its column names in the first line.{wide}",
    )


class _Splitter:
    """Splits lines into the wanted fields."""

    def __init__(self, separator: str, width: int, wanted: dict[str, int], bad_rows: BadRows) -> None:
        self._separator = separator
        self._width = width
        self._wanted = wanted
        self._bad_rows = bad_rows
        self.long_rows: list[int] = []
        self._schema = {"line": pl.Int64, **dict.fromkeys(wanted, pl.String)}

    def split(self, table: pl.DataFrame, *, last: bool) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Rows of a block of lines, and the lines at its end whose row may continue in the next block."""
        quoted = table["text"].str.contains('"', literal=True)
        rest = table.clear()
        if not quoted.any():
            return self._plain_rows(table), rest
        simple = self._are_simply_quoted(table)
        others = table.filter(quoted & ~simple)
        alone = self._all_alone(others["text"].to_list())
        rows: list[tuple[int | str, ...]] = []
        if alone is not None:
            for line, fields in zip(others["line"].to_list(), alone, strict=True):
                self._add(rows, line, fields)
            frames = [self._plain_rows(table.filter(~quoted)), self._simply_quoted_rows(table.filter(simple))]
        else:
            inside, rows, begin = self._quoted_rows(table, quoted, last=last)
            rest = table[begin:]
            frames = [self._plain_rows(table[:begin].filter(~pl.Series(inside[:begin], dtype=pl.Boolean)))]
        by_hand = pl.DataFrame(rows, schema=self._schema, orient="row").with_columns(
            pl.col(pl.String).replace("", None)
        )
        return pl.concat([*frames, by_hand]).sort("line"), rest

    def _plain_rows(self, table: pl.DataFrame) -> pl.DataFrame:
        text = pl.col("text")
        fits = text.str.count_matches(self._separator, literal=True) == self._width - 1
        table = table.with_columns(fits.alias("fits"))
        unfit = table.filter(~pl.col("fits"))
        values = [self._wrong(text.count(self._separator) + 1) for text in unfit["text"].head(NUM_LINES_NAMED)]
        self._bad_rows.add("malformed_row", unfit["line"].to_list(), values)
        return self._fields(table.filter(pl.col("fits")), self._separator)

    def _are_simply_quoted(self, table: pl.DataFrame) -> pl.Series:
        """Which lines are a row with quotes around every field and no quote in any."""
        text = pl.col("text")
        between = text.str.count_matches(f'"{self._separator}"', literal=True) == self._width - 1
        quotes = text.str.count_matches('"', literal=True) == 2 * self._width
        around = text.str.starts_with('"') & text.str.ends_with('"')
        return table.select((around & quotes & between).alias("simple"))["simple"]

    def _simply_quoted_rows(self, table: pl.DataFrame) -> pl.DataFrame:
        inner = pl.col("text").str.strip_prefix('"').str.strip_suffix('"')
        return self._fields(table.with_columns(inner), f'"{self._separator}"')

    def _fields(self, table: pl.DataFrame, separator: str) -> pl.DataFrame:
        """The wanted fields of lines that have as many as the header; empty ones are null."""
        text = pl.col("text")
        names = [str(place) for place in range(self._width)]
        fields = text.str.split_exact(separator, self._width - 1).struct.rename_fields(names)
        if self._width == 1:
            fields = pl.struct(text.alias("0"))
        split = table.select("line", fields.alias("fields")).unnest("fields")
        wanted = [pl.col(str(place)).replace("", None).alias(name) for name, place in self._wanted.items()]
        return split.select("line", *wanted)

    def _quoted_rows(
        self, table: pl.DataFrame, quoted: pl.Series, *, last: bool
    ) -> tuple[list[bool], list[tuple[int | str, ...]], int]:
        """Rows with quotes, the lines that belong to them, and where the lines begin that need the next block."""
        lines = _QuotedLines(table, quoted, self._separator)
        inside = quoted.to_list()
        rows: list[tuple[int | str, ...]] = []
        end = 0
        for number, place in enumerate(lines.places):
            if place < end:
                continue
            row = lines.row_from(number)
            if row.stop > table.height and not last:
                return inside, rows, place
            if row.num_fields != self._width:
                wrong = self._wrong(row.num_fields) if row.num_fields else "quotes that do not close"
                self._bad_rows.add("malformed_row", [lines.numbers[place]], [wrong])
                continue
            fields = lines.fields(place, row.stop)
            if fields is None:
                wrong = f"a value of more than {csv.field_size_limit()} characters"
                self._bad_rows.add("malformed_row", [lines.numbers[place]], [wrong])
            else:
                self._add(rows, lines.numbers[place], fields)
                self.long_rows += [lines.numbers[place]] if row.stop - place > 1 else []
            inside[place : row.stop] = [True] * (row.stop - place)
            end = row.stop
        return inside, rows, table.height

    def _all_alone(self, texts: list[str]) -> list[list[str]] | None:
        """The fields of lines that are a row each; None where one is not."""
        try:
            found = list(csv.reader(texts, delimiter=self._separator, strict=True))
        except csv.Error:
            return None
        return found if len(found) == len(texts) else None

    def _add(self, rows: list[tuple[int | str, ...]], line: int, fields: list[str]) -> None:
        if len(fields) == self._width:
            rows.append((line, *(fields[place] for place in self._wanted.values())))
        else:
            self._bad_rows.add("malformed_row", [line], [self._wrong(len(fields))])

    def _wrong(self, count: int) -> str:
        return f"{count} fields, not {self._width}"


class _Row(NamedTuple):
    """A row that begins in a line.

    Attributes:
        stop: the place behind its last line; behind the end of the lines where it may go on there.
        num_fields: 0 where its quotes do not close.
    """

    stop: int
    num_fields: int


class _QuotedLines:
    """Finds the rows that begin in lines with quotes. Each of these lines is looked at twice, however rows overlap.

    A line is read from its begin, and as the continuation of a quoted value of an earlier line. What a continuation
    comes to is the same for all rows that it may belong to, so it is found once, from the last line up.
    """

    def __init__(self, table: pl.DataFrame, quoted: pl.Series, separator: str) -> None:
        self.places: list[int] = quoted.arg_true().to_list()
        self.numbers: list[int] = table["line"].to_list()
        self._texts: list[str] = table["text"].to_list()
        self._separator = separator
        self._size: list[int] = table["text"].str.len_chars().cum_sum().to_list()
        self._continued = self._continuations()

    def row_from(self, number: int) -> _Row:
        """The row that begins in the line of `places[number]`."""
        place = self.places[number]
        num_fields, is_open = self._read(self._texts[place])
        if not is_open:
            return _Row(place + 1, num_fields)
        stop, more = self._continued[number + 1]
        longest = min(stop, len(self._texts))
        size = self._size[longest - 1] - (self._size[place - 1] if place else 0)
        if longest - place > MAX_ROW_LINES or size > MAX_ROW_CHARACTERS:
            return _Row(place + 1, 0)
        return _Row(stop, num_fields + more if more else 0)

    def fields(self, place: int, stop: int) -> list[str] | None:
        """The fields of the row of these lines, with the empty lines between them; None where one is too long."""
        begins = zip(self.numbers[place:stop], [self.numbers[place], *self.numbers[place : stop - 1]], strict=True)
        texts = ["\n" * (line - before) + self._texts[place + n] for n, (line, before) in enumerate(begins)]
        try:
            return next(csv.reader(texts, delimiter=self._separator, strict=True))
        except csv.Error:
            return None

    def _continuations(self) -> list[tuple[int, int]]:
        """For each of `places`, and the end: where a row stops that comes to it inside a quoted value, and the fields
        that end from there on, 0 where the row is none."""
        found = [(len(self._texts) + 1, 0)]
        for place in reversed(self.places):
            num_fields, is_open = self._read('"' + self._texts[place])
            if is_open:
                stop, more = found[-1]
                found.append((stop, num_fields + more if more else 0))
            else:
                found.append((place + 1, num_fields))
        return found[::-1]

    def _read(self, text: str) -> tuple[int, bool]:
        """The number of fields that end in a line, 0 where it is malformed; and whether a value is open at its end."""
        try:
            return len(next(csv.reader([text], delimiter=self._separator, strict=True))), False
        except csv.Error as error:
            if "unexpected end" not in str(error):
                return 0, False
        return len(next(csv.reader([text + '"'], delimiter=self._separator, strict=True))) - 1, True
