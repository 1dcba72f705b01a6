"""`forget` leaves no trace of a user in data, answers, outputs and releases, whenever it is run and ended."""

import fcntl
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from isrf.contract.errors import ConfigError, DataError, StageError
from isrf.contract.event_log import NUM_BUCKETS, stream_key
from offline.commands.forget import forget
from offline.commands.publish import switch
from offline.stages.reason.llm.calls.ledger import _SCHEMA
from service.state.connect import open_store
from tests.service.servers import RedisServer, apply_to, event, settings_for

VECTORS = ("vectors.sqlite3", "vectors.sqlite3-shm", "vectors.sqlite3-wal")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "interactions.csv").write_text("user_id,item_id,timestamp\nann,cup,1\nbob,pot,2\n")
    return tmp_path / "data"


def write_users(folder: Path, *users: str) -> None:
    folder.mkdir(parents=True)
    pl.DataFrame({"user_id": users}).write_parquet(folder / "users.parquet")
    (folder / "other.npy").write_bytes(b"\x00")


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    """Three releases, two of them with ann, the last of these current; her outputs and answers."""
    root = tmp_path / "releases"
    write_users(root / "r-1", "ann", "bob")
    write_users(root / "r-2", "bob")
    write_users(root / "r-3", "bob", "ann")
    switch(root, "r-3")
    work = root / ".work"
    write_users(work / "ingest" / "k1", "bob", "ann")
    write_users(work / "ingest" / "k2", "bob")
    (work / "embed").mkdir()
    for name in VECTORS:
        (work / "embed" / name).write_bytes(b"\x00")
    for name in ("train/k3", "train/k4.scratch", "reason/k5.part", "reason/ledger.sqlite3.runs"):
        (work / name).mkdir(parents=True)
    with sqlite3.connect(work / "reason" / "ledger.sqlite3") as db:
        db.executescript(_SCHEMA)
        for key, step in (("1", "user_core"), ("2", "item_feature")):
            values = (key, step, "m", "taste", "", 1, 1, 0.1, time.time() - 5)
            db.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    db.close()
    return root


def folders(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_dir() and not path.is_symlink()}


def test_a_user_is_forgotten_everywhere_but_in_what_is_served(data: Path, releases: Path) -> None:
    done = forget("ann", data, releases)
    assert (data / "interactions.csv").read_text() == "user_id,item_id,timestamp\nbob,pot,2\n"
    assert (done.rows, done.answers, done.releases, done.republish) == (1, 1, ["r-1"], ["r-3"])
    kept = {"r-2", "r-3", ".work", ".work/ingest", ".work/train", ".work/reason", ".work/embed"}
    assert folders(releases) == kept | {".work/reason/ledger.sqlite3.runs"}
    assert not list((releases / ".work" / "embed").iterdir()), "vectors of texts, hers too"
    again = forget("ann", data, releases)
    assert again == (0, 0, 0, [], ["r-3"])
    switch(releases, "r-2")
    assert forget("ann", data, releases).releases == ["r-3"]
    assert forget("ann", data, releases) == (0, 0, 0, [], [])


@pytest.mark.parametrize(
    "plant", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("nowhere")], ids=["pipe", "folder", "link"]
)
def test_users_that_cannot_be_read_may_be_anybody(data: Path, releases: Path, plant: Callable[[Path], None]) -> None:
    users = releases / "r-2" / "users.parquet"
    users.unlink()
    plant(users)
    assert forget("ann", data, releases).releases == ["r-1", "r-2"]
    assert not (releases / "r-2").exists()


def test_others_keep_their_releases_and_outputs(data: Path, releases: Path) -> None:
    before = folders(releases)
    done = forget("nobody", data, releases)
    assert (done.rows, done.answers, done.releases, done.republish) == (0, 0, [], []), "answers are paid for"
    assert before - folders(releases) == {".work/train/k4.scratch", ".work/reason/k5.part"}
    assert sorted(path.name for path in (releases / ".work" / "embed").iterdir()) == list(VECTORS)


def test_what_a_kill_left_the_next_run_deletes(data: Path, releases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rmtree = shutil.rmtree

    def killed(path: Path) -> None:
        (path / "other.npy").unlink(missing_ok=True)
        raise KeyboardInterrupt

    for _ in range(3):
        with monkeypatch.context() as patched:
            patched.setattr(shutil, "rmtree", killed)
            with pytest.raises(KeyboardInterrupt):
                forget("ann", data, releases)
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    forget("ann", data, releases)
    assert not [name for name in folders(releases) if "forgetting" in name or "ingest/" in name]
    assert "r-1" not in folders(releases)


def test_a_run_at_work_is_not_disturbed(data: Path, releases: Path) -> None:
    with (releases / ".work" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StageError) as refused:
            forget("ann", data, releases)
    assert refused.value.code == "stage.locked"
    assert (releases / "r-1").exists()


def test_an_empty_id_is_nobodys(data: Path, releases: Path) -> None:
    before = folders(releases)
    with pytest.raises(DataError) as refused:
        forget("", data, releases)
    assert refused.value.code == "data.bad_user_id"
    assert folders(releases) == before


def test_without_releases_the_data_is_cleaned(data: Path, tmp_path: Path) -> None:
    assert forget("bob", data, tmp_path / "none") == (1, 0, 0, [], [])


async def test_the_store_forgets_too(redis_server: RedisServer, tmp_path: Path, data: Path, releases: Path) -> None:
    with redis_server.client() as client:
        client.flushall()
        store = await open_store(settings_for(redis_server, tmp_path))
        await apply_to(store)(event("x", 1.0), event("y", 2.0, user_id="bob"))
        forget("ann", data, releases, store=redis_server.url)
        record = await store.read("ann")
        assert (list(record.history), record.erased) == ([], True)
        kept = b"".join(
            fields[b"e"] for bucket in range(NUM_BUCKETS) for _, fields in client.xrange(stream_key(bucket))
        )
        assert (b"ann" in kept, b"bob" in kept) == (False, True)
        erased = await store.erased()
        assert erased is not None
        assert (erased.holds("ann"), erased.holds("bob")) == (True, False)
    await store.close()


def test_an_embedded_store_is_named_with_what_to_do_before_anything_changes(data: Path, releases: Path) -> None:
    before, rows = folders(releases), (data / "interactions.csv").read_bytes()
    with pytest.raises(ConfigError) as refused:
        forget("ann/1", data, releases, store=str(data))
    assert refused.value.code == "config.embedded_store"
    assert "DELETE /users/ann%2F1" in refused.value.fix
    assert (folders(releases), (data / "interactions.csv").read_bytes()) == (before, rows)


def test_a_ledger_elsewhere_is_cleaned_and_one_that_is_not_there_is_an_error(
    data: Path, releases: Path, tmp_path: Path
) -> None:
    ledger = (releases / ".work" / "reason" / "ledger.sqlite3").rename(tmp_path / "answers.sqlite3")
    with pytest.raises(ConfigError) as refused:
        forget("ann", data, releases, ledger=tmp_path / "typo.sqlite3")
    assert refused.value.code == "config.ledger"
    assert forget("ann", data, releases, ledger=ledger).answers == 1
