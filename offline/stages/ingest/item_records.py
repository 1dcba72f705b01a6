"""The rows of the items file as records, whatever its format: a JSON object, or what one would hold.

Cells of CSV are texts; `offline.reading.cells` makes lists, numbers and flags of them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import polars as pl

from isrf.contract.item_changes import GROUP_ID, ROW_FIELDS
from isrf.contract.item_fields import ITEM_NAMES
from offline.reading.bad_rows import BadRows
from offline.reading.cells import read_cells, read_price, typed, whole_ids
from offline.reading.columns import Columns, Wanted, check_unique, find_columns
from offline.reading.encodings import recognise_encoding
from offline.reading.files import ShopFile, check_same_columns, read_parquet
from offline.reading.lines import first_line
from offline.reading.notes import FileNotes, notes_of_text
from offline.reading.settings import IngestConfig
from offline.reading.text_lines import read_lines, read_object
from offline.reading.text_table import OTHER, TextPart, read_text_part

WANTED = Wanted(ROW_FIELDS, ("item_id",), ITEM_NAMES)
Record = dict[str, Any]


class ItemRecords:
    """Iterates over `(line, record)`; counts rows that are none. Iterate once, to the end."""

    def __init__(self, source: ShopFile, bad_rows: BadRows, settings: IngestConfig) -> None:
        self._source = source
        self._bad_rows = bad_rows
        self._settings = settings
        self._notes = FileNotes(source.name, source.format, source.parts)
        self._file_columns: dict[str, None] = {}

    def __iter__(self) -> Iterator[tuple[int, Record]]:
        formats: Mapping[str, Callable[[], Iterator[tuple[int, Record]]]] = {
            "csv": self._of_csv,
            "jsonl": self._of_json,
            "parquet": self._of_parquet,
        }
        return formats[self._source.format]()

    def notes(self) -> FileNotes:
        """How the file was read."""
        return self._notes

    def file_columns(self) -> list[str]:
        """All names of columns or fields that the file has."""
        return list(self._file_columns)

    def _of_json(self) -> Iterator[tuple[int, Record]]:
        ours = json_names(self._settings)
        encodings: dict[str, None] = {}
        for number, path in enumerate(self._source.files):
            encoding = recognise_encoding(path, self._settings.encoding)
            encodings[encoding.describe()] = None
            for block in read_lines(path, self._bad_rows, encoding=encoding, first=first_line(number)):
                for line, text in block.iter_rows():
                    record = None if text.isspace() else read_object(line, text, self._bad_rows)
                    if record is not None:
                        self._file_columns |= dict.fromkeys(record)
                        yield line, self._with_price(_renamed(record, ours) if ours else record)
        self._notes = self._notes._replace(encodings=tuple(encodings))

    def _with_price(self, record: Record) -> Record:
        """The record with a price that is a text read with a decimal comma, if the shop writes one."""
        price = record.get("price")
        if self._settings.decimal_comma and isinstance(price, str):
            return {**record, "price": read_price(price, decimal_comma=True)}
        return record

    def _of_parquet(self) -> Iterator[tuple[int, Record]]:
        """NaN in one of the shop's own columns stands for a missing value, as does one in a column of whole ids."""
        for number, path in enumerate(self._source.files):
            table = read_parquet(path)
            columns = self._understand(str(path), table.columns)
            check_same_columns(self._source, number, (self._notes.columns or columns).header, columns.header)
            self._notes = self._notes if number else self._notes._replace(columns=columns)
            names = table.columns
            wanted = {name: names[place] for name, place in columns.ours.items()}
            wanted |= {name: names[place] for name, place in columns.others.items()}
            table = table.select(pl.col(theirs).alias(name) for name, theirs in wanted.items())
            ids = [table[name] for name in ("item_id", GROUP_ID) if name in table.columns]
            numbers = [name for name, kind in table.schema.items() if kind.is_float() and name not in ROW_FIELDS]
            table = table.with_columns(pl.col(numbers).fill_nan(None), *map(whole_ids, ids))
            yield from enumerate(map(self._with_price, table.iter_rows(named=True)), start=first_line(number) + 1)

    def _of_csv(self) -> Iterator[tuple[int, Record]]:
        parts: list[TextPart] = []
        frames: list[pl.DataFrame] = []
        for number, path in enumerate(self._source.files):
            part = read_text_part(
                path, str(path), self._bad_rows, self._settings, self._understand, part=number, others=True
            )
            check_same_columns(self._source, number, parts[0].columns.header if parts else (), part.columns.header)
            parts.append(part)
            frames += [frame.select(sorted(frame.columns)) for frame in part.blocks]
        table = pl.concat(frames)
        self._notes = notes_of_text(self._source.name, self._source.parts, parts)
        others = [name for name in table.columns if name.startswith(OTHER)]
        ours = [name for name in parts[0].columns.ours if name in table.columns]
        table = typed(table, others)
        own = [name.removeprefix(OTHER) for name in others]
        rows = zip(table.select(ours).iter_rows(named=True), table.select("line", *others).iter_rows(), strict=True)
        for texts, (line, *values) in rows:
            more = {name: value for name, value in zip(own, values, strict=True) if value is not None}
            yield line, more | read_cells(texts, self._settings)

    def _understand(self, where: str, header: list[str]) -> Columns:
        columns = find_columns(where, header, WANTED, self._settings.columns)
        check_unique(where, columns)
        self._file_columns |= dict.fromkeys(columns.header)
        return columns


def json_names(settings: IngestConfig) -> dict[str, str]:
    """The shop's own names of our fields → ours; fields of JSON are found by the exact name, unlike columns."""
    return {theirs.strip(): name for name in ROW_FIELDS for theirs in settings.columns.get(name, ())}


def _renamed(record: Record, ours: Mapping[str, str]) -> Record:
    """The record with the shop's names of our fields replaced; a field of our own name gives way."""
    renamed = {ours[name]: value for name, value in record.items() if name in ours}
    return {**{name: value for name, value in record.items() if name not in ours and name not in renamed}, **renamed}
