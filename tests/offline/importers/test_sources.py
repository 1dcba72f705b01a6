"""Importers by name, one of another package among them, and the folder that they write to."""

import sys
from pathlib import Path

import pytest

from isrf.contract.errors import ConfigError, DataError
from offline.importers.sources import OWN, find_importer, source_names
from tests.offline.importers.import_command import import_files, json_lines, write_file

PACKAGE = """
from offline.importers.importer import ImportedEvent, ImportedItem
from offline.importers.rows import json_rows


class TillImporter:
    name = "till"
    description = "receipts of our tills"
    reads = "JSON Lines"

    def read(self, files, report):
        for part, path in enumerate(files):
            for line, receipt in json_rows(path, part, report):
                yield ImportedItem(line, {"item_id": receipt["article"], "title": receipt["text"]})
                yield ImportedEvent(line, receipt["article"], receipt["at"], "purchase", session_id=receipt["till"])
"""


def add_package(folder: Path, monkeypatch: pytest.MonkeyPatch, value: str = "receipts_importer:TillImporter") -> None:
    """Installs a package with an importer in a folder of the search path."""
    write_file(folder / "receipts_importer.py", PACKAGE)
    about = folder / "receipts_importer-1.0.dist-info"
    write_file(about / "METADATA", "Metadata-Version: 2.1\nName: receipts-importer\nVersion: 1.0\n")
    write_file(about / "entry_points.txt", f"[isrf.importers]\ntill = {value}\nga4 = {value}\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "receipts_importer", raising=False)


def receipt(row: int, article: str = "a") -> dict[str, object]:
    return {"article": article, "text": f"Thing {article}", "at": 1759823426 + row, "till": "t1"}


def test_an_importer_of_another_package_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_package(tmp_path / "site", monkeypatch)
    assert "till" in source_names()
    receipts = write_file(tmp_path / "r.jsonl", json_lines(receipt(0), receipt(1), receipt(2, "b")))
    imported = import_files("till", [receipts], tmp_path / "shop")
    assert [*imported.items] == ["a", "b"]
    assert imported.events[0] == ("", "a", "1759823426", "purchase", "1", "t1")
    assert "left out: 1 rows that repeat an item (first: line 2)" in imported.said
    assert "e-mail" not in imported.said
    assert type(find_importer("ga4")) is OWN["ga4"], "none of our own can be replaced"


def test_an_importer_that_cannot_be_loaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_package(tmp_path / "site", monkeypatch, "receipts_importer:Missing")
    with pytest.raises(ConfigError) as caught:
        find_importer("till")
    assert caught.value.code == "import.broken_source"
    assert "receipts_importer:Missing" in caught.value.message


def test_what_is_no_source_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        import_files("presta", [tmp_path / "x.csv"], tmp_path / "shop")
    assert caught.value.code == "import.unknown_source"
    assert all(name in caught.value.fix for name in OWN)
    with pytest.raises(ConfigError) as caught:
        import_files("ga4", [tmp_path / "x.csv"], tmp_path / "shop", "--only", "users")
    assert caught.value.code == "import.only"


def test_a_file_that_is_there_is_never_replaced_but_the_other_kind_can_be_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_package(tmp_path / "site", monkeypatch)
    catalogue = write_file(tmp_path / "shop" / "items.jsonl.gz", b"the shop's own")
    receipts = [write_file(tmp_path / "r.jsonl", json_lines(receipt(0), receipt(1)))]
    with pytest.raises(DataError) as caught:
        import_files("till", receipts, tmp_path / "shop")
    assert caught.value.code == "import.target_exists"
    assert "items.jsonl.gz" in caught.value.message
    assert [path.name for path in (tmp_path / "shop").iterdir()] == ["items.jsonl.gz"]
    imported = import_files("till", receipts, tmp_path / "shop", "--only", "interactions")
    assert len(imported.events) == 2
    assert "left out: 2 rows are items, which --only interactions does not ask for" in imported.said
    assert catalogue.read_bytes() == b"the shop's own"


def test_files_of_which_nothing_can_be_used_are_refused_with_what_they_held(tmp_path: Path) -> None:
    events = write_file(tmp_path / "e.jsonl", json_lines({"event_name": "scroll"}, {"event_name": "session_start"}))
    with pytest.raises(DataError) as caught:
        import_files("ga4", [events], tmp_path / "shop")
    assert caught.value.code == "import.nothing"
    assert 'left out: 1 rows are events "scroll" (first: line 1)' in caught.value.message
