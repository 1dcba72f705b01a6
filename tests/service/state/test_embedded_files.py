"""The embedded store's files: one process has them, and what was lost of them is said, not served."""

import asyncio
import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from isrf.contract.errors import StoreError
from isrf.contract.event_log import JOURNAL_FILE, JOURNAL_VERSION
from service.state.sqlite import EmbeddedStore, files
from service.state.sqlite.database import PAGE_BYTES
from service.state.sqlite.files import IDENTITY_FILE, LOCK_FILE
from service.state.sqlite.schema import TABLES
from tests.service.servers import apply_to, event

WAL = JOURNAL_FILE + "-wal"
SHM = JOURNAL_FILE + "-shm"

USED_AND_KILLED = """
import asyncio, os, sys
from pathlib import Path
from service.state.sqlite import EmbeddedStore
from tests.service.servers import apply_to, event

async def main():
    store = await EmbeddedStore.open(Path(sys.argv[1]))
    for k in range(30):
        assert await apply_to(store)(event(f"i{k}", float(k + 1))) == ["accepted"]
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""
OPENS = """
import asyncio, sys
from pathlib import Path
from service.state.sqlite import EmbeddedStore
asyncio.run(EmbeddedStore.open(Path(sys.argv[1])))
"""


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def killed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    run(USED_AND_KILLED, folder)
    assert (folder / WAL).stat().st_size > 50_000, "what was accepted stands in the write-ahead log"
    return folder


@pytest.fixture
def killed(killed_folder: Path, tmp_path: Path) -> Path:
    """A store with 30 accepted events, as `kill -9` left it."""
    return Path(shutil.copytree(killed_folder, tmp_path / "state"))


async def refusal(folder: Path) -> StoreError:
    """Of a start, which must leave every byte as it was but those of the log's index."""

    def contents() -> dict[str, bytes]:
        found = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != SHM}
        return {name: content for name, content in found.items() if name != WAL or content}

    before = contents()
    with pytest.raises(StoreError) as refused:
        await EmbeddedStore.open(folder)
    assert contents() == before
    return refused.value


async def test_kill_9_is_no_loss(killed: Path) -> None:
    store = await EmbeddedStore.open(killed)
    assert len((await store.read("ann")).history) == 30
    await store.close()


def cut(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def flip(path: Path, share: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * share)] ^= 0xFF
    path.write_bytes(content)


def leave_only(kept: Path) -> None:
    for path in kept.parent.iterdir():
        if path != kept:
            path.unlink()


