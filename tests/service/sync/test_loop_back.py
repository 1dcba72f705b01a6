"""Accepted events become rows of the shop's file: each once, whatever is killed when; erased users leave it."""

import json
import math
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from isrf.contract.errors import ConfigError, DataError, StageError, StoreError
from isrf.contract.event_log import (
    JOURNAL_FILE,
    META_KEY,
    NUM_BUCKETS,
    TRIMMED,
    bucket_of,
    read_event,
    stream_key,
    stream_position,
    tombstone_key,
)
from isrf.contract.item_changes import COUNT_KEY
from offline.commands.loop_back import journal_source, redis_source
from offline.commands.loop_back.commit import DataFolder
from offline.commands.loop_back.rows import NewRow, write_interactions
from offline.commands.loop_back.take_in import TakenIn, take_in
from offline.reading.bad_rows import BadRows
from offline.reading.files import single
from offline.stages.ingest.interactions import read_interactions
from service.state import payload
from service.state.connect import open_store
from service.state.store import Store
from tests.service.servers import RedisServer, apply_to, event, read_events, settings_for

OLD = "user_id,item_id,timestamp\nann,cup,1\nbob,pot,2\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "interactions.csv").write_text(OLD)
    return folder


def rows(data: Path) -> list[tuple[str, str, float, str]]:
    bad = BadRows("interactions.csv")
    table = read_interactions(single(next(data.glob("interactions.*"))), bad).events
    assert len(bad) == 0
    found: list[tuple[str, str, float, str]] = table.select("user_id", "item_id", "timestamp", "event").rows()
    return found


async def test_accepted_events_come_into_the_file_once_and_in_order(store: Store, address: str, data: Path) -> None:
    apply = apply_to(store)
    await apply(event("b", 20.5, "view"), event("a", 10.0), event("a", 10.0), event('c,"d', 30.0, user_id="日本 x"))
    assert take_in(address, data) == TakenIn(3, 0, 0)
    expected = [
        ("ann", "cup", 1.0, "purchase"),
        ("bob", "pot", 2.0, "purchase"),
        ("ann", "a", 10.0, "purchase"),
        ("ann", "b", 20.5, "view"),
        ("日本 x", 'c,"d', 30.0, "purchase"),
    ]
    assert rows(data) == expected
    assert take_in(address, data) == TakenIn(0, 0, 0)
    await apply(event("z", 5.0, "dislike"))
    assert take_in(address, data) == TakenIn(1, 0, 0)
    assert rows(data) == [*expected, ("ann", "z", 5.0, "dislike")]
    assert [entry.item_id for entry in (await store.read("ann")).history] == ["a", "b"], "state keeps what it has"


async def test_erased_users_leave_the_file_and_their_old_events_never_come(
    store: Store, address: str, data: Path
) -> None:
    apply = apply_to(store)
    await apply(event("a", 10.0), event("b", 11.0, user_id="bob"))
    take_in(address, data)
    await apply(event("c", 12.0))
    await store.erase("ann")
    assert await apply(event("old", 12.5)) == ["erased"]
    await apply(event("fresh", time.time() + 60), event("d", time.time() + 61, user_id="bob"))
    done = take_in(address, data)
    assert (done.events, done.forgotten_rows) == (2, 2)
    kept = [("bob", "pot"), ("bob", "b"), ("ann", "fresh"), ("bob", "d")]
    assert [row[:2] for row in rows(data)] == kept
    assert take_in(address, data) == TakenIn(0, 0, 0), "the fresh user stays"
    assert [row[:2] for row in rows(data)] == kept
    await store.erase("ann")
    assert take_in(address, data) == TakenIn(0, 0, 1)
    assert "ann" not in (data / "interactions.csv").read_text()


