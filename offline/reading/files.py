"""Finds the shop's files: one of each kind, or a folder of parts. It knows nothing of what columns mean."""

import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, NamedTuple

import polars as pl

from isrf.contract.errors import DataError
from isrf.contract.shown import printable, shown

Format = Literal["csv", "jsonl", "parquet"]
SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "csv",
    ".tsv.gz": "csv",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".parquet": "parquet",
}
INTERACTION_FORMATS: tuple[Format, ...] = ("csv", "parquet")
ITEM_FORMATS: tuple[Format, ...] = ("jsonl", "csv", "parquet")
_NAMED = 8


class ShopFile(NamedTuple):
    """A file of the shop, or a folder of parts that are read as one file.

    Attributes:
        path: the file or the folder.
        files: the file, or the parts in the order of their names.
        format: of all files.
    """

    path: Path
    files: tuple[Path, ...]
    format: Format

    @property
    def name(self) -> str:
        """For messages."""
        return self.path.name

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts' names; empty for a single file."""
        return () if self.files == (self.path,) else tuple(f"{self.name}/{file.name}" for file in self.files)


def single(path: Path) -> ShopFile:
    """A source of one file."""
    return ShopFile(path, (path,), SUFFIXES[_suffix(path) or ""])


def find_source(folder: Path, stem: str, formats: tuple[Format, ...]) -> ShopFile:
    """The only file `stem.suffix` in a shop's folder, or the folder of parts `stem`.

    Raises:
        DataError: `data.missing_folder`, `data.missing_file`, `data.ambiguous_file`, `data.empty_file`,
            `data.foreign_part`.
    """
    if not folder.is_dir():
        raise DataError(
            "data.missing_folder", f"{folder} is not a folder.", fix="Set --data to the folder of the shop's files."
        )
    suffixes = [suffix for suffix, kind in SUFFIXES.items() if kind in formats]
    found = [path for suffix in suffixes if (path := folder / f"{stem}{suffix}").is_file()]
    if (folder / stem).is_dir():
        found.append(folder / stem)
    names = f"{stem}.{{{','.join(suffix[1:] for suffix in suffixes)}}}"
    if not found:
        raise _missing(folder, stem, names)
    if len(found) > 1:
        raise DataError(
            "data.ambiguous_file",
            f"{folder} has both {' and '.join(path.name for path in found)}.",
            fix="Keep only the right one.",
        )
    source = _folder_of_parts(found[0], suffixes) if found[0].is_dir() else single(found[0])
    for file in source.files:
        if file.stat().st_size == 0:
            raise DataError("data.empty_file", f"{file} is empty.", fix="Export the shop's data again.")
    return source


def _missing(folder: Path, stem: str, names: str) -> DataError:
    json_lines = next((path for suffix in (".jsonl", ".json") if (path := folder / f"{stem}{suffix}").is_file()), None)
    if json_lines is not None:
        read = "read_json" if _begins_as_list(json_lines) else "read_ndjson"
        form = ("write_ndjson", "jsonl") if "jsonl" in names else ("write_parquet", "parquet")
        return DataError(
            "data.missing_file",
            f"{json_lines} is JSON; {stem} are read as {names}.",
            fix=f"Write it so: python -c \"import polars; polars.{read}('{json_lines}').{form[0]}("
            f"'{folder / stem}.{form[1]}')\".",
        )
    others = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    beside = f" It holds {', '.join(printable(name) for name in others[:_NAMED])}." if others else ""
    return DataError(
        "data.missing_file",
        f"{folder} has no {names}, and no folder {stem} of parts.{beside}",
        fix=f"Put the file there under one of these names, such as {stem}.csv; save other formats (xlsx, zip, json) as "
        "one of them.",
    )


def _begins_as_list(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _folder_of_parts(folder: Path, suffixes: list[str]) -> ShopFile:
    """The parts of a folder; names that begin with `_` or `.` are marks of the program that wrote them."""
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith(("_", ".")))
    kinds = {_suffix(path) for path in entries}
    foreign = [path for path in entries if not path.is_file() or _suffix(path) not in suffixes]
    if not foreign and len(kinds) > 1:
        foreign = [path for path in entries if _suffix(path) != _suffix(entries[0])]
    if foreign:
        raise DataError(
            "data.foreign_part",
            f"{folder} is read as parts of one file, and holds {printable(foreign[0].name)}.",
            fix=f"Keep nothing there but files of one format, of {', '.join(suffix[1:] for suffix in suffixes)}.",
        )
    if not entries:
        raise DataError("data.missing_file", f"the folder {folder} holds no part.", fix="Put the parts there.")
    return ShopFile(folder, tuple(entries), SUFFIXES[_suffix(entries[0]) or ""])


def _suffix(path: Path) -> str | None:
    """The longest of `SUFFIXES` that the name ends with."""
    return next((suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if path.name.endswith(suffix)), None)


def check_same_columns(source: ShopFile, number: int, first: Sequence[str], header: Sequence[str]) -> None:
    """Refuses a part whose columns are not those of the first part, whatever their order.

    Raises:
        DataError: `data.other_columns`.
    """
    if number and sorted(first) != sorted(header):
        lacking, more = ({*one} - {*other} for one, other in ((first, header), (header, first)))
        said = [f"lacks {', '.join(map(shown, sorted(lacking)))}"] if lacking else []
        said += [f"has {', '.join(map(shown, sorted(more)))}"] if more else []
        raise DataError(
            "data.other_columns",
            f"{source.files[number]} does not have the columns of {source.files[0].name}: it {' and '.join(said)}.",
            fix="Export the parts with the same columns.",
        )


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file for reading, through gzip where its name ends in `.gz`.

    Raises:
        DataError: `data.unreadable_file`, in the block of the caller too: the file is no gzip file, or ends early.
    """
    try:
        with path.open("rb") as raw:
            if path.suffix != ".gz":
                yield raw
                return
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield io.BufferedReader(unpacked)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            "data.unreadable_file",
            f"{path} cannot be unpacked: {printable(str(error), 200)}.",
            fix="Copy or export the file again; `gzip -t` checks it.",
        ) from error


def read_parquet(
    path: Path, columns: list[str] | None = None, *, first_row: int = 0, num_rows: int | None = None
) -> pl.DataFrame:
    """Reads a Parquet table, or some columns of it, or `num_rows` rows from `first_row` on.

    Raises:
        DataError: `data.unreadable_file`.
    """
    try:
        if not first_row:
            return pl.read_parquet(path, columns=columns, n_rows=num_rows)
        table = pl.scan_parquet(path) if columns is None else pl.scan_parquet(path).select(columns)
        return table.slice(first_row, num_rows).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _no_parquet(path, error) from error


def parquet_columns(path: Path) -> list[str]:
    """The names of a Parquet file's columns.

    Raises:
        DataError: `data.unreadable_file`.
    """
    try:
        return list(pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _no_parquet(path, error) from error


def _no_parquet(path: Path, error: Exception) -> DataError:
    return DataError(
        "data.unreadable_file",
        f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}.",
        fix="Export the file again, or write CSV/JSONL.",
    )
