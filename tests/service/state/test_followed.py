"""Accepted events are stored with the items that they followed, alike in every store."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from isrf.contract.errors import StoreError
from isrf.contract.event_log import EVENT_FIELD, FOLLOWED_ITEMS, StoredEvent, read_event, stream_key
from offline.commands.loop_back.take_in import TakenIn, take_in
from service.state import payload
from service.state.records import HistoryEntry
from service.state.redis.keys import NUM_BUCKETS, bucket_of, user_keys
from service.state.redis.store import RedisStore
from service.state.sqlite import EmbeddedStore
from service.state.store import Store
from tests.service.servers import apply_to, event, read_events

HOSTILE = [
    '"',
    "\\",
    '\\"',
    "🦊",
    "\u2028\u2029",
    "/</script>",
    "日本",
    "é",
    "\ufffd",
    "a\u00adb",
    "}{",
    "'",
    "\\u0041",
]


async def payloads_of(store: Store) -> list[bytes]:
    """What the store holds of accepted events, in the order of acceptance."""
    if isinstance(store, EmbeddedStore):
        query = "SELECT payload FROM journal ORDER BY seq"
        return [row[0] for row in await store.database.read(lambda db: db.execute(query).fetchall())]
    assert isinstance(store, RedisStore)
    entries = [
        entry for bucket in range(NUM_BUCKETS) for entry in await store.clients.writes.xrange(stream_key(bucket))
    ]
    return [fields[EVENT_FIELD] for _, fields in sorted(entries, key=lambda entry: entry[0])]


async def stored(store: Store) -> list[StoredEvent]:
    found = [payload.decode_stored(encoded) for encoded in await payloads_of(store)]
    assert found == [read_event(encoded) for encoded in await payloads_of(store)]
    return found


async def followed(store: Store) -> list[tuple[str, tuple[str, ...]]]:
    return [(one.item_id, one.followed) for one in await stored(store)]


async def apply_with_tail(store: Store, tail: Sequence[HistoryEntry], *posted: dict[str, Any]) -> None:
    applied = await store.apply([one._replace(tail=tail) for one in read_events(*posted)])
    assert {one.outcome for one in applied} == {"accepted"}


async def test_an_event_names_the_users_last_items(store: Store) -> None:
    apply = apply_to(store)
    for item, t in (("a", 1.0), ("b", 2.0), ("a", 3.0), ("c", 4.0)):
        await apply(event(item, t, "view"), event("other", t, user_id="bob"))
    assert [one for one in await followed(store) if one[0] != "other"] == [
        ("a", ()),
        ("b", ("a",)),
        ("a", ("b",)),
        ("c", ("a", "b")),
    ]


async def test_earlier_events_of_a_batch_are_followed(store: Store) -> None:
    await apply_to(store)(event("a", 1.0), event("b"), event("c"), event("b", user_id="bob"), event("d", user_id="bob"))
    found = {
        user_id: [one.followed for one in await stored(store) if one.user_id == user_id] for user_id in ("ann", "bob")
    }
    assert found == {"ann": [(), ("a",), ("b", "a")], "bob": [(), ("b",)]}


async def test_at_most_eight_distinct_items_are_followed(store: Store) -> None:
    for k in range(12):
        await apply_to(store)(event(f"i{k}", float(2 * k)), event(f"i{k}", float(2 * k + 1), "view"))
    assert (await followed(store))[-2] == ("i11", tuple(f"i{k}" for k in range(10, 10 - FOLLOWED_ITEMS, -1)))


async def test_a_late_event_followed_what_came_before_it(store: Store) -> None:
    apply = apply_to(store)
    await apply(event("c", 30.0), event("a", 10.0), event("d", 40.0))
    await apply(event("b", 20.0))
    assert await followed(store) == [("c", ()), ("a", ()), ("d", ("c", "a")), ("b", ("a",))]


async def test_at_one_moment_only_written_events_are_followed(store: Store) -> None:
    await apply_to(store)(event("a", 5.0), event("c", 5.0), event("b", 5.0), event("c", 5.0, "view"))
    assert await followed(store) == [("a", ()), ("c", ("a",)), ("b", ("c", "a")), ("c", ("b", "a"))]


async def test_the_releases_last_items_are_followed_too(store: Store) -> None:
    tail = [HistoryEntry("r3", 30.0), HistoryEntry("r2", 20.0), HistoryEntry("a", 15.0), HistoryEntry("r1", None)]
    await apply_with_tail(store, tail, event("a", 40.0), event("b", 50.0))
    await apply_with_tail(store, tail, event("late", 25.0))
    await apply_with_tail(store, tail, event("r2", 0.0))
    assert await followed(store) == [
        ("a", ("r3", "r2", "r1")),
        ("b", ("a", "r3", "r2", "r1")),
        ("late", ("r2", "a", "r1")),
        ("r2", ("r1",)),
    ]


async def test_state_and_release_are_merged_by_time(store: Store) -> None:
    await apply_to(store)(event("s1", 10.0), event("s2", 25.0))
    tail = [HistoryEntry("r2", 30.0), HistoryEntry("s1", 25.0), HistoryEntry("r1", -5.0)]
    await apply_with_tail(store, tail, event("x", 40.0))
    assert (await followed(store))[-1] == ("x", ("r2", "s2", "s1", "r1"))


async def test_sixteen_items_of_the_release_fill_eight_places(store: Store) -> None:
    tail = [HistoryEntry(f"r{k}", float(k)) for k in range(16, 0, -1)]
    await apply_with_tail(store, tail, event("r15", 20.0), event("x", 12.0))
    assert await followed(store) == [
        ("r15", tuple(f"r{k}" for k in (16, 14, 13, 12, 11, 10, 9, 8))),
        ("x", tuple(f"r{k}" for k in range(12, 4, -1))),
    ]


async def test_an_erased_users_release_is_not_read(store: Store) -> None:
    await apply_to(store)(event("before", 1.0))
    await store.erase("ann")
    await apply_with_tail(store, [HistoryEntry("r", 2.0)], event("new"), event("newer"))
    assert await followed(store) == [("new", ()), ("newer", ("new",))]


async def test_removed_items_are_not_followed(store: Store) -> None:
    tail = [HistoryEntry("kept", 6.0), HistoryEntry("gone", 5.0), HistoryEntry("again", 4.0), HistoryEntry("old", None)]
    await apply_to(store)(event("gone", 5.0, "remove"), event("again", 3.0, "remove"), event("old", 1.0, "remove"))
    await apply_with_tail(store, tail, event("x", 7.0), event("kept", 6.5, "remove"), event("y", 8.0))
    assert await followed(store) == [
        ("gone", ()),
        ("again", ()),
        ("old", ()),
        ("x", ("kept", "again")),
        ("kept", ()),
        ("y", ("x", "again")),
    ]


async def test_dislikes_and_removals_follow_nothing(store: Store) -> None:
    await apply_to(store)(event("a", 1.0), event("b", 2.0, "dislike"), event("a", 3.0, "remove"), event("c", 4.0))
    assert await followed(store) == [("a", ()), ("b", ()), ("a", ()), ("c", ())]


async def test_a_duplicate_writes_no_entry(store: Store) -> None:
    apply = apply_to(store)
    await apply(event("a", 1.0), event("b", 2.0), event("a", 1.0))
    assert await apply(event("b", 2.0)) == ["duplicate"]
    assert await followed(store) == [("a", ()), ("b", ("a",))]


async def test_the_tail_of_a_later_event_counts(store: Store) -> None:
    """The first event of a batch may be refused; its tail is not the only one."""
    posted = read_events(event("a", 1.0), event("b", 2.0))
    await store.apply(posted[:1])
    await store.apply([one._replace(tail=[HistoryEntry("r", 0.5)]) for one in posted])
    assert await followed(store) == [("a", ()), ("b", ("a", "r"))]


async def test_any_id_comes_back_byte_for_byte(store: Store) -> None:
    tail = [HistoryEntry(item_id, 1.0) for item_id in HOSTILE[7:]]
    for k, item_id in enumerate(HOSTILE[:7]):
        await apply_with_tail(store, tail, event(item_id, 2.0 + k, user_id='"\\🦊'))
    await apply_with_tail(store, tail, event("x", 20.0, user_id='"\\🦊'))
    last = (await payloads_of(store))[-1]
    assert payload.decode_stored(last).followed == tuple([*HOSTILE[:7][::-1], *HOSTILE[7:]][:FOLLOWED_ITEMS])
    assert orjson.dumps(orjson.loads(last)) == last
    await store.erase('"\\🦊')
    assert await payloads_of(store) == []


async def test_both_stores_write_the_same_bytes(store: Store) -> None:
    tail = [HistoryEntry("r", 1.5), HistoryEntry("s", None)]
    await apply_with_tail(store, tail, event("a", 2.0, event_id="1"), event("b", 3.5, "view", event_id="2"))
    start, _, rest = (await payloads_of(store))[-1].partition(b'"2",')
    assert start == b'["ann","b","view","H",3.5,false,'
    assert rest.partition(b",")[2] == b'["a","r","s"]]'


def expected_of(before: Sequence[dict[str, Any]], tail: Sequence[HistoryEntry], new: dict[str, Any]) -> tuple[str, ...]:
    """What an event followed, from all events before it."""
    removed: dict[str, float] = {}
    for one in before:
        if one.get("event") == "remove":
            removed[one["item_id"]] = max(one["timestamp"], removed.get(one["item_id"], -1.0))
    taken = [(one["timestamp"], one["item_id"], 1) for one in before if one.get("event") in ("view", "purchase")]
    taken += [(-1.0 if entry.timestamp is None else entry.timestamp, entry.item_id, 0) for entry in tail]
    valid = [(t, item, place) for t, item, place in taken if t <= new["timestamp"] and t > removed.get(item, -2.0)]
    in_order = sorted(valid, key=lambda entry: (entry[0], entry[2]), reverse=True)
    items = dict.fromkeys(item for _, item, _ in in_order if item != new["item_id"])
    return tuple(items)[:FOLLOWED_ITEMS] if new["event"] in ("view", "purchase") else ()


@pytest.mark.parametrize("seed", range(6))
async def test_any_sequence_follows_what_was_before_it(store: Store, seed: int) -> None:
    rng = random.Random(seed)
    times = rng.sample(range(1000), 52)  # no two alike: among equal times the order is the store's own
    tail = [
        HistoryEntry(f"i{k}", float(t)) for k, t in zip(rng.sample(range(14), 8), sorted(times[:8])[::-1], strict=True)
    ]
    tail += [HistoryEntry("i90", None), HistoryEntry("i91", None)]
    kinds = ["view"] * 5 + ["purchase"] * 3 + ["remove", "dislike"]
    posted = [event(f"i{rng.randrange(14)}", float(t), rng.choice(kinds), event_id=f"e{t}") for t in times[8:40]]
    for start in range(0, 32, 4):
        await apply_with_tail(store, tail, *posted[start : start + 4])
    found = [one.followed for one in await stored(store)]
    assert found == [expected_of(posted[:k], tail, one) for k, one in enumerate(posted)]


async def test_no_more_than_32_entries_of_state_are_looked_at(store: Store) -> None:
    await apply_to(store)(event("first", 1.0, "view"), *(event("again", float(k), "view") for k in range(2, 34)))
    await apply_to(store)(event("x", 50.0))
    assert (await followed(store))[-1] == ("x", ("again",))
    await apply_to(store)(event("y", 32.5))
    assert (await followed(store))[-1] == ("y", ("again", "first"))


async def test_exports_are_as_before(store: Store) -> None:
    await apply_with_tail(store, [HistoryEntry("r", 1.0)], event("a", 2.0), event("b", 3.0))
    pages = [page async for page in store.accepted()]
    assert [(one.item_id, one.tail) for page in pages for one in page] == [("a", ()), ("b", ())]


async def test_entries_of_eight_fields_are_still_read(store: Store, address: str, tmp_path: Path) -> None:
    await apply_to(store)(event("new", 2.0))
    (entry,) = await payloads_of(store)
    old = orjson.dumps([*orjson.loads(entry)[:1], "old", *orjson.loads(entry)[2:8]])
    if isinstance(store, EmbeddedStore):
        query = "INSERT INTO journal (user_id, payload, digest) VALUES ('ann', ?, 0)"
        await store.database.write(lambda db: db.execute(query, (old,)))
    else:
        assert isinstance(store, RedisStore)
        await store.clients.writes.xadd(stream_key(bucket_of("ann")), {EVENT_FIELD: old})
    assert await followed(store) == [("new", ()), ("old", ())]
    assert [one.item_id async for page in store.accepted() for one in page] == ["new", "old"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "interactions.csv").write_text("user_id,item_id,timestamp\n")
    assert take_in(address, tmp_path / "data") == TakenIn(2, 0, 0)


@pytest.mark.parametrize("followed", [None, 7, "text", {"a": 1}, [1], [None], [["a"]]])
def test_other_values_are_no_followed_items(followed: object) -> None:
    broken = json.dumps(["ann", "a", "", "B", 1.5, False, "e1", 2.5, followed]).encode()
    for read in (payload.decode, payload.decode_stored, read_event):
        with pytest.raises(StoreError) as refused:
            read(broken)
        assert refused.value.code == "store.journal_corrupt"
    with pytest.raises(StoreError):
        payload.decode_stored(json.dumps([*json.loads(broken)[:8], [], []]).encode())


@pytest.mark.parametrize("store", ["redis"], indirect=True)
async def test_foreign_history_makes_no_unreadable_entry(store: Store) -> None:
    assert isinstance(store, RedisStore)
    members = [b"\xff\n1.0", b"a\tb\n1.0", b"\xed\xa0\x80\n1.0", b"\xf5\x80\x80\x80\n1.0", b"\xe6\x97\n1.0", b"none"]
    members += ["日\n1.0".encode(), b"good\n1.0", b"odd\nx"]
    await store.clients.writes.zadd(user_keys("ann").history, dict.fromkeys(members, 1.0))
    await apply_to(store)(event("x", 2.0))
    ((_, found),) = await followed(store)
    assert set(found) == {"日", "good", "odd"}
