"""The folder that an import writes: what ingest takes is written, both files or none, by one import at a time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import offline.importers.folder as folder
from isrf.contract.errors import DataError
from isrf.runtime.files import move_into_place
from offline.importers.folder import Written, write_folder
from offline.importers.importer import Imported, ImportedEvent, ImportedItem
from offline.importers.report import ImportReport

MUG = ImportedItem(1, {"item_id": "mug"})


def bought(user_id: str = "", session_id: str = "") -> ImportedEvent:
    return ImportedEvent(2, "mug", 1.0, "purchase", user_id=user_id, session_id=session_id)


def write(out: Path, *records: Imported) -> tuple[Written, list[str]]:
    report = ImportReport([Path("export.csv")])
    report.num_rows = len(records)
    written = write_folder(iter(records), out, report, max_bad_rows=0.0)
    return written, report.describe()


def test_an_interrupt_between_the_files_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(part: Path, path: Path) -> None:
        move_into_place(part, path)
        if path.name == "interactions.csv":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folder, "move_into_place", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, MUG, bought("ann"))
    assert list(tmp_path.iterdir()) == []
    assert write(tmp_path, MUG, bought("ann"))[0] == (1, 1)


def test_two_imports_do_not_share_a_folder(tmp_path: Path) -> None:
    def records() -> Iterator[Imported]:
        yield MUG
        with pytest.raises(DataError) as caught:
            write(tmp_path, MUG)
        assert caught.value.code == "import.running"
        yield bought("ann")

    report = ImportReport([Path("export.csv")])
    assert write_folder(records(), tmp_path, report, max_bad_rows=0.0) == (1, 1)


def test_a_full_folder_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    write(tmp_path, MUG, bought("ann"))

    records = iter([MUG])
    with pytest.raises(DataError) as caught:
        write_folder(records, tmp_path, ImportReport([]), max_bad_rows=0.0)
    assert caught.value.code == "import.target_exists"
    assert next(records) == MUG


def test_a_user_that_ingest_would_refuse_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"bad_user_id 1 .line 2: begins with isrf-session:"):
        write(tmp_path, bought("isrf-session:7"))


def test_an_odd_session_of_a_user_is_left_out(tmp_path: Path) -> None:
    written, said = write(tmp_path, bought("ann", "s" * 600))
    assert written == (0, 1)
    assert (tmp_path / "interactions.csv").read_text().splitlines()[1] == "ann,mug,1,purchase,1,"
    assert any("written without the session id" in sentence for sentence in said)
    with pytest.raises(DataError, match=r"bad_session_id 1 .line 2: 600 characters"):
        write(tmp_path / "other", bought("", "s" * 600))


@pytest.mark.parametrize("owner", [{"user_id": "ann@x.example"}, {"session_id": "ann@x.example"}])
def test_addresses_as_ids_are_pointed_out(tmp_path: Path, owner: dict[str, str]) -> None:
    assert any("person_id" in sentence for sentence in write(tmp_path, bought(**owner))[1])