LOSSES: dict[str, Callable[[Path], object]] = {
    "no log": lambda folder: (folder / WAL).unlink(),
    "an empty log": lambda folder: cut(folder / WAL, 0),
    "a cut log": lambda folder: cut(folder / WAL, 0.7),
    "a damaged log": lambda folder: flip(folder / WAL, 0.5),
    "no database": lambda folder: (folder / JOURNAL_FILE).unlink(),
    "an empty database": lambda folder: cut(folder / JOURNAL_FILE, 0),
    "nothing but the identity": lambda folder: leave_only(folder / IDENTITY_FILE),
    "nothing but the log": lambda folder: leave_only(folder / WAL),
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_what_was_lost_is_said_at_the_start(killed: Path, loss: str) -> None:
    LOSSES[loss](killed)
    (killed / LOCK_FILE).touch()
    error = await refusal(killed)
    assert error.code == "store.journal_lost"
    assert IDENTITY_FILE in error.fix


async def test_after_a_clean_end_a_vanished_database_is_said(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    await store.close()
    (tmp_path / JOURNAL_FILE).unlink()
    assert (await refusal(tmp_path)).code == "store.journal_lost"


async def test_another_stores_database_is_said(killed: Path, tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path / "other")
    await store.close()
    (killed / WAL).unlink()
    shutil.copy(tmp_path / "other" / JOURNAL_FILE, killed / JOURNAL_FILE)
    error = await refusal(killed)
    assert (error.code, "another store's" in str(error)) == ("store.journal_lost", True)


async def test_an_operator_may_go_on_with_what_is_left(killed: Path) -> None:
    cut(killed / WAL, 0.7)
    (killed / IDENTITY_FILE).unlink()
    (killed / LOCK_FILE).unlink()
    store = await EmbeddedStore.open(killed)
    left = len((await store.read("ann")).history)
    assert 0 < left < 30
    await store.close()
    store = await EmbeddedStore.open(killed)
    assert len((await store.read("ann")).history) == left
    await store.close()


async def test_a_deleted_identity_is_written_anew(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    (tmp_path / IDENTITY_FILE).unlink()
    await apply_to(store)(event("x", 1.0))
    assert (tmp_path / IDENTITY_FILE).exists()
    await store.close()
    (tmp_path / JOURNAL_FILE).unlink()
    assert (await refusal(tmp_path)).code == "store.journal_lost"


async def test_an_old_backup_of_the_whole_folder_is_taken(killed: Path, tmp_path: Path) -> None:
    shutil.copytree(killed, tmp_path / "backup")
    store = await EmbeddedStore.open(killed)
    await apply_to(store)(event("later", 99.0))
    await store.close()
    store = await EmbeddedStore.open(tmp_path / "backup")
    assert len((await store.read("ann")).history) == 30
    await store.close()


def damage(folder: Path) -> None:
    """Of a page of the record, which no start reads."""
    content = bytearray((folder / JOURNAL_FILE).read_bytes())
    page = content.index(b'"derived-') // PAGE_BYTES * PAGE_BYTES
    content[page : page + 8] = b"\x5a" * 8
    (folder / JOURNAL_FILE).write_bytes(content)


async def test_damage_inside_the_database_is_said(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    await apply_to(store)(*(event(f"i{k}", float(k), user_id=f"u{k}") for k in range(300)))
    await store.close()
    damage(tmp_path)
    assert (await refusal(tmp_path)).code == "store.journal_unusable"


async def test_damage_that_takes_long_to_find_is_said_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "find_damage", lambda _db, _within_s: None)
    store = await EmbeddedStore.open(tmp_path)
    await apply_to(store)(*(event(f"i{k}", float(k), user_id=f"u{k}") for k in range(1000)))
    await store.close()
    store = await EmbeddedStore.open(tmp_path)
    for _ in range(20):
        await asyncio.sleep(0.01)
        await store.ping()
    await store.close()
    damage(tmp_path)
    store = await EmbeddedStore.open(tmp_path)
    with pytest.raises(StoreError) as found:  # noqa: PT012 - in a moment
        for _ in range(1000):
            await asyncio.sleep(0.01)
            await store.ping()
    assert found.value.code == "store.journal_unusable"
    with pytest.raises(StoreError):
        await apply_to(store)(event("x", 1.0))
    await store.close()


async def test_a_store_without_its_secret_brings_nobody_back(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    await store.erase("ann")
    await store.close()
    with sqlite3.connect(tmp_path / JOURNAL_FILE) as db:
        db.execute("DELETE FROM meta WHERE name = 'secret'")
    db.close()
    assert (await refusal(tmp_path)).code == "store.journal_unusable"


async def test_a_link_to_a_database_elsewhere_is_held_there(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / JOURNAL_FILE).symlink_to(tmp_path / "elsewhere.sqlite3")
    store = await EmbeddedStore.open(tmp_path / "one")
    assert await apply_to(store)(event("x", 1.0)) == ["accepted"]
    second = run(OPENS, tmp_path / "two")
    assert "is held by another service process" in second.stderr
    await store.close()


async def test_a_full_disk_at_the_start_sends_nobody_to_a_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await EmbeddedStore.open(tmp_path)
    assert await apply_to(store)(event("x")) == ["accepted"]
    await store.close()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_file", full)
        with pytest.raises(StoreError, match="No space left") as refused:
            await EmbeddedStore.open(tmp_path)
    assert "Free space" in refused.value.fix
    assert "backup" not in refused.value.fix
    store = await EmbeddedStore.open(tmp_path)
    assert [entry.item_id for entry in (await store.read("ann")).history] == ["x"]
    await store.close()


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff", b'{"id": "a", "changes": 1e400}'], ids=repr)
async def test_an_identity_that_nobody_wrote_is_said(tmp_path: Path, content: bytes) -> None:
    store = await EmbeddedStore.open(tmp_path)
    await store.close()
    (tmp_path / IDENTITY_FILE).write_bytes(content)
    assert (await refusal(tmp_path)).code == "store.journal_unusable"


@pytest.mark.parametrize("table", sorted(TABLES))
async def test_a_missing_table_is_said(tmp_path: Path, table: str) -> None:
    store = await EmbeddedStore.open(tmp_path)
    await store.close()
    with sqlite3.connect(tmp_path / JOURNAL_FILE) as db:
        assert {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")} >= TABLES
        db.execute(f"DROP TABLE {table}")
    db.close()
    assert (await refusal(tmp_path)).code == "store.journal_unusable"


@pytest.mark.parametrize("kind", ["folder", "pipe", "/dev/full", "/dev/zero"])
async def test_what_is_no_file_is_said(tmp_path: Path, kind: str) -> None:
    path = tmp_path / JOURNAL_FILE
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}.get(kind, lambda: path.symlink_to(kind))()
    with pytest.raises(StoreError) as refused:
        await asyncio.wait_for(EmbeddedStore.open(tmp_path), 20)
    assert refused.value.code == "store.journal_unusable"


def stamped(pragma: str) -> Callable[[sqlite3.Connection], object]:
    return lambda db: db.execute(f"PRAGMA {pragma}")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (stamped(f"user_version = {JOURNAL_VERSION + 1}"), "store.journal_newer"),
        (stamped("application_id = 77"), "store.journal_foreign"),
        (stamped("application_id = 0"), "store.journal_foreign"),
    ],
    ids=["newer", "foreign", "unknown"],
)
async def test_a_database_of_others_is_refused(
    tmp_path: Path, change: Callable[[sqlite3.Connection], object], code: str
) -> None:
    store = await EmbeddedStore.open(tmp_path)
    await store.close()
    with sqlite3.connect(tmp_path / JOURNAL_FILE) as db:
        change(db)
    db.close()
    assert (await refusal(tmp_path)).code == code


@pytest.mark.parametrize("deleted", [(LOCK_FILE,), (LOCK_FILE, IDENTITY_FILE)], ids=["lock", "lock and identity"])
async def test_a_deleted_lock_lets_nobody_in(tmp_path: Path, deleted: tuple[str, ...]) -> None:
    store = await EmbeddedStore.open(tmp_path)
    for name in deleted:
        (tmp_path / name).unlink()
    second = run(OPENS, tmp_path)
    assert second.returncode != 0
    assert "is held by another service process" in second.stderr
    assert await apply_to(store)(event("x", 1.0)) == ["accepted"]
    await store.close()


@pytest.mark.parametrize("name", [JOURNAL_FILE, WAL, SHM])
@pytest.mark.parametrize("way", ["deleted", "replaced"])
async def test_files_that_go_while_it_runs_are_noticed(tmp_path: Path, name: str, way: str) -> None:
    folder, aside = tmp_path / "state", tmp_path / "aside"
    store = await EmbeddedStore.open(folder)
    await apply_to(store)(event("x", 1.0))
    (folder / name).rename(aside)
    if way == "replaced":
        (folder / name).write_bytes(b"")
    for _ in range(2):
        with pytest.raises(StoreError) as refused:
            await apply_to(store)(event("y", 2.0))
        assert refused.value.code == "store.journal_moved"
    with pytest.raises(StoreError):
        await store.ping()
    with pytest.raises(StoreError):
        await store.erase("ann")
    assert [entry.item_id for entry in (await store.read("ann")).history] == ["x"]
    aside.rename(folder / name)
    await store.ping()
    assert await apply_to(store)(event("y", 2.0)) == ["accepted"]
    await store.close()
    store = await EmbeddedStore.open(folder)
    assert [entry.item_id for entry in (await store.read("ann")).history] == ["x", "y"]
    await store.close()


@pytest.mark.parametrize("name", [JOURNAL_FILE, WAL])
async def test_files_that_are_cut_while_it_runs_are_noticed(tmp_path: Path, name: str) -> None:
    store = await EmbeddedStore.open(tmp_path)
    for k in range(5):
        await apply_to(store)(event("x", float(k)))
        await store.erase("bob")  # empties the log, which is no cut
    await apply_to(store)(event("y"))
    await store.ping()
    os.truncate(tmp_path / name, 0)
    for work in (lambda: apply_to(store)(event("z")), store.ping, lambda: store.erase("ann")):
        with pytest.raises(StoreError, match="was cut") as refused:
            await work()
        assert refused.value.code == "store.journal_moved"
    await store.close()


@pytest.mark.parametrize("name", [WAL, SHM])
async def test_a_clean_end_saves_what_a_deleted_log_held(tmp_path: Path, name: str) -> None:
    store = await EmbeddedStore.open(tmp_path)
    await apply_to(store)(*(event(f"i{k}", float(k)) for k in range(20)))
    (tmp_path / name).unlink()
    with pytest.raises(StoreError):
        await store.ping()
    await store.close()
    store = await EmbeddedStore.open(tmp_path)
    assert len((await store.read("ann")).history) == 20
    await store.close()


async def test_the_whole_folder_gone_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    store = await EmbeddedStore.open(folder)
    shutil.rmtree(folder)
    with pytest.raises(StoreError) as refused:
        await apply_to(store)(event("x", 1.0))
    assert refused.value.code == "store.journal_moved"
    await store.close()


@pytest.mark.parametrize("as_far_as", ["file", "header"])
async def test_a_first_start_that_was_killed_is_no_loss(tmp_path: Path, as_far_as: str) -> None:
    (tmp_path / LOCK_FILE).touch()
    (tmp_path / JOURNAL_FILE).touch()
    if as_far_as == "header":
        db = sqlite3.connect(tmp_path / JOURNAL_FILE)
        db.execute("PRAGMA journal_mode = WAL")
        db.close()
        assert (tmp_path / JOURNAL_FILE).stat().st_size > 0
    store = await EmbeddedStore.open(tmp_path)
    await store.close()
