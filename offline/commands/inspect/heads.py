"""The first rows of a file as they are written, before anything is known of what its columns mean."""

from typing import Any, NamedTuple

import orjson

from offline.reading.bad_rows import BadRows
from offline.reading.columns import Columns
from offline.reading.encodings import recognise_encoding
from offline.reading.files import ShopFile, read_parquet
from offline.reading.separators import separator_name
from offline.reading.settings import IngestConfig
from offline.reading.text_lines import read_lines
from offline.reading.text_table import OTHER, read_text_part

NUM_ROWS = 10


class Head(NamedTuple):
    """The beginning of a file, of its first part where it has parts.

    Attributes:
        how: encoding and separator, for people; "" for Parquet.
        columns: the file's own names.
        rows: a value for each column, None where there is none.
    """

    how: str
    columns: list[str]
    rows: list[list[Any]]


def read_head(file: ShopFile, settings: IngestConfig) -> Head:
    """Reads the first `NUM_ROWS` rows.

    Raises:
        DataError: the file cannot be read at all, or has no header.
    """
    return {"csv": _of_csv, "jsonl": _of_json, "parquet": _of_parquet}[file.format](file, settings)


def _of_csv(file: ShopFile, settings: IngestConfig) -> Head:
    part = read_text_part(file.files[0], str(file.files[0]), BadRows(file.name), settings, _every_column, others=True)
    header = list(part.columns.header)
    first = next((block for block in part.blocks if block.height), None)
    rows = (
        [] if first is None else first.select(OTHER + str(place) for place in range(len(header))).head(NUM_ROWS).rows()
    )
    how = f"{part.encoding.describe()}, separated by {separator_name(part.separator)}"
    return Head(how, header, [list(row) for row in rows])


def _every_column(_: str, header: list[str]) -> Columns:
    """Columns by their places, since a header may have unnamed and doubled ones."""
    return Columns({}, {str(place): place for place in range(len(header))}, tuple(map(str.strip, header)), {})


def _of_json(file: ShopFile, settings: IngestConfig) -> Head:
    encoding = recognise_encoding(file.files[0], settings.encoding)
    records: list[dict[str, Any]] = []
    for block in read_lines(file.files[0], BadRows(file.name), encoding=encoding):
        for text in block["text"].head(NUM_ROWS):
            try:
                record = orjson.loads(text)
            except orjson.JSONDecodeError:
                continue
            records += [record] if isinstance(record, dict) else []
        if len(records) >= NUM_ROWS:
            break
    names = list(dict.fromkeys(name for record in records for name in record))
    return Head(encoding.describe(), names, [[record.get(name) for name in names] for record in records[:NUM_ROWS]])


def _of_parquet(file: ShopFile, _: IngestConfig) -> Head:
    table = read_parquet(file.files[0], num_rows=NUM_ROWS)
    return Head("", table.columns, [list(row) for row in table.rows()])
