"""The accepted events in order, page by page, alike in every store."""

import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from isrf.contract.errors import StoreError
from isrf.contract.event_log import EVENT_FIELD, JOURNAL_FILE, META_KEY, NUM_BUCKETS, REMEMBER_S, TRIMMED
from offline.commands.loop_back.take_in import take_in
from service.state.connect import open_store
from service.state.records import Learned
from service.state.redis.keys import bucket_of, stream_key, tombstone_key
from service.state.redis.store import RedisStore
from service.state.redis.users import erasure
from service.state.sqlite import EmbeddedStore
from service.state.sqlite.users import entries as journal_entries
from service.state.sqlite.users import user_store
from service.state.store import Store
from service.state.user_store import AcceptedEntry, EntryPage
from tests.service.servers import apply_to, event, let_pass, settings_for

ALL = dict.fromkeys(range(NUM_BUCKETS), b"")
USERS = [f"u{k}" for k in range(30)]


async def pages_of(
    store: Store, after: Mapping[int, bytes] = ALL, *, since: float = 0.0, limit: int = 1000
) -> list[EntryPage]:
    """All pages until nothing waits."""
    pages = [await store.entries(after, since=since, limit=limit)]
    while pages[-1].waiting:
        assert len(pages) < 500, "pages end"
        pages.append(await store.entries(pages[-1].positions, since=since, limit=limit))
    return pages


async def items_of(
    store: Store, after: Mapping[int, bytes] = ALL, *, since: float = 0.0, limit: int = 1000
) -> dict[int, list[str | None]]:
    found: dict[int, list[str | None]] = {}
    for page in await pages_of(store, after, since=since, limit=limit):
        for bucket, one in page.entries:
            found.setdefault(bucket, []).append(None if one is None else one.item_id)
    return found


async def add_unreadable(store: Store, user_id: str) -> None:
    if isinstance(store, EmbeddedStore):
        query = "INSERT INTO journal (user_id, payload, digest) VALUES (?, 'words', 0)"
        await store.database.write(lambda db: db.execute(query, (user_id,)))
        return
    assert isinstance(store, RedisStore)
    await store.clients.writes.xadd(stream_key(bucket_of(user_id)), {EVENT_FIELD: b"words"})


@pytest.mark.parametrize("limit", [1, 7, 64, 200, 10_000])
async def test_each_buckets_entries_come_once_and_in_order(store: Store, limit: int) -> None:
    posted = [event(f"i{k}", float(-k % 50), user_id=USERS[k % 30]) for k in range(150)]
    for start in range(0, 150, 50):
        await apply_to(store)(*posted[start : start + 50])
    expected: dict[int, list[str | None]] = {}
    for start in range(0, 150, 50):
        for one in posted[start : start + 50]:
            expected.setdefault(bucket_of(one["user_id"]), []).append(one["item_id"])
    assert await items_of(store, limit=limit) == expected


async def test_pages_end_and_go_on_with_what_is_new(store: Store) -> None:
    empty = await store.entries(ALL, since=0.0, limit=10)
    assert (empty.entries, empty.waiting, set(empty.positions)) == ([], 0, set(ALL))
    await apply_to(store)(event("a"), event("b", user_id="bob"))
    first = (await pages_of(store, empty.positions))[-1]
    again = await store.entries(first.positions, since=0.0, limit=10)
    assert (again.entries, again.waiting, again.positions) == ([], 0, first.positions)
    await apply_to(store)(event("c"))
    last = await store.entries(first.positions, since=0.0, limit=10)
    ((bucket, one),) = last.entries
    assert one is not None
    assert (bucket, one.item_id, one.followed) == (bucket_of("ann"), "c", ("a",))


async def test_only_the_asked_buckets_are_read(store: Store) -> None:
    await apply_to(store)(*(event(user_id, user_id=user_id) for user_id in USERS))
    asked = {bucket_of("u1"), bucket_of("u2")}
    page = await store.entries(dict.fromkeys(asked, b""), since=0.0, limit=1000)
    assert set(page.positions) == asked
    expected = {user_id for user_id in USERS if bucket_of(user_id) in asked}
    assert {one.item_id for _, one in page.entries if one is not None} == expected
    assert (await store.entries({}, since=0.0, limit=1000)).entries == []


async def test_buckets_may_stand_at_different_places(store: Store) -> None:
    ann, bob = bucket_of("ann"), bucket_of("bob")
    await apply_to(store)(event("a"), event("b", user_id="bob"))
    before = await store.entries(ALL, since=0.0, limit=1000)
    await apply_to(store)(event("c"), event("d", user_id="bob"))
    found = await items_of(store, {ann: before.positions[ann], bob: b""})
    assert found == {ann: ["c"], bob: ["b", "d"]}


async def test_reading_begins_at_a_moment(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_entries, "SCANNED_AT_ONCE", 3)
    await apply_to(store)(*(event(f"old{k}", user_id=USERS[k]) for k in range(10)))
    time.sleep(0.01)
    since = store.clock.now() if isinstance(store, EmbeddedStore) else time.time()
    time.sleep(0.01)
    assert await items_of(store, since=since) == {}
    await apply_to(store)(*(event(f"new{k}", user_id=USERS[k]) for k in range(10)))
    found = await items_of(store, since=since, limit=64)
    assert sorted(str(item) for items in found.values() for item in items) == [f"new{k}" for k in range(10)]
    assert sum(map(len, (await items_of(store, since=since - 60)).values())) == 20
    assert await items_of(store, since=since + 3600) == {}


