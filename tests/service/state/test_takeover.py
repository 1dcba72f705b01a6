"""A journal of the version before is taken over once: every effect of it, whatever kills the process meanwhile."""

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isrf.contract.errors import StoreError
from isrf.contract.event_log import JOURNAL_FILE, Tombstone, bucket_of, tombstone_name
from isrf.contract.item_changes import FieldValue, encode_entry
from offline.commands.loop_back.take_in import take_in
from service.state import payload
from service.state.records import HistoryEntry, ItemMark
from service.state.sqlite import EmbeddedStore
from tests.service.servers import apply_to, event, read_events

SECRET = bytes(range(32))
OLD_TABLES = """
CREATE TABLE journal (seq INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL, payload BLOB NOT NULL);
CREATE TABLE tombstones (name TEXT PRIMARY KEY, bucket INTEGER NOT NULL, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX journal_user ON journal (user_id);
CREATE TABLE items (seq INTEGER PRIMARY KEY AUTOINCREMENT, item_id TEXT NOT NULL UNIQUE, entry BLOB NOT NULL,
                    added INTEGER NOT NULL);
"""
DIES_IN_THE_MIDDLE = """
import asyncio, os, sys
from pathlib import Path
from service.state.sqlite import EmbeddedStore
from service.state.sqlite.users import effects

accept, left = effects.Effects.accept, int(sys.argv[2])
def dying(self, event, digest, seq=None):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), 9)
    accept(self, event, digest, seq)
effects.Effects.accept = dying
asyncio.run(EmbeddedStore.open(Path(sys.argv[1])))
"""


def old_store(folder: Path, *posted: dict[str, object], now: float | None = None) -> Path:
    """A folder as the version before left it; of `gone` it knows that they were erased, of cup that it is dear."""
    folder.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(folder / JOURNAL_FILE)
    db.execute("PRAGMA journal_mode = WAL")
    db.executescript(OLD_TABLES)
    rows = [(one.user_id, payload.encode(one)) for one in read_events(*posted, now=now or time.time())]
    db.executemany("INSERT INTO journal (user_id, payload) VALUES (?, ?)", rows)
    stone = (tombstone_name(SECRET, "gone"), bucket_of("gone"), Tombstone("nonce", (0, 1), 5.0).text())
    db.execute("INSERT INTO tombstones VALUES (?, ?, ?)", stone)
    db.execute(f"INSERT INTO meta VALUES ('secret', 'generated {SECRET.hex()}'), ('id', 'the-id'), ('exported', '2')")
    db.execute(
        "INSERT INTO items (item_id, entry, added) VALUES ('cup', ?, 1)", (encode_entry({"price": FieldValue(9, 1)}),)
    )
    db.commit()
    db.close()
    (folder / "lock").write_text("1")
    return folder


def journal(folder: Path) -> list[int]:
    with sqlite3.connect(folder / JOURNAL_FILE) as db:
        seqs = [seq for (seq,) in db.execute("SELECT seq FROM journal ORDER BY seq")]
    db.close()
    return seqs


POSTED = [
    event("x", 1.0, event_id="e1"),
    event("y", 2.0, "view"),
    event("other", 3.0, event_id="e1"),  # a duplicate then: it had no effect
    event("x", 4.0, "remove"),
    event("z", 5.0, event_id="e1", user_id="bob"),  # an id was its user's then
    event("z", 5.0, event_id="e1", user_id="bob"),
]


async def test_every_effect_is_taken_over(tmp_path: Path) -> None:
    folder = old_store(tmp_path, *POSTED)
    for _ in range(2):
        store = await EmbeddedStore.open(folder)
        record = await store.read("ann")
        assert list(record.history) == [HistoryEntry("y", 2.0)]
        assert record.marks == {"x": ItemMark(bought=1.0, removed=4.0)}
        assert [entry.item_id for entry in (await store.read("bob")).history] == ["z"]
        assert ((await store.read("gone")).erased, (await store.read("ann")).erased) == (True, False)
        assert {name: said.value for name, said in (await store.items(None)).entries["cup"].items()} == {"price": 9}
        assert journal(folder) == [1, 2, 4, 5], "duplicates are events no more"
        await store.close()


async def test_what_was_known_stays_a_duplicate(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(old_store(tmp_path, *POSTED))
    assert await apply_to(store)(event("y", 2.0, "view"), POSTED[4]) == ["duplicate"] * 2
    assert await apply_to(store)(event("y", 3.0, "view"), event("a", 4.0, user_id="gone")) == ["accepted", "erased"]
    await store.close()


@pytest.mark.parametrize("step", [1, 2, 700, 1199])
async def test_killed_in_the_middle_it_starts_over(tmp_path: Path, step: int) -> None:
    posted = [event(f"i{k}", float(k + 1), user_id=f"u{k % 50}") for k in range(1200)]
    folder = old_store(tmp_path, *posted)
    command = [sys.executable, "-c", DIES_IN_THE_MIDDLE, str(folder), str(step)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    store = await EmbeddedStore.open(folder)
    held = [entry.item_id for k in range(50) for entry in (await store.read(f"u{k}")).history]
    assert sorted(held) == sorted(f"i{k}" for k in range(1200))
    assert len(journal(folder)) == 1200
    await store.close()


async def test_a_row_that_nobody_wrote_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    folder = old_store(tmp_path, *POSTED)
    with sqlite3.connect(folder / JOURNAL_FILE) as db:
        db.execute("INSERT INTO journal (user_id, payload) VALUES ('ann', '[1]')")
    db.close()
    for _ in range(2):
        with pytest.raises(StoreError) as refused:
            await EmbeddedStore.open(folder)
        assert refused.value.code == "store.journal_corrupt"
        assert journal(folder) == [1, 2, 3, 4, 5, 6, 7]


async def test_a_taken_over_journal_is_exported_once(tmp_path: Path) -> None:
    folder, data = old_store(tmp_path / "state", *POSTED), tmp_path / "data"
    data.mkdir()
    (data / "interactions.csv").write_text("user_id,item_id,timestamp\nann,cup,1\n")
    (data / "items.jsonl").write_text('{"item_id": "cup"}\n')
    assert take_in(str(folder), data).events == 4, "before it was taken over"
    store = await EmbeddedStore.open(folder)
    await apply_to(store)(event("new", 9.0))
    assert take_in(str(folder), data).events == 1
    await store.close()


async def test_an_emptied_old_journal_is_said(tmp_path: Path) -> None:
    folder = old_store(tmp_path, *POSTED)
    (folder / JOURNAL_FILE).write_bytes(b"")
    with pytest.raises(StoreError) as refused:
        await EmbeddedStore.open(folder)
    assert refused.value.code == "store.journal_lost"