async def test_the_stream_is_trimmed_to_what_the_run_before_took_in(
    redis_server: RedisServer, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store(settings_for(redis_server, tmp_path))
    monkeypatch.setattr(redis_source, "PAGE", 3)
    monkeypatch.setattr(redis_source, "MAX_ENTRIES", 7)
    with redis_server.client() as client:
        client.flushall()
        posted = [event(f"i{k}", float(k), user_id=f"u{k % 9}") for k in range(40)]
        await apply_to(store)(*posted)
        assert take_in(redis_server.url, data).events == 40
        assert waiting(client) == 40
        assert client.hget(META_KEY, TRIMMED) is None
        assert sorted(row[1] for row in rows(data)[2:]) == sorted(f"i{k}" for k in range(40))
        last_ms = max(stream_position(client.xrevrange(stream_key(bucket_of(f"u{k}")))[0][0])[0] for k in range(9))
        await apply_to(store)(event("later", 1.0))
        assert take_in(redis_server.url, data).events == 1
        assert waiting(client) == 1
        assert last_ms / 1000 < float(client.hget(META_KEY, TRIMMED)) <= last_ms / 1000 + 0.0011
        assert [take_in(redis_server.url, data).events, waiting(client)] == [0, 0]
    await store.close()


def waiting(client: Any) -> int:
    return sum(client.xlen(stream_key(bucket)) for bucket in range(NUM_BUCKETS))


async def test_a_killed_run_counts_as_no_run_before(
    redis_server: RedisServer, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a run that ended can have a release that learned what it took in."""
    store = await open_store(settings_for(redis_server, tmp_path))
    monkeypatch.setattr(redis_source, "PAGE", 3)
    monkeypatch.setattr(redis_source, "MAX_ENTRIES", 3)

    def dying(*_: Any) -> None:
        raise Killed

    with redis_server.client() as client:
        client.flushall()
        await apply_to(store)(*(event(f"a{k}", float(k)) for k in range(5)))
        assert take_in(redis_server.url, data).events == 5
        await apply_to(store)(*(event(f"b{k}", float(k)) for k in range(7)))
        source = redis_source.RedisSource
        for owner, method in ((source, "release"), (DataFolder, "finish"), (source, "tombstones")):
            with monkeypatch.context() as patched:
                patched.setattr(owner, method, dying)
                with pytest.raises(Killed):
                    take_in(redis_server.url, data)
            assert waiting(client) in (12, 7), "the last seven were merged by killed runs alone"
        take_in(redis_server.url, data)
        assert waiting(client) == 7
        take_in(redis_server.url, data)
        assert waiting(client) == 0
    assert [row[1] for row in rows(data)[2:]] == [f"a{k}" for k in range(5)] + [f"b{k}" for k in range(7)]
    await store.close()


async def test_progress_of_an_earlier_version_frees_nothing_at_first(
    redis_server: RedisServer, tmp_path: Path, data: Path
) -> None:
    store = await open_store(settings_for(redis_server, tmp_path))
    with redis_server.client() as client:
        client.flushall()
        await apply_to(store)(event("a", 1.0))
        take_in(redis_server.url, data)
        progress = json.loads((data / ".isrf" / "progress.json").read_text())
        for of_store in progress.values():
            del of_store["finished"]
        (data / ".isrf" / "progress.json").write_text(json.dumps(progress))
        assert [take_in(redis_server.url, data).events, waiting(client)] == [0, 1]
        assert [take_in(redis_server.url, data).events, waiting(client)] == [0, 0]
    await store.close()


class Killed(BaseException):
    """What SIGKILL is, as far as files can tell: nothing more is done to them."""


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Ends everything that touches disk or store before the step-th such call; returns how many there were."""
    calls = 0

    def dying(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls >= step:
                raise Killed
            return original(*args, **kwargs)

        return call

    monkeypatch.setattr(os, "fsync", dying(os.fsync))
    for name in ("replace", "unlink", "write_text"):
        monkeypatch.setattr(Path, name, dying(getattr(Path, name)))
    monkeypatch.setattr(journal_source.JournalSource, "release", dying(journal_source.JournalSource.release))
    return lambda: calls


@pytest.mark.slow
async def test_killed_at_any_step_nothing_is_lost_and_nothing_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = False
    step = 0
    while not ended:
        step += 1
        folder = tmp_path / str(step)
        (folder / "data").mkdir(parents=True)
        (folder / "data" / "interactions.csv").write_text(OLD)
        store = await open_store(settings_for(None, folder / "state"))
        await apply_to(store)(event("a", 10.0), event("b", 11.0, user_id="bob"))
        take_in(str(folder / "state"), folder / "data")
        await apply_to(store)(event("c", 12.0))
        await store.erase("bob")
        await apply_to(store)(event("d", time.time() + 60, user_id="bob"))
        with monkeypatch.context() as patched:
            killed_at(step, patched)
            try:
                take_in(str(folder / "state"), folder / "data")
                ended = True
            except Killed:
                pass
        whole = [row[:2] for row in rows(folder / "data")]
        assert whole in (
            [("ann", "cup"), ("bob", "pot"), ("ann", "a"), ("bob", "b")],
            [("ann", "cup"), ("ann", "a"), ("ann", "c"), ("bob", "d")],
        ), "no reader ever finds half a file"
        await apply_to(store)(event("e", time.time() + 120))
        take_in(str(folder / "state"), folder / "data")
        assert [row[:2] for row in rows(folder / "data")] == [
            ("ann", "cup"),
            ("ann", "a"),
            ("ann", "c"),
            ("bob", "d"),
            ("ann", "e"),
        ]
        await store.close()
    assert step > 10


async def test_two_stores_and_a_shop_that_writes_its_file_anew(tmp_path: Path, data: Path) -> None:
    one = await open_store(settings_for(None, tmp_path / "one"))
    two = await open_store(settings_for(None, tmp_path / "two"))
    await apply_to(one)(event("a", 10.0))
    await apply_to(two)(event("b", 11.0))
    take_in(str(tmp_path / "one"), data)
    take_in(str(tmp_path / "two"), data)
    (data / "interactions.csv").write_text((data / "interactions.csv").read_text() + "eve,jar,40\n")
    await apply_to(one)(event("c", 12.0))
    assert take_in(str(tmp_path / "one"), data).events == 1
    assert take_in(str(tmp_path / "two"), data).events == 0
    assert [row[1] for row in rows(data)] == ["cup", "pot", "a", "b", "jar", "c"]
    await one.close()
    await two.close()


def test_a_second_run_at_once_is_refused(tmp_path: Path, data: Path) -> None:
    with DataFolder(data), pytest.raises(StageError) as refused, DataFolder(data):
        pass
    assert refused.value.code == "loop_back.locked"


async def test_what_cannot_be_read_is_said_without_addresses(tmp_path: Path, data: Path) -> None:
    with pytest.raises(StoreError) as gone:
        take_in("redis://:secret@127.0.0.1:1/0", data)
    with pytest.raises(ConfigError) as nonsense:
        take_in("redis://:secret/word@localhost:x/0", data)
    with pytest.raises(DataError) as missing:
        take_in(str(tmp_path), data)
    codes = [error.value.code for error in (gone, nonsense, missing)]
    assert codes == ["store.unavailable", "config.redis_url", "data.no_store"]
    assert not any("secret" in str(error.value) for error in (gone, nonsense))
    assert (data / "interactions.csv").read_text() == OLD


@pytest.mark.slow
async def test_rows_that_left_the_file_are_said(tmp_path: Path, data: Path) -> None:
    state = tmp_path / "state"
    store = await open_store(settings_for(None, state))
    await store.erase("ann")
    await store.close()
    command = [sys.executable, "-m", "offline", "ingest", "--data", str(data), "--from-redis", str(state)]
    first, again = (subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(2))
    assert "removed 1 rows of erased users from the shop's file" in " ".join(
        first.stdout.split() + first.stderr.split()
    )
    assert "took" not in again.stdout + again.stderr


async def test_the_key_of_erasures_must_be_the_services(tmp_path: Path, data: Path) -> None:
    state = tmp_path / "state"
    store = await open_store(settings_for(None, state, erasure_key="a long enough key"))
    await store.erase("ann")
    await store.close()
    for wrong in (None, "another long key"):
        with pytest.raises(ConfigError) as refused:
            take_in(str(state), data, erasure_key=wrong)
        assert refused.value.code == "config.erasure_key"
        with pytest.raises(ConfigError):
            await open_store(settings_for(None, state, erasure_key=wrong))
    assert take_in(str(state), data, erasure_key="a long enough key").forgotten_rows == 1
    with sqlite3.connect(state / JOURNAL_FILE) as db:
        assert "a long enough key" not in "".join(db.iterdump())
    db.close()


def test_the_offline_half_reads_what_the_service_writes() -> None:
    for one in read_events(event('x,"y', 1.5, "view"), event("日本", user_id="a/b")):
        stored = read_event(payload.encode(one, ["a", 'b"']))
        assert stored[:8] == one[:8]
        assert stored.followed == ("a", 'b"')
    for broken in (b"", b"[]", b"[1,2,3,4,5,6,7,8]", b"\xff", b"{}", b"null"):
        with pytest.raises(StoreError):
            read_event(broken)


@pytest.mark.parametrize("parquet", [False, True])
async def test_a_file_that_is_written_anew_brings_no_erased_row_back(
    redis_server: RedisServer, tmp_path: Path, data: Path, *, parquet: bool
) -> None:
    with redis_server.client() as client:
        client.flushall()
    store, path, now = await open_store(settings_for(redis_server, tmp_path)), data / "interactions.csv", time.time()
    old = f"{OLD}ann,mug,{now - 60}\n"

    def export(text: str) -> None:
        path.write_text(text)
        if parquet:
            pl.read_csv(path).write_parquet(data / "interactions.parquet")
            path.unlink()

    export(old)
    await store.erase("ann")
    assert take_in(redis_server.url, data).forgotten_rows == 2
    assert await apply_to(store)(event("fresh", user_id="ann")) == ["accepted"]
    assert take_in(redis_server.url, data).events == 1
    kept = rows(data)
    assert [row[:2] for row in kept] == [("bob", "pot"), ("ann", "fresh")]
    export(f"{old}ann,fresh,{kept[1][2]!r}\nann,later,{time.time() + 9}\nbob,pan,{now - 50}\n")
    assert take_in(redis_server.url, data) == TakenIn(0, 0, 2)
    assert [row[:2] for row in rows(data)] == [("bob", "pot"), ("ann", "fresh"), ("ann", "later"), ("bob", "pan")]
    before = next(data.glob("interactions.*")).stat().st_ino
    assert take_in(redis_server.url, data) == TakenIn(0, 0, 0)
    assert next(data.glob("interactions.*")).stat().st_ino == before, "not written for nothing"
    await store.close()


NEW = [NewRow("x,y", 'i"1', "", 7.5), NewRow("bob", "i2", "view", 8.0)]


@pytest.mark.parametrize(
    ("old", "expected"),
    [
        (
            "user_id,item_id,timestamp\r\nann,cup,1",
            'user_id,item_id,timestamp,event\r\nann,cup,1,\n"x,y","i""1",7.5,\nbob,i2,8.0,view\n',
        ),
        (
            "\ufeffevent,position,item_id,user_id\n,4,cup,ann\n\nview,9,pot,ann\n",
            '\ufeffevent,position,item_id,user_id\n,4,cup,ann\n\nview,9,pot,ann\n,10,"i""1","x,y"\nview,11,i2,bob\n',
        ),
        (
            "user_id,item_id,timestamp,position,event,weight\nann,cup,,4,,2\n",
            'user_id,item_id,timestamp,position,event,weight\nann,cup,,4,,2\n"x,y","i""1",,5,,\nbob,i2,,6,view,\n',
        ),
    ],
)
def test_new_rows_fit_the_files_columns(tmp_path: Path, old: str, expected: str) -> None:
    (tmp_path / "interactions.csv").write_bytes(old.encode())
    write_interactions(tmp_path / "interactions.csv", tmp_path / "new.csv", NEW)
    assert (tmp_path / "new.csv").read_bytes().decode() == expected
    bad = BadRows("new.csv")
    read_interactions(single(tmp_path / "new.csv"), bad)
    assert len(bad) == 0


@pytest.mark.parametrize("numbered", [False, True])
def test_parquet_stays_parquet(tmp_path: Path, *, numbered: bool) -> None:
    users: list[Any] = [1, 2] if numbered else ["1", "2"]
    times = pl.Series([1_000_000, 2_000_000]).cast(pl.Datetime("us")) if numbered else [1.0, 2.0]
    table = pl.DataFrame({"user_id": users, "item_id": ["cup", "pot"], "timestamp": times})
    table.write_parquet(tmp_path / "interactions.parquet")
    left_out = write_interactions(
        tmp_path / "interactions.parquet",
        tmp_path / "new.parquet",
        NEW,
        forgets={"1": math.inf}.get,
    )
    bad = BadRows("new.parquet")
    read = read_interactions(single(tmp_path / "new.parquet"), bad).events
    assert (left_out, len(bad)) == (1, 0)
    assert read.select("user_id", "item_id", "timestamp", "event").rows() == [
        ("2", "pot", 2.0, "purchase"),
        ("x,y", 'i"1', 7.5, "purchase"),
        ("bob", "i2", 8.0, "view"),
    ]


def test_a_user_is_forgotten_however_their_line_is_written(tmp_path: Path) -> None:
    lines = ['"a,b",cup,1', '"a,b",pot,"2"', "a,b,1", "xä,cup,1", "broken", "", "\udcff,cup,1"]
    random.Random(3).shuffle(lines)
    text = "user_id,item_id,timestamp\n" + "\n".join(lines) + "\n"
    (tmp_path / "interactions.csv").write_bytes(text.encode(errors="surrogateescape"))
    left_out = write_interactions(
        tmp_path / "interactions.csv",
        tmp_path / "new.csv",
        [],
        forgets={"a,b": math.inf}.get,
    )
    kept = [line for line in lines if not line.startswith('"a,b"')]
    assert left_out == 2
    assert (tmp_path / "new.csv").read_bytes().decode(errors="surrogateescape").split("\n")[1:-1] == kept


FOREIGN: dict[str, Callable[[Any], object]] = {
    "an entry without an event": lambda c: c.xadd(stream_key(3), {"q": "1"}),
    "an event of other types": lambda c: c.xadd(stream_key(3), {"e": '["u","i",5,"B","x",false,"e",1]'}),
    "an event of no time": lambda c: c.xadd(stream_key(3), {"e": '["u","i","","B",NaN,false,"e",1]'}),
    "no stream": lambda c: c.set(stream_key(3), "x"),
    "no tombstone": lambda c: c.hset(tombstone_key(3), "x", "y"),
    "no text": lambda c: c.hset(tombstone_key(3), b"\xff", b"\xff"),
    "no hash": lambda c: c.set(tombstone_key(3), "x"),
    "no secret": lambda c: (c.hset(tombstone_key(3), "x", "y 0-0 1.0"), c.hset(META_KEY, "secret", "nonsense")),
    "no id": lambda c: c.hset(META_KEY, "id", b"\xff"),
    "no counting": lambda c: c.hset(COUNT_KEY, mapping={"id": "ab", "n": "x"}),
    "half a counting": lambda c: c.hset(COUNT_KEY, "id", "ab"),
}


@pytest.mark.parametrize("plant", FOREIGN)
def test_what_others_wrote_stops_the_loop_and_changes_nothing(
    redis_server: RedisServer, tmp_path: Path, plant: str
) -> None:
    file = tmp_path / "interactions.csv"
    file.write_text("user_id,item_id,timestamp\nann,cup,1\n")
    with redis_server.client() as client:
        client.flushall()
        FOREIGN[plant](client)
        with pytest.raises(StoreError) as refused:
            take_in(redis_server.url, tmp_path)
        client.flushall()
    assert refused.value.code in ("store.foreign_content", "store.journal_corrupt")
    assert file.read_text() == "user_id,item_id,timestamp\nann,cup,1\n"
