"""A file is replaced whole or not at all, flushed before its name leads to it."""

import os
from pathlib import Path

import pytest

from isrf.runtime.files import move_into_place, write_file


def test_a_file_is_replaced_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    (tmp_path / ".kept.json.partial").write_bytes(b"of a writer that was killed")
    for content in (b"first", b"second"):
        write_file(path, content)
        assert path.read_bytes() == content
    assert [one.name for one in tmp_path.iterdir()] == ["kept.json"]


def test_a_secret_is_its_owners_alone_before_there_is_a_byte_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def watched(handle: int) -> None:
        seen.append(os.fstat(handle).st_mode & 0o777)

    monkeypatch.setattr(os, "fsync", watched)
    (tmp_path / ".key.partial").touch(0o644)
    write_file(tmp_path / "key", b"secret", mode=0o600)
    assert seen[0] == 0o600
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_a_full_disk_leaves_the_old_file_and_no_half_of_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, beside = tmp_path / "kept", tmp_path / "elsewhere"
    write_file(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_file(path, b"new", beside=beside)
    assert path.read_bytes() == b"old"
    assert not beside.exists()


def test_content_is_flushed_before_the_rename_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def flushed(handle: int) -> None:
        steps.append("folder" if Path(f"/proc/self/fd/{handle}").resolve() == tmp_path.resolve() else "file")
        fsync(handle)

    def renamed(self: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", renamed)
    write_file(tmp_path / "a", b"x")
    assert steps == ["file", "rename", "folder"]
    steps.clear()
    move_into_place(tmp_path / "a", tmp_path / "b")
    assert steps == ["rename", "folder"]
