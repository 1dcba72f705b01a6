"""Writes a shop's files and runs the command `ingest` on them, in this process."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from typer.testing import CliRunner

from isrf.contract.errors import IsrfError
from offline.__main__ import app

Files = Mapping[str, str | bytes | pl.DataFrame]
"""By name: text, bytes, or a table to write as Parquet."""


def write(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pl.DataFrame):
            content.write_parquet(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def ingest(data: Path, releases: Path, options: str = "") -> Path:
    """The output of the stage `ingest`; raises its refusal."""
    command = ["ingest", "--data", str(data), "--releases", str(releases), *shlex.split(options)]
    result = CliRunner().invoke(app, command, catch_exceptions=True)
    if isinstance(result.exception, IsrfError):
        raise result.exception
    assert result.exit_code == 0, (result.output, result.exception)
    return Path(result.stdout.splitlines()[-1])


def report_of(out: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def events_of(out: Path) -> list[tuple[str, str, float | None, str]]:
    """Events of the user with most of them, training first."""
    columns = ["user_index", "item_index", "timestamp", "event"]
    tables = [pl.read_parquet(out / f"{name}.parquet").select(columns) for name in ("train", "heldout")]
    items, users = (pl.read_parquet(out / f"{name}.parquet")[f"{name[:-1]}_id"] for name in ("items", "users"))
    rows = pl.concat(tables).rows()
    user = max({row[0] for row in rows}, key=[row[0] for row in rows].count)
    return [(users[row[0]], items[row[1]], row[2], row[3]) for row in rows if row[0] == user]
