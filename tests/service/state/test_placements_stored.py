"""Placements in every store: numbered, bounded, kept, and read again only after a change."""

import asyncio

from service.state.list_store import PlacementChange, PlacementsLook, StoredPlacement
from service.state.store import Store


def done(version: int) -> PlacementChange:
    return PlacementChange("done", version)


def other(stored: int) -> PlacementChange:
    return PlacementChange("other_version", stored)


async def test_a_change_is_numbered_and_found(store: Store) -> None:
    first = await store.placements(None)
    assert first == PlacementsLook(b"", {})
    assert await store.put_placement("home", b'{"kind": "for-user"}', limit=9) == done(1)
    assert await store.put_placement("cart", b"two words", limit=9) == done(2)
    look = await store.placements(first.cursor)
    assert look.placements == {
        "home": StoredPlacement(1, b'{"kind": "for-user"}'),
        "cart": StoredPlacement(2, b"two words"),
    }
    assert await store.placements(look.cursor) == PlacementsLook(look.cursor, None)
    assert await store.put_placement("home", b"new", limit=9) == done(3)
    assert (await store.placements(look.cursor)).placements == {
        "home": StoredPlacement(3, b"new"),
        "cart": StoredPlacement(2, b"two words"),
    }


async def test_a_deletion_is_a_change(store: Store) -> None:
    await store.put_placement("home", b"1", limit=9)
    before = await store.placements(None)
    assert await store.delete_placement("home") == done(2)
    assert await store.delete_placement("home") == PlacementChange("absent", 0)
    after = await store.placements(before.cursor)
    assert after.placements == {}
    assert after.cursor != before.cursor
    assert await store.put_placement("home", b"2", limit=9) == done(3), "no version is used twice"


async def test_there_are_only_so_many(store: Store) -> None:
    assert [await store.put_placement(name, b"x", limit=2) for name in "abab"] == [done(1), done(2), done(3), done(4)]
    assert await store.put_placement("c", b"x", limit=2) == PlacementChange("too_many", 0)
    assert set((await store.placements(None)).placements or ()) == {"a", "b"}


async def test_writers_at_one_time_get_versions_of_their_own(store: Store) -> None:
    changes = await asyncio.gather(*(store.put_placement(f"p{k % 3}", b"x", limit=9) for k in range(30)))
    assert sorted(changes) == [done(number) for number in range(1, 31)]


async def test_a_change_waits_for_the_expected_version(store: Store) -> None:
    assert await store.put_placement("home", b"1", limit=9, expected=1) == other(0), "none is stored"
    assert await store.delete_placement("home", expected=1) == other(0)
    assert await store.delete_placement("home", expected=0) == PlacementChange("absent", 0)
    assert await store.put_placement("home", b"1", limit=9, expected=0) == done(1)
    assert await store.put_placement("home", b"2", limit=9, expected=0) == other(1)
    assert await store.put_placement("home", b"2", limit=9, expected=1) == done(2)
    assert await store.delete_placement("home", expected=1) == other(2)
    assert (await store.placements(None)).placements == {"home": StoredPlacement(2, b"2")}
    assert await store.delete_placement("home", expected=2) == done(3)
    assert (await store.placements(None)).placements == {}


async def test_of_writers_with_one_version_one_wins(store: Store) -> None:
    await store.put_placement("home", b"0", limit=9)
    writers = [store.put_placement("home", b"%d" % number, limit=9, expected=1) for number in range(20)]
    changes = await asyncio.gather(*writers)
    assert sorted(changes) == [done(2), *[other(2)] * 19]
