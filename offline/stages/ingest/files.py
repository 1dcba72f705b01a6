"""Finds the shop's two files and reads text lines with their numbers.

It knows nothing of columns. A line ends at a newline, always: no valid value may hold a newline, so a quote that is not
closed spoils its own line but never the next one.
"""

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from isrf.contract.errors import DataError
from offline.stages.ingest.bad_rows import BadRows

BLOCK_BYTES = 1 << 25


class TextLines(NamedTuple):
    """A block of lines without their line ends; lines that are blank or not UTF-8 are left out."""

    numbers: list[int]
    texts: list[str]


def find_file(folder: Path, stem: str, suffixes: tuple[str, str]) -> Path:
    """The only file `stem.suffix` in a shop's folder, with one of the suffixes.

    Raises:
        DataError: `data.missing_folder`, `data.missing_file`, `data.ambiguous_file`, `data.empty_file`.
    """
    if not folder.is_dir():
        raise DataError(
            "data.missing_folder", f"{folder} is not a folder.", fix="Set --data to the folder of the shop's files."
        )
    found = [path for suffix in suffixes if (path := folder / f"{stem}.{suffix}").is_file()]
    names = " or ".join(f"{stem}.{suffix}" for suffix in suffixes)
    if not found:
        raise DataError("data.missing_file", f"{folder} has no {names}.", fix=f"Put one {names} there.")
    if len(found) > 1:
        raise DataError(
            "data.ambiguous_file",
            f"{folder} has both {' and '.join(path.name for path in found)}.",
            fix="Keep only the right one of the two.",
        )
    if found[0].stat().st_size == 0:
        raise DataError("data.empty_file", f"{found[0]} is empty.", fix="Export the shop's data again.")
    return found[0]


def read_lines(path: Path, bad_rows: BadRows, *, block_bytes: int = BLOCK_BYTES) -> Iterator[TextLines]:
    """Reads the file's lines in blocks, without a byte order mark; lines that are not UTF-8 are counted as bad."""
    number = 1
    with path.open("rb") as file:
        while block := file.read(block_bytes) + file.readline():
            if number == 1:
                block = block.removeprefix(codecs.BOM_UTF8)
            raw = block.split(b"\n")
            if raw[-1] == b"":
                raw.pop()
            lines = _decode(raw, number, bad_rows)
            number += len(raw)
            yield lines


def read_parquet(path: Path) -> pl.DataFrame:
    """Reads a whole Parquet table.

    Raises:
        DataError: `data.unreadable_file`.
    """
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            "data.unreadable_file",
            f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}.",
            fix="Export the file again, or write CSV/JSONL.",
        ) from error


def _decode(raw: list[bytes], first_number: int, bad_rows: BadRows) -> TextLines:
    numbers: list[int] = []
    texts: list[str] = []
    undecodable: list[int] = []
    values: list[str] = []
    for number, line in enumerate(raw, start=first_number):
        try:
            text = line.decode("utf-8").removesuffix("\r")
        except UnicodeDecodeError as error:
            undecodable.append(number)
            values.append(f"byte 0x{line[error.start]:02x} at {error.start + 1}")
            continue
        if text:
            numbers.append(number)
            texts.append(text)
    bad_rows.add("not_utf8", undecodable, values)
    return TextLines(numbers, texts)
