"""The embedded store: what was accepted survives, what was refused has no effect, a second process stays out."""

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from isrf.contract.errors import StoreError
from isrf.contract.event_log import JOURNAL_FILE, REMEMBER_S
from service.state.item_store import ItemChange
from service.state.records import NO_VERSION, NOBODY, HistoryEntry, Learned, UserRecord
from service.state.sqlite import EmbeddedStore, writer
from service.state.sqlite.users import held_records
from tests.service.servers import all_of, apply_to, event, let_pass, read_events

STORM = """
import asyncio, json, sys, time
from pathlib import Path
from service.state.sqlite import EmbeddedStore
from service.state.events import EventReader, EventRules

async def main():
    store = await EmbeddedStore.open(Path(sys.argv[1]))
    reader = EventReader(EventRules(()), lambda _: True)
    async def client(c):
        for k in range(100_000):
            posted = [
                {"user_id": f"u{c}", "item_id": f"i{k}-{j}", "event_id": f"{sys.argv[2]}-{c}-{k}-{j}", "event": "view"}
                for j in range(3)
            ]
            outcomes = [one.outcome for one in await store.apply(reader.read(posted, time.time()))]
            for one, outcome in zip(posted, outcomes):
                print(json.dumps([one["user_id"], one["item_id"], one["event_id"], outcome]), flush=True)
    await asyncio.gather(*(client(c) for c in range(4)))

asyncio.run(main())
"""


async def test_accepted_events_are_there_after_a_restart(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    await apply_to(store)(event("x", 1.0), event("y", 2.0, "dislike"), event("z", user_id="a/b"))
    before = [await store.read(user) for user in ("ann", "a/b")]
    await store.close()
    store = await EmbeddedStore.open(tmp_path)
    after = [await store.read(user) for user in ("ann", "a/b")]
    assert [(r.history, r.marks) for r in before] == [(r.history, r.marks) for r in after]
    assert await apply_to(store)(event("x", 1.0)) == ["duplicate"]
    await store.close()


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(3))
async def test_kill_9_in_a_storm_loses_no_accepted_event_and_doubles_none(tmp_path: Path, round_: int) -> None:
    accepted: list[list[str]] = []
    for life in range(3):
        storm = subprocess.Popen([sys.executable, "-c", STORM, str(tmp_path), str(life)], stdout=subprocess.PIPE)
        assert storm.stdout is not None
        head = [storm.stdout.readline() for _ in range(30 + 17 * round_)]
        os.kill(storm.pid, signal.SIGKILL)
        rest, _ = storm.communicate()
        lines = [*head, *rest.splitlines(keepends=True)]
        # The last line may have been cut by the kill; nobody was told by it.
        accepted += [json.loads(line) for line in lines if line.endswith(b"]\n")]
    assert len(accepted) >= 90
    assert {outcome for *_, outcome in accepted} == {"accepted"}
    store = await EmbeddedStore.open(tmp_path)
    for user_id in sorted({user_id for user_id, *_ in accepted}):
        theirs = [item_id for user, item_id, *_ in accepted if user == user_id][-100:]
        held = [entry.item_id for entry in (await store.read(user_id)).history]
        assert set(theirs) <= set(held)
    with sqlite3.connect(tmp_path / JOURNAL_FILE) as db:
        (rows,) = db.execute("SELECT count(*) FROM journal").fetchone()
    db.close()
    # In flight when the kill came: at most one batch of 3 per client and life.
    assert len(accepted) <= rows <= len(accepted) + 3 * 4 * 3
    await store.close()


