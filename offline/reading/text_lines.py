"""Reads a text file's lines with their numbers, in blocks. It knows nothing of columns.

Line ends are a line feed, with or without a carriage return before it; in a file without any line feed, a carriage
return. A byte order mark is skipped.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from isrf.contract.json_object import doubled_name
from isrf.contract.shown import printable, shown
from offline.reading.bad_rows import BadRows
from offline.reading.encodings import BLOCK_BYTES, Encoding, recognise_encoding, text_blocks

_BEFORE_ERROR = 20
SCHEMA = {"line": pl.Int64, "text": pl.String}


def read_lines(
    path: Path,
    bad_rows: BadRows,
    *,
    encoding: Encoding | None = None,
    first: int = 0,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[pl.DataFrame]:
    """Yields blocks of lines: `line` i64 from `first` + 1, and `text` str without its line end; no empty lines.

    Lines that the encoding cannot read are counted as `not_utf8` and left out.

    Args:
        path: also packed with gzip.
        bad_rows: takes the undecodable lines.
        encoding: recognised, if None.
        first: what is added to line numbers (`offline.reading.lines.first_line`).
        block_bytes: bytes that are read at once.

    Raises:
        DataError: `data.unreadable_file`, `data.line_too_long`, `data.not_decodable`.
    """
    encoding = recognise_encoding(path) if encoding is None else encoding
    number = first + 1
    for block in text_blocks(path, encoding, block_bytes=block_bytes):
        if isinstance(block, bytes):
            raw = block.removesuffix(b"\n").split(b"\n")
            lines = _decoded(raw, encoding.codec, number, bad_rows)
            number += len(raw)
        else:
            texts = block.removesuffix("\n").split("\n")
            lines = pl.DataFrame({"text": texts}, schema={"text": pl.String})
            # Not `with_row_index`: the numbers of a later part are larger than its type.
            numbers = pl.int_range(pl.len(), dtype=pl.Int64) + number
            lines = lines.select(numbers.alias("line"), pl.col("text").str.strip_suffix("\r"))
            number += len(texts)
        yield lines.filter(pl.col("text") != "")


def read_object(line: int, text: str, bad_rows: BadRows, *, personal: bool = False) -> dict[str, Any] | None:
    """The JSON object of a line; None for a bad row (`malformed_json`, `duplicate_name`).

    Args:
        line: its number.
        text: the line.
        bad_rows: takes a bad row.
        personal: lines may name people: a message then says where the mistake is, and nothing of the text.
    """
    try:
        record = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        start = max(error.pos - _BEFORE_ERROR, 0)
        found = "" if personal else f": {printable(text[start:])}"
        bad_rows.add("malformed_json", [line], [f"at character {error.pos + 1}{found}"])
        return None
    if not isinstance(record, dict):
        bad_rows.add("malformed_json", [line], [json_kind(record) if personal else shown(record)])
        return None
    if (name := doubled_name(text, record)) is not None:
        bad_rows.add("duplicate_name", [line], [shown(name)])
        return None
    return record


def json_kind(value: Any) -> str:
    """What a JSON value is, for messages on data that may name people."""
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _decoded(raw: list[bytes], codec: str, first_number: int, bad_rows: BadRows) -> pl.DataFrame:
    numbers: list[int] = []
    texts: list[str] = []
    undecodable: list[int] = []
    values: list[str] = []
    for number, line in enumerate(raw, start=first_number):
        try:
            texts.append(line.decode(codec).removesuffix("\r"))
        except UnicodeDecodeError as error:
            undecodable.append(number)
            values.append(f"byte 0x{line[error.start]:02x} at {error.start + 1}")
            continue
        numbers.append(number)
    bad_rows.add("not_utf8", undecodable, values)
    return pl.DataFrame({"line": numbers, "text": texts}, schema=SCHEMA)
