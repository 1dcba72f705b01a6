"""Placements in every store: numbered, bounded, kept, and read again only after a change."""

import asyncio

from service.state.list_store import PlacementsLook, StoredPlacement
from service.state.store import Store


async def test_a_change_is_numbered_and_found(store: Store) -> None:
    first = await store.placements(None)
    assert first == PlacementsLook(b"", {})
    assert await store.put_placement("home", b'{"kind": "for-user"}', limit=9) == 1
    assert await store.put_placement("cart", b"two words", limit=9) == 2
    look = await store.placements(first.cursor)
    assert look.placements == {
        "home": StoredPlacement(1, b'{"kind": "for-user"}'),
        "cart": StoredPlacement(2, b"two words"),
    }
    assert await store.placements(look.cursor) == PlacementsLook(look.cursor, None)
    assert await store.put_placement("home", b"new", limit=9) == 3
    assert (await store.placements(look.cursor)).placements == {
        "home": StoredPlacement(3, b"new"),
        "cart": StoredPlacement(2, b"two words"),
    }


async def test_a_deletion_is_a_change(store: Store) -> None:
    await store.put_placement("home", b"1", limit=9)
    before = await store.placements(None)
    assert await store.delete_placement("home")
    assert not await store.delete_placement("home")
    after = await store.placements(before.cursor)
    assert after.placements == {}
    assert after.cursor != before.cursor
    assert await store.put_placement("home", b"2", limit=9) == 3, "no version is used twice"


async def test_there_are_only_so_many(store: Store) -> None:
    assert [await store.put_placement(name, b"x", limit=2) for name in "abab"] == [1, 2, 3, 4]
    assert await store.put_placement("c", b"x", limit=2) is None
    assert set((await store.placements(None)).placements or ()) == {"a", "b"}


async def test_writers_at_one_time_get_versions_of_their_own(store: Store) -> None:
    versions = await asyncio.gather(*(store.put_placement(f"p{k % 3}", b"x", limit=9) for k in range(30)))
    assert sorted(version or 0 for version in versions) == list(range(1, 31))