async def test_a_second_process_is_refused_with_the_first_ones_pid(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    code = (
        "import asyncio, sys; from pathlib import Path; from service.state.sqlite import EmbeddedStore\n"
        "asyncio.run(EmbeddedStore.open(Path(sys.argv[1])))"
    )
    second = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert second.returncode != 0
    assert f"held by another service process (pid {os.getpid()})" in second.stderr
    await store.close()
    again = await EmbeddedStore.open(tmp_path)
    await again.close()


async def test_a_full_disk_refuses_the_event_and_leaves_no_trace(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    await apply_to(store)(event("x", 1.0))

    def limit_pages(db: sqlite3.Connection) -> None:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages + 1}")

    await store.database.write(limit_pages)
    with pytest.raises(StoreError, match="journal cannot be written") as refused:
        await apply_to(store)(*(event(f"y{k}" + "y" * 400, float(k), event_id="e" * 400 + str(k)) for k in range(30)))
    assert refused.value.code == "store.journal_unwritable"
    assert [entry.item_id for entry in (await store.read("ann")).history] == ["x"]
    with pytest.raises(StoreError):
        await store.ping()
    await store.database.write(lambda db: db.execute("PRAGMA max_page_count = 1000000").fetchone())
    await store.ping()
    assert await apply_to(store)(event("y", 2.0)) == ["accepted"]
    await store.close()
    store = await EmbeddedStore.open(tmp_path)
    assert [entry.item_id for entry in (await store.read("ann")).history] == ["x", "y"]
    await store.close()


async def test_a_damaged_journal_is_said_and_not_written_over(tmp_path: Path) -> None:
    damaged = tmp_path / JOURNAL_FILE
    damaged.write_bytes(b"no database at all" * 1000)
    with pytest.raises(StoreError) as refused:
        await EmbeddedStore.open(tmp_path)
    assert refused.value.code == "store.journal_unusable"
    assert damaged.read_bytes() == b"no database at all" * 1000


async def test_a_row_that_nobody_wrote_is_said(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    with sqlite3.connect(tmp_path / JOURNAL_FILE) as db:
        db.execute("INSERT INTO journal (user_id, payload) VALUES ('ann', '[1]')")
    db.close()
    with pytest.raises(StoreError) as refused:
        [page async for page in store.accepted()]
    assert refused.value.code == "store.journal_corrupt"
    await store.close()


async def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="writable folder"):
        await EmbeddedStore.open(tmp_path / "file" / "state")


async def test_an_erased_user_stays_erased_and_leaves_no_byte_in_the_journal(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    await apply_to(store)(event("secret-taste", 1.0), event("y", 2.0, user_id="bob"))
    await store.erase("ann")
    await apply_to(store)(event("new"))
    await store.close()
    assert b"secret-taste" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    store = await EmbeddedStore.open(tmp_path)
    record = await store.read("ann")
    assert ([entry.item_id for entry in record.history], record.erased) == (["new"], True)
    assert [entry.item_id for entry in (await store.read("bob")).history] == ["y"]
    await store.close()


async def test_writers_that_wait_together_share_a_commit(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    statements: list[str] = []
    await store.database.write(lambda db: db.set_trace_callback(statements.append))
    statements.clear()
    outcomes = await all_of([apply_to(store)(event(f"i{k}", float(k))) for k in range(200)])
    assert outcomes == [["accepted"]] * 200
    assert 0 < sum(statement.startswith("COMMIT") for statement in statements) < 10
    await store.close()


async def test_what_is_held_ready_is_never_older_than_an_accepted_event(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    users = [f"u{k}" for k in range(5)]

    async def write(number: int) -> None:
        for k in range(10):
            user_id, item = users[(number + k) % 5], f"item-{number}-{k}"
            await apply_to(store)(event(item, 1.0, user_id=user_id))
            assert item in [entry.item_id for entry in (await store.read(user_id)).history]

    async def read() -> None:
        for k in range(100):
            await store.read(users[k % 5])

    await asyncio.gather(*(write(number) for number in range(5)), *(read() for _ in range(5)))
    assert sum([len((await store.read(user_id)).history) for user_id in users]) == 50
    await store.erase("u0")
    assert (await store.read("u0")).history == []
    await store.close()


async def test_who_did_nothing_since_the_release_is_not_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await EmbeddedStore.open(tmp_path)
    await apply_to(store)(event("x", 1.0, user_id="ann"))
    await store.erase("bob")
    await store.close()
    store = await EmbeddedStore.open(tmp_path)  # what stands on disk counts too
    asked: list[str] = []
    read = held_records.HeldRecords.read

    async def noted(
        held: held_records.HeldRecords, user_id: str, ask: Callable[[], Awaitable[UserRecord]]
    ) -> UserRecord:
        asked.append(user_id)
        return await read(held, user_id, ask)

    monkeypatch.setattr(held_records.HeldRecords, "read", noted)
    found = {user_id: await store.read(user_id) for user_id in ("ann", "bob", "cleo")}
    assert asked == ["ann", "bob"]
    assert [entry.item_id for entry in found["ann"].history] == ["x"]
    assert found["bob"].erased
    assert found["cleo"] == NOBODY
    await apply_to(store)(event("y", 2.0, user_id="cleo"))
    assert [entry.item_id for entry in (await store.read("cleo")).history] == ["y"]
    await store.close()


async def test_erasures_beside_writes_leave_what_a_restart_finds(tmp_path: Path) -> None:
    """Whatever comes first, what is served is what stands on disk."""
    store = await EmbeddedStore.open(tmp_path)
    users = [f"u{k}" for k in range(12)]

    async def write(user_id: str, round_: int) -> None:
        for k in range(3):
            (outcome,) = await apply_to(store)(event(f"i{round_}-{k}", user_id=user_id))
            assert outcome == "accepted"
            await store.read(user_id)

    async def erase(user_id: str, round_: int) -> None:
        for _ in range(round_ % 4):
            await asyncio.sleep(0)
        await store.erase(user_id)
        await store.read(user_id)

    rounds = 25
    for round_ in range(rounds):
        await all_of([one(user_id, round_) for user_id in users for one in (write, erase, write)])
        served = {user_id: await store.read(user_id) for user_id in users}
        many = dict(zip(users, await store.read_many(users), strict=True))
        if round_ % 5 == 4 or round_ == rounds - 1:
            await store.close()
            store = await EmbeddedStore.open(tmp_path)
            assert {user_id: await store.read(user_id) for user_id in users} == served
        assert many == served
    await store.close()


async def test_a_duplicate_is_never_recorded(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    one = event("x", 1.0, event_id="e1")
    await apply_to(store)(one, one)
    await apply_to(store)(one, {**one, "item_id": "y"}, event("z", 2.0))
    kept = [(event_.item_id, event_.event_id) async for page in store.accepted() for event_ in page]
    assert kept[0] == ("x", "e1")
    assert [item for item, _ in kept] == ["x", "z"]
    await store.close()


async def test_state_does_not_rest_on_the_record(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    await apply_to(store)(event("x", 1.0), event("y", 2.0, "dislike"))
    before = await store.read("ann")
    await store.close()
    with sqlite3.connect(tmp_path / JOURNAL_FILE) as db:
        db.execute("DELETE FROM journal")
    db.close()
    store = await EmbeddedStore.open(tmp_path)
    assert await store.read("ann") == before
    await store.close()


def bytes_on_disk(folder: Path) -> bytes:
    # By another process: to close a file of the database here would end SQLite's locks on it.
    return subprocess.run(f"cat {folder}/*", shell=True, capture_output=True, check=True).stdout


async def test_no_byte_of_an_erased_user_stays_while_it_runs(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    posted = [event(f"secret-taste-{k}", float(k), event_id=f"secret-id-{k}", user_id="secret-ann") for k in range(50)]
    await apply_to(store)(*posted, event("y", 2.0, user_id="bob"))
    assert b"secret-" in bytes_on_disk(tmp_path)
    await store.erase("secret-ann")
    assert b"secret-" not in bytes_on_disk(tmp_path)
    assert [entry.item_id for entry in (await store.read("bob")).history] == ["y"]
    await store.close()


async def test_copies_that_moved_rows_left_go_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite moves rows between pages, and zeroes deleted ones only where they stand now."""
    monkeypatch.setattr(writer, "RESTS_AFTER_LOOK", 0)
    monkeypatch.setattr(writer, "RESTS_AFTER_VACUUM", 0)
    rng = random.Random(5)
    users = [f"{rng.getrandbits(128):032x}" for _ in range(3000)]
    store = await EmbeddedStore.open(tmp_path)
    for start in range(0, len(users), 50):
        posted = [
            event(f"i{k}", event_id=f"{user_id}-{k}", user_id=user_id)
            for user_id in users[start : start + 50]
            for k in range(rng.choice([1, 2, 3]))
        ]
        assert set(await apply_to(store)(*posted)) == {"accepted"}
    gone = rng.sample(users, 300)
    for start in range(0, len(gone), 20):
        await asyncio.gather(*map(store.erase, gone[start : start + 20]))
    on_disk = bytes_on_disk(tmp_path)
    assert [user_id for user_id in gone if user_id.encode() in on_disk] == []
    stays = next(user_id for user_id in users if user_id not in gone)
    assert (await store.read(stays)).history
    assert await apply_to(store)(event("last", user_id=stays)) == ["accepted"]
    await store.close()
    store = await EmbeddedStore.open(tmp_path)
    assert (await store.read(stays)).history[-1].item_id == "last"
    await store.close()


async def test_copies_wait_for_their_turn_and_go_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "RESTS_AFTER_VACUUM", 1e9)
    store = await EmbeddedStore.open(tmp_path)
    await apply_to(store)(event("x", user_id="ann-of-cleves"), event("x", user_id="ann-of-cleves-2"))
    vacuumed: list[str] = []

    def watch(said: str) -> None:
        if said == "VACUUM":
            vacuumed.append(said)

    await store.database.write(lambda db: db.set_trace_callback(watch))
    await store.erase("ann-of-cleves")  # the other's id holds it: made anew once, for nothing
    assert vacuumed == ["VACUUM"]
    vacuumed.clear()
    await store.erase("ann-of-cleves")
    assert await apply_to(store)(event("y", user_id="bob")) == ["accepted"], "nobody waits"
    assert vacuumed == []
    await store.close()
    assert vacuumed == ["VACUUM"]


async def test_what_is_known_of_an_erased_users_ids_can_be_read_by_nobody(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    one = event("secret-taste", event_id="order-1", user_id="ann-of-cleves")
    assert await apply_to(store)(one) == ["accepted"]
    await store.erase("ann-of-cleves")
    on_disk = bytes_on_disk(tmp_path)
    assert not [text for text in (b"secret-taste", b"order-1", b"ann-of-cleves") if text in on_disk]
    await store.close()
    store = await EmbeddedStore.open(tmp_path)
    assert await apply_to(store)(one, {**one, "user_id": "bob"}) == ["erased", "reused"], "after a restart too"
    await let_pass(store, REMEMBER_S + 1)
    await store.compact()
    await store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / JOURNAL_FILE)) as db:
        assert db.execute("SELECT count(*) FROM erased_ids").fetchone() == (0,)


async def test_a_database_from_before_erased_ids_were_kept_is_opened(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    await apply_to(store)(event("x", event_id="e1"))
    await store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / JOURNAL_FILE)) as db:
        db.execute("DROP TABLE erased_ids")
    store = await EmbeddedStore.open(tmp_path)
    await store.erase("ann")
    assert await apply_to(store)(event("x", event_id="e1")) == ["erased"]
    await store.close()


async def test_a_row_that_nobody_wrote_stands_in_no_erasures_way(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    await apply_to(store)(event("x", event_id="e1"), event("y", event_id="e2"))
    await store.database.write(
        lambda db: (
            db.execute("UPDATE journal SET payload = 'words' WHERE seq = (SELECT max(seq) FROM journal)") and None
        )
    )
    await store.erase("ann")
    assert await apply_to(store)(event("x", event_id="e1")) == ["erased"]
    assert list((await store.read("ann")).history) == []
    await store.close()


async def test_bytes_that_a_reader_still_needed_go_after_it(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    await apply_to(store)(event("secret-taste", 1.0))
    with sqlite3.connect(tmp_path / JOURNAL_FILE) as offline:
        rows = offline.execute("SELECT payload FROM journal")
        assert b"secret-taste" in rows.fetchone()[0]
        offline.execute("BEGIN")
        offline.execute("SELECT count(*) FROM journal").fetchone()
        await store.erase("ann")
        assert await apply_to(store)(event("y", user_id="bob")) == ["accepted"], "nobody waits for the reader"
        offline.rollback()
    offline.close()
    for _ in range(50):
        await asyncio.sleep(0.1)
        if b"secret-taste" not in bytes_on_disk(tmp_path):
            break
    assert b"secret-taste" not in bytes_on_disk(tmp_path)
    await store.close()


async def test_an_erasure_that_was_cut_off_leaves_no_byte(tmp_path: Path) -> None:
    """A reader keeps the write-ahead log from being emptied, and then the process ends."""

    def in_files(folder: Path) -> bool:
        return any(b"secret-item" in file.read_bytes() for file in folder.iterdir())

    store = await EmbeddedStore.open(tmp_path / "state")
    await apply_to(store)(event("secret-item"))
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / JOURNAL_FILE)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM journal").fetchone()
        await store.erase("ann")
        assert in_files(tmp_path / "state")
        shutil.copytree(tmp_path / "state", tmp_path / "killed")
        reader.rollback()
    await store.erase("ann")
    assert not in_files(tmp_path / "state"), "asked for again"
    await store.close()
    store = await EmbeddedStore.open(tmp_path / "killed")
    assert not in_files(tmp_path / "killed"), "started again"
    await store.close()


async def test_a_restored_copy_gives_no_number_twice(tmp_path: Path) -> None:
    async def numbers(folder: Path, *items: str) -> list[int]:
        store = await EmbeddedStore.open(folder)
        for item_id in items:
            await apply_to(store)(event(item_id, 1.0))
            await store.change_items([ItemChange(item_id, {"price": 1.0}, 1.0, False)], limit=0)
        await store.close()
        with contextlib.closing(sqlite3.connect(folder / JOURNAL_FILE)) as db:
            return [seq for table in ("journal", "items") for (seq,) in db.execute(f"SELECT seq FROM {table}")]

    await numbers(tmp_path / "state")
    shutil.copytree(tmp_path / "state", tmp_path / "backup")
    given = await numbers(tmp_path / "state", "a", "b", "c")
    assert not set(given) & set(await numbers(tmp_path / "backup", "d", "e"))


async def test_after_a_close_nobody_waits_for_ever(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await apply_to(store)(event("x", 1.0))


async def test_one_that_fails_takes_nobody_with_it(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    (broken,) = read_events(event("x", 1.0, user_id="carl"))
    broken = broken._replace(item_id="\ud800")
    outcomes = await asyncio.gather(
        apply_to(store)(event("y", 1.0)),
        store.apply([broken]),
        apply_to(store)(event("z", 2.0)),
        return_exceptions=True,
    )
    assert (outcomes[0], outcomes[2]) == (["accepted"], ["accepted"])
    assert isinstance(outcomes[1], TypeError)
    assert (await store.read("carl")).version == NO_VERSION
    await store.close()


async def test_a_caller_that_goes_away_stops_nobody(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    gone = asyncio.create_task(apply_to(store)(event("x", 1.0)))
    other = asyncio.create_task(apply_to(store)(event("y", 2.0)))
    await asyncio.sleep(0)
    gone.cancel()
    assert await other == ["accepted"]
    assert [entry.item_id for entry in (await store.read("ann")).history] == ["x", "y"]
    await store.close()


async def test_the_file_shrinks_when_state_does(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    for k in range(20):
        await apply_to(store)(*(event(f"i{k}-{j}", float(j), user_id=f"u{j}") for j in range(100)))
    await let_pass(store, 2 * REMEMBER_S)
    with sqlite3.connect(tmp_path / JOURNAL_FILE) as db:
        db.execute("INSERT INTO meta (name, value) SELECT 'exported', max(seq) FROM journal")
        (before,) = db.execute("PRAGMA page_count").fetchone()
    for user_id in [f"u{j}" for j in range(100)]:
        record = await store.read(user_id)
        await store.collect(user_id, record.version, Learned(record.history, list(record.marks)))
        assert await store.read(user_id) == NOBODY
    await store.compact()
    (after,) = db.execute("PRAGMA page_count").fetchone()
    assert db.execute("SELECT (SELECT count(*) FROM journal), (SELECT count(*) FROM users)").fetchone() == (0, 0)
    db.close()
    assert after < before / 5
    await store.close()


async def test_counts_outlive_the_process(tmp_path: Path) -> None:
    for _ in range(2):
        store = await EmbeddedStore.open(tmp_path)
        await store.count({"answers": 2, "shown": 1})
        counts = await store.counts()
        await store.close()
    assert counts == {"answers": 4, "shown": 2}


async def test_what_is_held_ready_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_records, "RECORDS", 3)
    monkeypatch.setattr(held_records, "MOST_ENTRIES", 10)
    held = held_records.HeldRecords()

    async def ask(size: int) -> UserRecord:
        return UserRecord("1.1", [HistoryEntry("x", float(k)) for k in range(size)], {}, False, None)

    for k in range(5):
        await held.read(f"u{k}", lambda: ask(1))
    assert [held.get(f"u{k}") is not None for k in range(5)] == [False, False, True, True, True]
    await held.read("big", lambda: ask(9))
    assert [held.get(user_id) is not None for user_id in ("u2", "u3", "u4", "big")] == [False, False, True, True]
    held.drop(["big", "u4"])
    await held.read("huge", lambda: ask(11))
    assert held.get("huge") is None
    await held.read("small", lambda: ask(0))
    assert held.get("small") is not None


async def test_a_record_that_changed_while_it_was_read_is_not_held() -> None:
    held = held_records.HeldRecords()

    async def ask() -> UserRecord:
        held.drop(["ann"])  # a commit, meanwhile
        return NOBODY

    await held.read("ann", ask)
    assert held.get("ann") is None
