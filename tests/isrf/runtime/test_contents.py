"""Large files are mapped and shared, small ones copied; both are the bytes that were hashed."""

import hashlib
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from isrf.contract.errors import BundleError
from isrf.contract.manifest import FileEntry
from isrf.runtime.bundle import contents
from isrf.runtime.bundle.arrays import array_of
from isrf.runtime.bundle.contents import give_back_pages, is_mapped
from isrf.runtime.bundle.folder import BundleFolder
from isrf.runtime.bundle.threads import in_threads
from isrf.runtime.limits.time_limit import TimeLimit

LIMIT = 1 << 16


@pytest.fixture(autouse=True)
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "MAPPED_FROM", LIMIT)


def written(path: Path, size: int) -> FileEntry:
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    return FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=size)


@pytest.mark.parametrize("size", [0, 1, LIMIT - 1, LIMIT, (3 << 20) + 5])
def test_a_file_is_mapped_from_the_limit_on(tmp_path: Path, size: int) -> None:
    entry = written(tmp_path / "file", size)
    with BundleFolder(tmp_path) as folder:
        content = folder.verified("file", entry, TimeLimit(), keep=True)
        assert folder.verified("file", entry, TimeLimit(), keep=False) is None
    assert content is not None
    assert content.tobytes() == (tmp_path / "file").read_bytes()
    assert is_mapped(content) == (size >= LIMIT)
    with pytest.raises(ValueError, match="read-only"):
        content[:] = 1


def test_given_back_pages_are_read_again(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((5_000, 64)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    data = (tmp_path / "rows.npy").read_bytes()
    entry = FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    with BundleFolder(tmp_path) as folder:
        content = folder.verified("rows.npy", entry, TimeLimit(), keep=True)
    assert content is not None
    array = array_of("rows.npy", content)
    assert is_mapped(array)
    give_back_pages(array)
    np.testing.assert_array_equal(array, rows)


def test_a_replaced_file_is_still_the_old_one(tmp_path: Path) -> None:
    entry = written(tmp_path / "file", 2 * LIMIT)
    before = (tmp_path / "file").read_bytes()
    with BundleFolder(tmp_path) as folder:
        content = folder.verified("file", entry, TimeLimit(), keep=True)
    (tmp_path / "new").write_bytes(b"n" * 2 * LIMIT)
    (tmp_path / "new").replace(tmp_path / "file")
    assert content is not None
    assert content.tobytes() == before


@pytest.mark.parametrize("size", [LIMIT // 2, 2 * LIMIT])
def test_a_file_that_ends_early_is_refused(tmp_path: Path, size: int) -> None:
    entry = written(tmp_path / "file", size)
    with (tmp_path / "file").open("rb") as file:
        os.truncate(tmp_path / "file", size - 10)
        with pytest.raises(contents.FileChangedError, match=f"ended after {size - 10} of {size}"):
            contents.read_hashed(file.fileno(), size, keep=True, check_deadline=lambda: None)
    with BundleFolder(tmp_path) as folder, pytest.raises(BundleError, match="bytes"):
        folder.verified("file", entry, TimeLimit(), keep=True)


def test_a_file_that_is_written_while_it_is_hashed_is_refused(tmp_path: Path) -> None:
    size = 4 << 20
    written(tmp_path / "file", size)
    calls: list[None] = []

    def write_once() -> None:
        calls.append(None)
        if len(calls) == 3:
            with (tmp_path / "file").open("r+b") as other:
                other.write(b"changed")
            os.utime(tmp_path / "file", ns=(1, 1))

    with (
        (tmp_path / "file").open("rb") as file,
        pytest.raises(contents.FileChangedError, match="was written while it was hashed"),
    ):
        contents.read_hashed(file.fileno(), size, keep=True, check_deadline=write_once)


def test_the_first_error_in_order_is_raised_and_the_rest_left() -> None:
    begun, all_begun = list[int](), threading.Event()

    def work(value: int) -> int:
        begun.append(value)
        if value == 9:
            all_begun.set()
        if value in (3, 9):
            all_begun.wait(10)
            raise ValueError(value)
        return value

    results = in_threads(work, range(20), order=[9, 3, *range(3), *range(4, 9), *range(10, 20)], threads=2)
    found: list[int] = []
    with pytest.raises(ValueError, match="3"):
        found.extend(iter(results))
    assert len(found) <= 3
    assert list(in_threads(lambda value: 2 * value, range(50), order=range(50), threads=4)) == list(range(0, 100, 2))
