"""What the shop says of items, in every store: merged field by field, numbered, kept through a crash."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from isrf.contract.errors import StoreError
from isrf.contract.item_changes import ENTRIES_KEY, MAX_ITEM_BYTES, decode_entry, is_too_much, merged
from service.state.connect import open_store
from service.state.item_store import ITEMS_PAGE, ItemChange, ItemsLook
from service.state.store import Store
from tests.service.servers import RedisServer, settings_for


def change(item_id: str, at: float = 1.0, *, added: bool = False, **fields: Any) -> ItemChange:
    return ItemChange(item_id, fields, at, added)


def values(look: ItemsLook) -> dict[str, dict[str, Any]]:
    return {
        item_id: {name: said.value for name, said in entry.items()} for item_id, entry in sorted(look.entries.items())
    }


async def test_fields_are_merged_and_a_look_brings_what_is_new(store: Store) -> None:
    assert await store.items(None) == ItemsLook(None, {}, whole=True)
    assert (
        await store.change_items(
            [
                change("cup", title="Cup", price=2.0),
                change("a/b #?%\n日", available=False),
                change("cup", 2.0, price=None),
            ],
            limit=10,
        )
        == ["accepted"] * 3
    )
    first = await store.items(None)
    assert first.whole
    assert values(first) == {"a/b #?%\n日": {"available": False}, "cup": {"title": "Cup", "price": None}}
    assert first.entries["cup"]["title"].at == 1.0
    assert first.entries["cup"]["price"].at == 2.0
    again = await store.items(first.cursor)
    assert again == ItemsLook(first.cursor, {}, whole=False)
    await store.change_items([change("pot", title="Pot")], limit=10)
    assert values(await store.items(first.cursor)) == {"pot": {"title": "Pot"}}


async def test_what_is_kept_of_an_item_has_a_bound_however_it_comes(store: Store) -> None:
    third = "x" * (MAX_ITEM_BYTES // 3)
    assert await store.change_items(
        [
            change("cup", title=third),
            change("cup", description=third),
            change("pot", brand="Pot"),
            change("cup", metadata={"a": third}),  # the names and quotes are too much
            change("cup", price=2.5, available=False, hidden=False),
            change("cup", 2.0, hidden=True),
            change("new", added=True, description=third * 4),
        ],
        limit=0,
    ) == ["accepted", "accepted", "accepted", "too_large", "accepted", "accepted", "too_large"]
    kept = values(await store.items(None))
    assert set(kept) == {"cup", "pot"}
    assert kept["cup"] == {"title": third, "description": third, "price": 2.5, "available": False, "hidden": True}
    assert await store.change_items([change("cup", title=None, metadata={"a": third})], limit=0) == ["accepted"]


def test_an_item_that_has_more_than_is_kept_may_lose_some_of_it() -> None:
    before = merged(None, {"title": "x" * MAX_ITEM_BYTES, "brand": "b" * 100}, 1.0)
    assert not is_too_much(before, merged(before, {"price": 3.0, "available": False}, 2.0))
    assert not is_too_much(before, merged(before, {"brand": "b"}, 2.0))
    assert is_too_much(before, merged(before, {"brand": "b" * 101}, 2.0))


async def test_many_changes_come_page_by_page(store: Store) -> None:
    count = ITEMS_PAGE + 40
    changes = [change(f"i{k % (count - 7)}", float(k), price=float(k)) for k in range(count)]
    assert set(await store.change_items(changes, limit=0)) == {"accepted"}
    look = await store.items(None)
    assert len(look.entries) == count - 7
    assert values(look)["i3"] == {"price": float(count - 4)}, "the later one of two"


async def test_so_many_items_may_be_added_and_no_more(store: Store) -> None:
    added = [change(f"n{k}", added=True, title="x") for k in range(4)]
    assert await store.change_items(added, limit=3) == ["accepted"] * 3 + ["too_many"]
    assert set((await store.items(None)).entries) == {"n0", "n1", "n2"}
    assert await store.change_items([change("n1", added=True, title="y"), change("old", price=1.0)], limit=3) == [
        "accepted", "accepted",
    ]  # fmt: skip
    look = await store.items(None)
    assert await store.collect_items({"n0": look.entries["n0"]}) == 1
    assert await store.change_items([change("n3", added=True, title="x")], limit=3) == ["accepted"]


async def test_what_changed_since_it_was_read_is_not_collected(store: Store) -> None:
    await store.change_items([change("cup", title="Cup"), change("pot", title="Pot")], limit=0)
    look = await store.items(None)
    await store.change_items([change("cup", 2.0, price=3.0)], limit=0)
    assert await store.collect_items(look.entries) == 1
    assert values(await store.items(None)) == {"cup": {"title": "Cup", "price": 3.0}}


async def test_two_who_change_one_item_at_once_lose_nothing(redis_server: RedisServer, tmp_path: Path) -> None:
    with redis_server.client() as client:
        client.flushall()
    stores = [await open_store(settings_for(redis_server, tmp_path)) for _ in range(3)]
    await asyncio.gather(
        *(
            store.change_items([ItemChange("cup", {f"f{k}{n}": k}, 1.0, False)], limit=0)
            for n, store in enumerate(stores)
            for k in range(5)
        )
    )
    assert len(values(await stores[0].items(None))["cup"]) == 15
    for store in stores:
        await store.close()


async def test_a_store_that_was_emptied_is_read_anew(redis_server: RedisServer, tmp_path: Path) -> None:
    store = await open_store(settings_for(redis_server, tmp_path))
    with redis_server.client() as client:
        client.flushall()
        await store.change_items([change(f"i{k}", price=1.0) for k in range(9)], limit=0)
        before = (await store.items(None)).cursor
        client.flushall()
        await store.change_items([change("other", price=1.0)], limit=0)
        look = await store.items(before)
        assert (look.whole, set(look.entries)) == (True, {"other"})
        await store.change_items([change("third", price=1.0)], limit=0)
        client.hset(ENTRIES_KEY, "other", b"nonsense")
        assert set((await store.items(before)).entries) == {"third"}, "others are read, who are well"
        with pytest.raises(StoreError):
            await store.change_items([change("other", price=2.0)], limit=0)
    await store.close()


async def test_the_embedded_store_keeps_items_over_a_restart(tmp_path: Path) -> None:
    settings = settings_for(None, tmp_path)
    store = await open_store(settings)
    await store.change_items(
        [change("cup", added=True, title="Cup", available=False), change("pot", price=2.5)], limit=1
    )
    await store.change_items([change("cup", 5.0, added=True, price=1.0)], limit=1)
    await store.collect_items({"pot": (await store.items(None)).entries["pot"]})
    await store.close()
    store = await open_store(settings)
    assert values(await store.items(None)) == {"cup": {"title": "Cup", "available": False, "price": 1.0}}
    assert await store.change_items([change("another", added=True)], limit=1) == ["too_many"]
    await store.close()


def test_an_entry_of_another_form_is_an_error() -> None:
    for wrong in (
        b"",
        b"[]",
        b"1",
        b"\xff",
        b'{"title": 1}',
        b'{"title": ["x"]}',
        json.dumps({"a": ["x", "y"]}).encode(),
    ):
        with pytest.raises(StoreError):
            decode_entry(wrong)
