"""What the shop said of its items comes into its catalogue file, before the events that name them."""

import json
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from isrf.contract.errors import DataError
from isrf.contract.item_changes import FieldValue
from offline.commands.loop_back.item_rows import write_items
from offline.commands.loop_back.take_in import TakenIn, take_in
from offline.reading.bad_rows import BadRows
from offline.reading.files import single
from offline.stages.ingest.items import read_items
from service.state.connect import open_store
from service.state.item_store import ItemChange
from service.state.store import Store
from tests.service.servers import RedisServer, apply_to, event, settings_for
from tests.service.sync.test_loop_back import OLD, Killed, killed_at

ITEMS = '{"item_id": "cup", "title": "Cup", "colour": "red"}\nnonsense\n{"item_id": "pot", "price": 3}\n'


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


def write_data(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "interactions.csv").write_text(OLD)
    (folder / "items.jsonl").write_text(ITEMS)
    return folder


async def say(store: Store, item_id: str, **fields: Any) -> None:
    assert await store.change_items([ItemChange(item_id, fields, 5.0, False)], limit=9) == ["accepted"]


def catalogue(data: Path) -> dict[str, dict[str, Any]]:
    lines = [line for line in (data / "items.jsonl").read_text().splitlines() if line.startswith("{")]
    return {record.pop("item_id"): record for record in map(json.loads, lines)}


async def test_items_come_into_the_file_and_their_events_are_no_bad_rows(
    store: Store, address: str, data: Path
) -> None:
    await say(store, "new/日本 #1", title='A "new" one', categories=["Kitchen"], price=2.5, metadata={"colour": "blue"})
    await say(store, "cup", title="Mug", price=1.0, available=False, hidden=False)
    await say(store, "pot", hidden=True)
    await apply_to(store)(event("new/日本 #1", 10.0))
    assert take_in(address, data) == TakenIn(1, 0, 0, 3)
    assert catalogue(data) == {
        "cup": {"title": "Mug", "colour": "red", "price": 1.0, "available": False},
        "pot": {"price": 3, "hidden": True},
        "new/日本 #1": {"title": 'A "new" one', "categories": ["Kitchen"], "price": 2.5, "colour": "blue"},
    }
    assert (data / "items.jsonl").read_text().splitlines()[1] == "nonsense", "whose line it is is not ours to say"
    bad = BadRows("items.jsonl")
    assert set(read_items(single(data / "items.jsonl"), bad).items["item_id"]) == {"cup", "pot", "new/日本 #1"}
    assert len(bad) == 1
    before = (data / "items.jsonl").read_bytes()
    assert take_in(address, data) == TakenIn(0, 0, 0, 0)
    assert (data / "items.jsonl").read_bytes() == before
    await say(store, "pot", hidden=False, price=None)
    await say(store, "cup", metadata=None)
    assert take_in(address, data) == TakenIn(0, 0, 0, 2)
    assert catalogue(data)["pot"] == {}
    assert catalogue(data)["cup"] == {"title": "Mug", "price": 1.0, "available": False}


@pytest.mark.slow
async def test_killed_at_any_step_the_file_is_whole_and_the_next_run_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, step = False, 0
    while not ended:
        step += 1
        folder = tmp_path / str(step)
        data = write_data(folder / "data")
        store = await open_store(settings_for(None, folder / "state"))
        await say(store, "cup", title="Mug")
        take_in(str(folder / "state"), data)
        await say(store, "new", title="New")
        await say(store, "pot", hidden=True)
        await apply_to(store)(event("new", 10.0))
        with monkeypatch.context() as patched:
            killed_at(step, patched)
            try:
                take_in(str(folder / "state"), data)
                ended = True
            except Killed:
                pass
        found = catalogue(data)
        assert found["cup"] == {"title": "Mug", "colour": "red"}
        assert ("new" in found) == ("hidden" in found["pot"])
        if "new,10" in (data / "interactions.csv").read_text():
            assert "new" in found, "no event names what is not there"
        take_in(str(folder / "state"), data)
        assert catalogue(data) == {
            "cup": {"title": "Mug", "colour": "red"}, "pot": {"price": 3, "hidden": True}, "new": {"title": "New"},
        }  # fmt: skip
        assert (data / "interactions.csv").read_text().count("new,10.0") == 1
        await store.close()
    assert step > 12


async def test_a_store_that_was_emptied_is_read_anew(redis_server: RedisServer, tmp_path: Path, data: Path) -> None:
    store = await open_store(settings_for(redis_server, tmp_path))
    with redis_server.client() as client:
        client.flushall()
        for k in range(5):
            await say(store, f"i{k}", title="x")
        assert take_in(redis_server.url, data).items == 5
        client.flushall()
        await say(store, "other", title="y")
        assert take_in(redis_server.url, data).items == 1
    assert "other" in catalogue(data)
    await store.close()


def said(**fields: Any) -> dict[str, FieldValue]:
    return {name: FieldValue(value, 1.0) for name, value in fields.items()}


def test_parquet_stays_parquet(tmp_path: Path) -> None:
    old, new = tmp_path / "items.parquet", tmp_path / "new.parquet"
    pl.DataFrame(
        {
            "item_id": [1, 2],
            "title": ["One", "Two"],
            "categories": [["a"], None],
            "price": [1.0, 2.0],
            "group_id": [7, 7],
        }
    ).write_parquet(old)
    changes = {"title": "New", "categories": ["a", "b"], "group_id": "shirt"}
    entries = {"2": said(title="Zwei", price=None, hidden=True), "x": said(**changes)}
    assert write_items(old, new, entries) == 1
    bad = BadRows("new.parquet")
    rows = read_items(single(new), bad).items.sort("item_id").drop("line", "brand", "description").rows()
    assert rows == [
        ("1", "One", ["a"], 1.0, "7", None),
        ("2", "Zwei", None, None, "7", '{"hidden":true}'),
        ("x", "New", ["a", "b"], None, "shirt", None),
    ]
    assert len(bad) == 0
    pl.DataFrame({"item_id": ["1"], "tags": [{"a": 1}]}).write_parquet(old)
    with pytest.raises(DataError):
        write_items(old, new, {"1": said(metadata={"tags": ["x"]})})


def test_lines_of_other_items_stay_byte_for_byte(tmp_path: Path) -> None:
    old, new = tmp_path / "items.jsonl", tmp_path / "new.jsonl"
    lines = [
        b'\xef\xbb\xbf{"item_id":"a",  "title":"A"}\r\n',
        b"\n",
        b"\xff\xfe\n",
        b'{"item_id": 7}\n',
        b'{"item_id": "b"}',
    ]
    old.write_bytes(b"".join(lines))
    assert write_items(old, new, {"7": said(title="Seven")}) == 0
    assert new.read_bytes() == b"".join([*lines[:3], b'{"item_id": 7, "title": "Seven"}\n', lines[4], b"\n"])
    assert write_items(old, new, {"a": said(title="B")}) == 0
    assert new.read_bytes().startswith(b'\xef\xbb\xbf{"item_id": "a", "title": "B"}\n')


async def test_a_file_is_as_old_as_what_it_holds(store: Store, address: str, data: Path) -> None:
    """What is said while the files are being written is in none of them."""
    await say(store, "cup", title="Mug")
    await apply_to(store)(event("cup", 10.0))
    before = time.time()
    take_in(address, data)
    for name in ("items.jsonl", "interactions.csv"):
        written = (data / name).stat()
        # The kernel stamps a change with the time of its last tick, up to 10 ms ago.
        assert before <= written.st_mtime < written.st_ctime + 0.01
