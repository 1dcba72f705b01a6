"""Runs the command `import` in this process and reads what it wrote."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

from typer.testing import CliRunner

from isrf.contract.errors import IsrfError
from offline.__main__ import app


class Imported(NamedTuple):
    """What an import wrote and said.

    Attributes:
        items: by item_id; empty where there is no file.
        events: rows of user_id, item_id, timestamp, event, weight, session_id.
        said: its report.
    """

    items: dict[str, dict[str, Any]]
    events: list[tuple[str, ...]]
    said: str


def import_files(source: str, files: list[Path], out: Path, *options: str) -> Imported:
    """Imports files into the folder `out`; raises the command's refusal."""
    command = ["import", source, *map(str, files), "--out", str(out), *options]
    result = CliRunner().invoke(app, command)
    if isinstance(result.exception, IsrfError):
        raise result.exception
    assert result.exit_code == 0, (result.output, result.exception)
    assert result.stdout == f"{out}\n"
    assert not list(out.glob(".*")), "no partial file stays"
    items = out / "items.jsonl"
    records = [json.loads(line) for line in items.read_text().splitlines()] if items.exists() else []
    interactions = out / "interactions.csv"
    rows = list(csv.reader(interactions.read_text().splitlines())) if interactions.exists() else [[]]
    return Imported({record["item_id"]: record for record in records}, [tuple(row) for row in rows[1:]], result.stderr)


def write_file(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def json_lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)
