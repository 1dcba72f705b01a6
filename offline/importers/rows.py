"""The rows of a shop system's files: tables by their columns' documented names, and JSON."""

import codecs
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import polars as pl

from isrf.contract.errors import DataError
from isrf.contract.shown import printable, shown
from offline.importers.report import ImportReport
from offline.reading.columns import Columns
from offline.reading.encodings import recognise_encoding
from offline.reading.files import open_bytes
from offline.reading.lines import first_line
from offline.reading.settings import IngestConfig
from offline.reading.text_lines import json_kind, read_lines, read_object
from offline.reading.text_table import read_text_part

_NAMED = 12


class Table(NamedTuple):
    """A table of a shop system.

    Attributes:
        what: its name for messages.
        columns: our name of a column → the system's names for it, of which a file has at most one.
        required: our names of the columns that tell this table from others.
    """

    what: str
    columns: Mapping[str, tuple[str, ...]]
    required: tuple[str, ...]


class TableRows(NamedTuple):
    """A file's table, and of each row its line and our name → text; "" for an empty cell or a missing column."""

    table: Table
    rows: Iterator[tuple[int, dict[str, str]]]


def table_rows(path: Path, part: int, report: ImportReport, tables: Sequence[Table]) -> TableRows:
    """Opens a CSV or TSV file as the first of `tables` whose required columns it has.

    Args:
        path: also packed with gzip.
        part: its number among the files.
        report: takes rows that cannot be read.
        tables: what the file may be.

    Raises:
        DataError: `import.unknown_table`; `data.no_header`, `data.separator`, and of a file that cannot be read.
    """
    chosen: list[Table] = []

    def understand(where: str, header: list[str]) -> Columns:
        names = [name.strip().removeprefix("\ufeff").strip() for name in header]
        for table in tables:
            places = _places(table, names)
            if set(table.required) <= set(places):
                chosen.append(table)
                return Columns(places, {}, tuple(names), {})
        raise _unknown_table(where, names, tables)

    part_read = read_text_part(path, str(path), report.bad_rows, IngestConfig(), understand, part=part)
    table = chosen[0]
    empty = dict.fromkeys(table.columns, "")

    def rows() -> Iterator[tuple[int, dict[str, str]]]:
        for block in _with_bad_rows(part_read.blocks, report):
            for row in block.iter_rows(named=True):
                line = row.pop("line")
                report.num_rows += 1
                yield line, empty | {name: text.strip() for name, text in row.items() if text is not None}
        repeated = part_read.repeated_headers
        if repeated:
            report.leave_out("that repeat the header", repeated[0], rows=len(repeated))

    return TableRows(table, rows())


def first_character(path: Path) -> str:
    """The first visible character of a file, which tells JSON and XML from a table; "" for an empty file."""
    with open_bytes(path) as file:
        text = file.read(512).lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\x00")
    return text[:1].decode("latin-1")


def json_rows(path: Path, part: int, report: ImportReport) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON Lines with their lines, or of one JSON list with their places in it, from 1.

    A list is read as a whole, JSON Lines are not.

    Args:
        path: also packed with gzip.
        part: its number among the files.
        report: takes lines that are no object.

    Raises:
        DataError: `import.json_list`, and of a file that cannot be read.
    """
    if first_character(path) == "[":
        yield from _listed_objects(path, part, report)
        return
    encoding = recognise_encoding(path)
    blocks = read_lines(path, report.bad_rows, encoding=encoding, first=first_line(part))
    for block in _with_bad_rows(blocks, report):
        for line, text in block.iter_rows():
            if text.isspace():
                continue
            report.num_rows += 1
            record = read_object(line, text, report.bad_rows, personal=True)
            if record is not None:
                yield line, record


def _listed_objects(path: Path, part: int, report: ImportReport) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_bytes(path) as file:
        content = file.read()
    try:
        records = orjson.loads(content.removeprefix(codecs.BOM_UTF8))
    except orjson.JSONDecodeError as error:
        raise DataError(
            "import.json_list",
            f"{path} begins as a JSON list, and cannot be read as one: {error}.",
            fix="Export it again, or write an object a line: jq -c '.[]' FILE > FILE.jsonl.",
        ) from None
    for line, record in enumerate(records, first_line(part) + 1):
        report.num_rows += 1
        if isinstance(record, dict):
            yield line, record
        else:
            report.refuse("malformed_json", line, json_kind(record), right="an object in each place of the list")


def _with_bad_rows(blocks: Iterator[pl.DataFrame], report: ImportReport) -> Iterator[pl.DataFrame]:
    """The blocks; rows that their reader leaves out as bad count as read."""
    while True:
        before = len(report.bad_rows)
        block = next(blocks, None)
        report.num_rows += len(report.bad_rows) - before
        if block is None:
            return
        yield block


def _places(table: Table, names: Sequence[str]) -> dict[str, int]:
    plain = [name.casefold() for name in names]
    found: dict[str, int] = {}
    for ours, theirs in table.columns.items():
        known = {name.casefold() for name in theirs}
        places = [place for place, name in enumerate(plain) if name in known]
        if places:
            found[ours] = places[0]
    return found


def _unknown_table(where: str, names: Sequence[str], tables: Sequence[Table]) -> DataError:
    needs = "; ".join(
        f"{table.what} have {', '.join(shown(table.columns[name][0]) for name in table.required)}" for table in tables
    )
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return DataError(
        "import.unknown_table",
        f"{where} has the columns {', '.join(printable(shown(name)) for name in names[:_NAMED])}{more}: {needs}.",
        fix="Export the file in English and with all its columns, or name another source.",
    )
