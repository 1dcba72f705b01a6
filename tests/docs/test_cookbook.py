"""Every page of the cookbook works as it stands, in this process: its commands, and the reports that it shows."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from offline.__main__ import app
from offline.importers.sources import OWN
from tests.docs.developer import ROOT, examples
from tests.offline.importers.import_command import import_files, json_lines, write_file

FOLDER = ROOT / "docs" / "cookbook"
PAGES = sorted(FOLDER.glob("*.md"))
PYTHON = ".venv/bin/python"
OFFLINE = f"{PYTHON} -m offline "
_TEXT = re.compile(r"^```text\n(.*?)^```", re.MULTILINE | re.DOTALL)


def follow(page: Path, home: Path) -> str:
    """What the commands of a page say, run in the folder `home`."""
    said = ""
    for example in examples(page.read_text(encoding="utf-8")):
        for command in example.commands if not example.not_run else ():
            if command.startswith(OFFLINE):
                result = CliRunner().invoke(app, command.removeprefix(OFFLINE).split(), catch_exceptions=False)
                assert result.exit_code == 0, (command, result.output)
                said += result.output
            else:
                command = command.replace(PYTHON, sys.executable)
                subprocess.run(["bash", "-c", command], cwd=home, check=True, capture_output=True)
    return said


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_works_and_shows_what_is_said(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = follow(page, tmp_path)
    shown = [line for block in _TEXT.findall(page.read_text(encoding="utf-8")) for line in block.splitlines()]
    assert [line for line in shown if line not in said.splitlines()] == []
    if page.stem != "own":
        assert shown
        assert "A run would work: " in said


def test_every_source_has_a_page() -> None:
    assert sorted(page.stem for page in PAGES) == sorted([*OWN, "own"])


def test_the_importer_of_ones_own_is_found_once_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(FOLDER / "own.md", tmp_path)
    package = tmp_path / "till"
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]["isrf.importers"]
    about = package / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    write_file(about / "METADATA", f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    write_file(about / "entry_points.txt", "[isrf.importers]\n" + "".join(f"{a} = {b}\n" for a, b in points.items()))
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.delitem(sys.modules, "till_importer", raising=False)
    receipts = [
        {"at": "2025-10-07T09:50:26+02:00", "card": "c1", "articles": ["mug", "teapot"]},
        {"at": "2025-10-07T09:51:26+02:00", "articles": ["mug"]},
        {"at": "2025-10-07T09:52:26+02:00", "card": "c2", "articles": ["mug"]},
    ]
    file = write_file(tmp_path / "receipts.jsonl", json_lines(*receipts))
    imported = import_files("till", [file], tmp_path / "shop")
    assert [event[:2] for event in imported.events] == [("c1", "mug"), ("c1", "teapot"), ("c2", "mug")]
    assert imported.items["mug"] == {"item_id": "mug", "title": "Mug"}
    assert "left out: 1 rows are receipts without a card (first: line 2)" in imported.said
