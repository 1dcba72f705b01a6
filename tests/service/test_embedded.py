"""The embedded store: what was accepted survives, what was refused has no effect, a second process stays out."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from isrf.errors import StoreError
from isrf.stream import JOURNAL_FILE
from service.state.embedded import EmbeddedStore
from service.state.store import NOBODY, UserRecord
from tests.service.servers import all_of, apply_to, event

STORM = """
import asyncio, json, sys, time
from pathlib import Path
from service.state.embedded import EmbeddedStore
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
        "import asyncio, sys; from pathlib import Path; from service.state.embedded import EmbeddedStore\n"
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
    db = store._journal._db
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(StoreError, match="journal cannot be written") as refused:
        await apply_to(store)(*(event(f"y{k}" + "y" * 400, float(k), event_id="e" * 400 + str(k)) for k in range(30)))
    assert refused.value.code == "store.journal_unwritable"
    assert [entry.item_id for entry in (await store.read("ann")).history] == ["x"]
    with pytest.raises(StoreError):
        await store.ping()
    db.execute("PRAGMA max_page_count = 1000000")
    assert await apply_to(store)(event("y", 2.0)) == ["accepted"]
    await store.ping()
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
    await store.close()
    with sqlite3.connect(tmp_path / JOURNAL_FILE) as db:
        db.execute("INSERT INTO journal (user_id, payload) VALUES ('ann', '[1]')")
    db.close()
    with pytest.raises(StoreError) as refused:
        await EmbeddedStore.open(tmp_path)
    assert refused.value.code == "store.journal_corrupt"


async def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="writable folder"):
        await EmbeddedStore.open(tmp_path / "file" / "state")


async def test_an_erased_user_stays_erased_and_leaves_no_byte_in_the_journal(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path)
    await apply_to(store)(event("secret-taste", 1.0), event("y", 2.0, user_id="bob"))
    await store.erase("ann")
    await apply_to(store)(event("new", 3.0))
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
    store._journal._db.set_trace_callback(statements.append)
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
    store = await EmbeddedStore.open(tmp_path)  # what a journal and its tombstones say counts too
    asked: list[str] = []
    read = store._memory.read

    async def noted(user_id: str) -> UserRecord:
        asked.append(user_id)
        return await read(user_id)

    monkeypatch.setattr(store._memory, "read", noted)
    records = {user_id: await store.read(user_id) for user_id in ("ann", "bob", "cleo")}
    assert asked == ["ann", "bob"]
    assert [entry.item_id for entry in records["ann"].history] == ["x"]
    assert records["bob"].erased
    assert records["cleo"] == NOBODY
    await apply_to(store)(event("y", 2.0, user_id="cleo"))
    assert [entry.item_id for entry in (await store.read("cleo")).history] == ["y"]
    await store.close()
