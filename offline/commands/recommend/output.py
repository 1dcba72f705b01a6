"""Writes one file from the parts of a run, a part at a time, so that memory does not grow with the number of users.

All formats have the same rows, one for each user and item: what reads tables (a warehouse, a spreadsheet, the import
of a mailing tool) reads them without unpacking lists, and one row per user is one `pivot` or `GROUP BY` away.
"""

import csv
import gzip
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import polars as pl

from isrf.contract.errors import ConfigError
from isrf.runtime.files import move_into_place, sync_path, write_file
from offline.commands.recommend.parts import full_disk_refused

_CSV = (".csv", ".csv.gz")
FORMATS = (".parquet", *_CSV, ".jsonl", ".jsonl.gz")


def check_out(out: Path, *, overwrite: bool) -> None:
    """Checks, before any work, that a file can be written.

    Raises:
        ConfigError: `config.out`, another format or no folder; `config.out_exists`.
    """
    if not out.name.endswith(FORMATS):
        raise ConfigError(
            "config.out", f"{out.name} has no ending of a format.", fix=f"Use one of {', '.join(FORMATS)}."
        )
    if not out.parent.is_dir():
        raise ConfigError("config.out", f"{out.parent} is not a folder.", fix="Make it, or name another.")
    if os.path.lexists(out) and not (overwrite and out.is_file()):
        raise ConfigError(
            "config.out_exists", f"{out} exists.", fix="Name another file, or add --overwrite to replace it."
        )


def write_lists(parts: Sequence[Path], out: Path, metadata: Mapping[str, str]) -> None:
    """Writes the rows of all parts; the old file, or none, is there until the new one is complete.

    Args:
        metadata: for Parquet's own; other formats have no place for it.

    Raises:
        StageError: `recommend.no_space`.
    """
    partial = out.with_name(f".{out.name}.partial")
    try:
        with full_disk_refused(out.parent):
            if out.suffix == ".parquet":
                pl.scan_parquet(list(parts)).sink_parquet(partial, metadata=dict(metadata))
            else:
                with _opened(partial, packed=out.suffix == ".gz") as file:
                    for number, part in enumerate(parts):
                        rows = pl.read_parquet(part)
                        if out.name.endswith(_CSV):
                            rows.write_csv(file, include_header=number == 0)
                        else:
                            rows.write_ndjson(file)
            sync_path(partial)
            move_into_place(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def failures_file(out: Path) -> Path:
    """The file of the users without a list, beside the lists."""
    return out.with_name(f"{out.name}.failed.csv")


def write_failures(failures: Sequence[tuple[str, str]], out: Path) -> None:
    """Writes users and reasons as CSV, which `--users` reads; without any it removes an earlier run's file."""
    path = failures_file(out)
    if not failures:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    csv.writer(text).writerows([("user_id", "reason"), *failures])
    with full_disk_refused(out.parent):
        write_file(path, text.getvalue().encode())


@contextmanager
def _opened(path: Path, *, packed: bool) -> Iterator[IO[bytes]]:
    with path.open("wb") as raw:
        if not packed:
            yield raw
            return
        # Without a time, so that equal rows are equal bytes.
        with gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as file:
            yield file  # type: ignore[misc]