async def test_the_journal_is_searched_for_a_moment_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_entries, "SCANNED_AT_ONCE", 3)
    searched: list[int] = []

    def search(db: sqlite3.Connection, after: int, since: float) -> tuple[int, bool]:
        searched.append(after)
        return journal_entries.seq_before(db, after, since)

    monkeypatch.setattr(user_store, "seq_before", search)
    store = await open_store(settings_for(None, tmp_path))
    assert isinstance(store, EmbeddedStore)
    await apply_to(store)(*(event(f"old{k}", user_id=USERS[k]) for k in range(10)))
    await let_pass(store, 10.0)
    since = store.clock.now()
    assert await items_of(store, since=since) == {}
    assert len(searched) == 4, "three rows at a time"
    await apply_to(store)(event("new"))
    await store.compact()
    last = searched[-1] + 1
    searched.clear()
    for _ in range(2):
        assert await items_of(store, since=since) == {bucket_of("ann"): ["new"]}
    assert searched == [last, last]
    await store.close()


async def test_how_many_wait_shrinks_to_nothing(store: Store) -> None:
    for k in range(40):
        await apply_to(store)(*(event(f"i{k}", user_id=user_id) for user_id in USERS[:3]))
    asked = {bucket_of(user_id): b"" for user_id in USERS[:3]}
    waiting = [page.waiting for page in await pages_of(store, asked, limit=15)]
    assert waiting[-1] == 0
    assert all(number > 0 for number in waiting[:-1])
    assert waiting == sorted(waiting, reverse=True)
    if isinstance(store, EmbeddedStore):
        assert waiting == [105, 90, 75, 60, 45, 30, 15, 1, 0], "a full page may be the last"


@pytest.mark.parametrize("purged", [True, False])
async def test_erased_users_entries_are_left_out(store: Store, purged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not purged:  # an erasure that was killed after its tombstone
        monkeypatch.setattr(erasure, "PURGE_SCRIPT", "return ''")
    same = next(f"x{k}" for k in range(10_000) if bucket_of(f"x{k}") == bucket_of("ann"))
    await apply_to(store)(event("a"), event("b", user_id="bob"), event("c", user_id=same))
    await add_unreadable(store, "ann")
    await store.erase("ann")
    await apply_to(store)(event("later"))
    if isinstance(store, RedisStore):
        length = await store.clients.writes.xlen(stream_key(bucket_of("ann")))
        assert length == (3 if purged else 4)
    found = await items_of(store)
    # The embedded store deletes rows by their user, and so the unreadable one too.
    expected = ["c", "later"] if isinstance(store, EmbeddedStore) else ["c", None, "later"]
    assert found == {bucket_of("bob"): ["b"], bucket_of("ann"): expected}


async def test_an_unreadable_entry_is_passed_over(store: Store) -> None:
    await apply_to(store)(event("a"))
    await add_unreadable(store, "ann")
    await apply_to(store)(event("b"))
    for limit in (1, 1000):
        assert await items_of(store, limit=limit) == {bucket_of("ann"): ["a", None, "b"]}
    (page,) = await pages_of(store)
    assert page.entries[1] == AcceptedEntry(bucket_of("ann"), None)


@pytest.mark.parametrize("store", ["redis", "cluster"], indirect=True)
async def test_an_unreadable_tombstone_hides_only_its_user(store: Store) -> None:
    assert isinstance(store, RedisStore)
    same = next(f"x{k}" for k in range(10_000) if bucket_of(f"x{k}") == bucket_of("ann"))
    await apply_to(store)(event("a"), event("c", user_id=same))
    await store.erase("ann")
    key = tombstone_key(bucket_of("ann"))
    (name,) = {field for field in await store.clients.writes.hkeys(key) if len(field) == 32}
    await store.clients.writes.hset(key, name, "words")
    assert await items_of(store) == {bucket_of("ann"): ["c"]}


async def test_pages_say_until_when_entries_may_be_gone(store: Store, address: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "interactions.csv").write_text("user_id,item_id,timestamp\n")
    await apply_to(store)(event("a", 1.0), event("b", 2.0))
    accepted = time.time()
    take_in(address, tmp_path / "data")
    await _collect(store)
    (page,) = await pages_of(store)
    assert (page.trimmed_until, len(page.entries)) == (0.0, 2)
    take_in(address, tmp_path / "data")
    await apply_to(store)(event("c", 3.0))
    await _collect(store)
    (page,) = await pages_of(store)
    assert [one.item_id for _, one in page.entries if one is not None] == ["c"]
    assert accepted - 5 < page.trimmed_until < accepted + 0.1
    take_in(address, tmp_path / "data")
    (again,) = await pages_of(store)
    assert again.trimmed_until == page.trimmed_until


async def _collect(store: Store) -> None:
    """The embedded store deletes rows that are a day old and whose effects a release has learned."""
    if isinstance(store, EmbeddedStore):
        record = await store.read("ann")
        await store.collect("ann", record.version, Learned(record.history[:2], ["a", "b"]))
        await let_pass(store, REMEMBER_S + 1)
        await store.compact()
        await let_pass(store, -REMEMBER_S - 1)


@pytest.mark.parametrize("store", ["embedded"], indirect=True)
async def test_no_moment_is_recorded_without_a_deleted_row(store: Store, tmp_path: Path) -> None:
    await apply_to(store)(event("a", 1.0))
    await store.compact()
    with closing(sqlite3.connect(tmp_path / "state" / JOURNAL_FILE)) as db:
        assert db.execute("SELECT value FROM meta WHERE name = ?", (TRIMMED,)).fetchall() == []


@pytest.mark.parametrize("store", ["redis"], indirect=True)
async def test_a_moment_that_nobody_wrote_is_refused(store: Store) -> None:
    assert isinstance(store, RedisStore)
    await store.clients.writes.hset(META_KEY, TRIMMED, "words")
    with pytest.raises(StoreError) as refused:
        await store.entries(ALL, since=0.0, limit=10)
    assert refused.value.code == "store.foreign_content"
