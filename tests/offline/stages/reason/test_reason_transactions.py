"""What the ledger's transactions promise: written in order, synced after, and a failure of either said to all."""

import asyncio
import errno
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from isrf.contract.errors import StageError
from isrf.runtime.files import sync_path
from offline.stages.reason.llm.calls import transactions
from offline.stages.reason.llm.calls.transactions import Transactions

SCHEMA = "CREATE TABLE IF NOT EXISTS rows (number INTEGER)"


async def opened(folder: Path) -> Transactions:
    made = Transactions(folder / "file.sqlite3", lock=folder / "lock")
    await made.open(SCHEMA)
    return made


def insert(db: sqlite3.Connection, number: int) -> int:
    db.execute("INSERT INTO rows VALUES (?)", (number,))
    return number


def count(path: Path) -> int:
    with sqlite3.connect(path) as db:
        (number,) = db.execute("SELECT count(*) FROM rows").fetchone()
    db.close()
    return int(number)


async def test_what_is_done_is_seen_by_other_processes_and_in_order(tmp_path: Path) -> None:
    one = await opened(tmp_path)
    results = [one.do(partial(insert, number=n)) for n in range(100)]
    assert await results[-1] == 99
    assert all(result.done() for result in results)
    assert count(tmp_path / "file.sqlite3") == 100
    await one.close()


async def test_everything_written_is_synced_after_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what is written while a sync is on its way."""
    monkeypatch.setattr(transactions, "SYNC_EVERY_S", 0.002)
    synced: list[int] = []

    def watched(path: Path) -> None:
        if path.name.endswith("-wal"):
            synced.append(count(tmp_path / "file.sqlite3"))
        sync_path(path)

    monkeypatch.setattr(transactions, "sync_path", watched)
    one = await opened(tmp_path)
    for number in range(200):
        await one.do(partial(insert, number=number))
        if number % 20 == 0:
            await asyncio.sleep(0.003)
    await one.close()
    assert synced[-1] == 200
    assert 1 < len(synced) < 200


async def test_reading_syncs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "sync_path", lambda _path: pytest.fail("nothing was written"))
    one = await opened(tmp_path)
    assert await one.do(lambda db: db.execute("SELECT count(*) FROM rows").fetchone()) == (0,)
    await one.close()
    assert one.failure is None


async def test_a_disk_that_does_not_sync_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_path: Path) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(transactions, "sync_path", broken)
    one = await opened(tmp_path)
    await one.do(lambda db: insert(db, 1))
    await one.close()
    assert isinstance(one.failure, StageError)
    assert one.failure.code == "reason.ledger"


async def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    one = Transactions(tmp_path / "file" / "ledger", lock=tmp_path / "lock")
    with pytest.raises(StageError) as error:
        await one.open(SCHEMA)
    assert error.value.code == "reason.ledger"
    await one.close()
