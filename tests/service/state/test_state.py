"""What every store does with events: embedded, redis-server, Redis Cluster."""

import asyncio
import itertools
import random
import signal
import time
from typing import Any

import pytest

from isrf.contract.errors import StoreError
from isrf.contract.event_log import REMEMBER_S
from service.state import payload
from service.state.connect import open_store
from service.state.events import Event
from service.state.records import KEPT_HISTORY, NO_VERSION, Applied, Cached, HistoryEntry, ItemMark
from service.state.redis.keys import META_KEY, NUM_BUCKETS, bucket_of, stream_key, user_keys
from service.state.store import Store
from tests.service.servers import (
    AS_SERVED,
    RedisServer,
    all_of,
    apply_to,
    check_soon,
    event,
    eventually,
    let_pass,
    read_events,
    settings_for,
)

NOW = 1_700_000_000.0


async def history_of(store: Store, user_id: str = "ann") -> list[str]:
    return [entry.item_id for entry in (await store.read(user_id)).history]


async def test_a_user_that_nobody_knows_has_no_state(store: Store) -> None:
    record = await store.read("nobody")
    assert (record.version, list(record.history), dict(record.marks), record.erased, record.group) == (
        NO_VERSION,
        [],
        {},
        False,
        None,
    )


async def test_an_accepted_event_is_in_the_next_read(store: Store) -> None:
    assert await apply_to(store)(event("tea", NOW)) == ["accepted"]
    record = await store.read("ann")
    assert list(record.history) == [HistoryEntry("tea", NOW)]
    assert record.marks == {"tea": ItemMark(bought=NOW)}


async def test_timestamps_come_back_exactly(store: Store) -> None:
    moments = [1700000000.1234567, 0.1 + 0.2, 1e-7, 0.0]
    await apply_to(store)(*(event(f"i{place}", t) for place, t in enumerate(moments)))
    assert {entry.timestamp for entry in (await store.read("ann")).history} == set(moments)


async def test_what_each_event_type_does(store: Store) -> None:
    await apply_to(store)(
        event("bought", 1.0, "purchase"),
        event("typeless", 2.0),
        event("viewed", 3.0, "view"),
        event("hated", 4.0, "dislike"),
        event("returned", 5.0, "purchase"),
        event("returned", 6.0, "remove"),
    )
    record = await store.read("ann")
    assert [entry.item_id for entry in record.history] == ["bought", "typeless", "viewed"]
    assert record.marks == {
        "bought": ItemMark(bought=1.0),
        "typeless": ItemMark(bought=2.0),
        "hated": ItemMark(disliked=4.0),
        "returned": ItemMark(bought=5.0, removed=6.0),
    }


async def test_late_events_land_in_time_order(store: Store) -> None:
    apply = apply_to(store)
    for item, t in (("c", 30.0), ("a", 10.0), ("d", 40.0), ("b", 20.0)):
        await apply(event(item, t))
    assert await history_of(store) == ["a", "b", "c", "d"]


async def test_the_order_of_arrival_changes_nothing(store: Store) -> None:
    """A purchase that arrives after the `remove` that took it back stays taken back; a later one stands."""
    posted = [event("x", 1.0), event("x", 2.0, "remove"), event("x", 3.0), event("y", 4.0, "dislike"), event("y", 5.0)]
    seen = []
    for place, order in enumerate(itertools.islice(itertools.permutations(posted), 0, 120, 7)):
        user = f"u{place}"
        for one in order:
            await apply_to(store)({**one, "user_id": user})
        record = await store.read(user)
        seen.append((tuple(record.history), tuple(sorted(record.marks.items()))))
    assert len(set(seen)) == 1
    assert seen[0][0] == (HistoryEntry("x", 3.0), HistoryEntry("y", 5.0))


async def test_two_views_of_one_item_are_two_entries_and_one_moment_is_one(store: Store) -> None:
    await apply_to(store)(event("x", 1.0, "view"), event("x", 2.0, "view"), event("x", 2.0, "cart"))
    assert await history_of(store) == ["x", "x"]


async def test_an_event_id_counts_once(store: Store) -> None:
    apply = apply_to(store)
    one = event("x", 1.0, event_id="e1")
    assert await apply(one, one) == ["accepted", "duplicate"]
    assert await apply(one, {**one, "timestamp": 2.0}, event("x", event_id="e1")) == ["duplicate"] * 3
    assert await history_of(store) == ["x"]


async def test_without_an_id_the_timestamp_tells_duplicates(store: Store) -> None:
    apply = apply_to(store)
    assert await apply(event("x", 1.0), event("x", 1.0)) == ["accepted", "duplicate"]
    assert await apply(event("x", 1.0, "view")) == ["accepted"]
    assert await apply(event("x"), event("x")) == ["accepted", "accepted"]


async def test_an_event_id_is_forgotten_after_a_day(store: Store) -> None:
    apply = apply_to(store)
    one = event("x", 1.0, event_id="e1")
    assert await apply(one) == ["accepted"]
    await let_pass(store, REMEMBER_S - 60)
    assert await apply(one) == ["duplicate"]
    await let_pass(store, 61)
    assert await apply(one) == ["accepted"]


@pytest.mark.parametrize("off_s", [REMEMBER_S + 60, -REMEMBER_S - 60], ids=["ahead", "behind"])
async def test_a_caller_whose_clock_is_a_day_off_forgets_no_event_id(store: Store, off_s: float) -> None:
    apply, now = apply_to(store), time.time()
    one, other = event("x", 1.0, event_id="e1"), event("y", 1.0, event_id="e1")
    assert await apply(one) == ["accepted"]
    assert await apply(one, other, event("z", 1.0), now=now + off_s) == ["duplicate", "reused", "accepted"]
    assert await apply(one, other, event("z", 1.0)) == ["duplicate", "reused", "duplicate"]


async def test_a_clock_that_steps_moves_neither_what_is_remembered_nor_an_erasure(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply, now = apply_to(store), time.time()
    one = event("x", 1.0, event_id="e1")
    assert await apply(one) == ["accepted"]
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now + 2 * REMEMBER_S)
        assert await apply(one) == ["duplicate"]
        await store.erase("ann")
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now - 2 * REMEMBER_S)
        await store.erase("bob")
    about = {"user_id": "bob"}
    assert await apply(one, event("y", now - 1), event("y", now - 1, **about)) == ["erased"] * 3
    assert await apply(event("y", now + 60), event("y", now + 60, **about)) == ["accepted"] * 2


async def test_a_storm_of_the_same_events_counts_each_once(store: Store) -> None:
    posted = [event(f"i{k}", float(k), user_id=f"u{k % 7}") for k in range(100)]
    answers = await all_of([apply_to(store)(*posted) for _ in range(8)])
    for one_event in zip(*answers, strict=True):
        assert sorted(one_event) == ["accepted", *["duplicate"] * 7]
    assert sum([len(await history_of(store, f"u{k}")) for k in range(7)]) == 100


async def test_the_version_moves_with_every_accepted_event_and_is_never_used_again(store: Store) -> None:
    apply = apply_to(store)
    versions = [(await store.read("ann")).version]
    for k in range(5):
        await apply(event(f"i{k}", float(k)))
        versions.append((await store.read("ann")).version)
    await apply(event("i0", 0.0))
    assert (await store.read("ann")).version == versions[-1], "a duplicate changes nothing"
    await store.erase("ann")
    versions.append((await store.read("ann")).version)
    for k in range(5):
        await apply(event(f"i{k}"))
        versions.append((await store.read("ann")).version)
    assert len(set(versions)) == len(versions)


async def test_the_history_is_bounded_and_the_marks_are_exact(store: Store) -> None:
    posted = [event(f"i{k}", float(k)) for k in range(KEPT_HISTORY + 150)]
    random.Random(1).shuffle(posted)
    await apply_to(store)(*posted)
    record = await store.read("ann")
    assert [entry.item_id for entry in record.history] == [f"i{k}" for k in range(150, KEPT_HISTORY + 150)]
    assert len(record.marks) == KEPT_HISTORY + 150


@pytest.mark.parametrize(
    "user_id", ["/", "a/b", "#?%", "%2F", "a b", "日本語", "{b1}", "}{", "*", "u" * 512, "🦊" * 128]
)
async def test_any_id_is_a_user_of_its_own(store: Store, user_id: str) -> None:
    await apply_to(store)(event("x*[]\\/", 1.0, user_id=user_id, event_id=user_id))
    assert await history_of(store, user_id) == ["x*[]\\/"]
    assert await history_of(store, user_id[:-1] + "!") == []


async def test_what_is_cached_stays_until_it_expires_or_the_user_goes(store: Store) -> None:
    await store.keep("ann", NO_VERSION, group=Cached(b"\x00\xff", 60))
    await store.keep("ann", NO_VERSION, answer=Cached(b"answer", 60))
    record = await store.read("ann")
    kept = (None, None) if store.kind == "embedded" else (b"\x00\xff", b"answer")
    assert (record.group, record.answer) == kept, "one process remembers its own"
    await store.erase("ann")
    assert (await store.read("ann"))[-2:] == (None, None)


async def test_what_was_computed_of_a_user_who_moved_or_was_erased_is_not_cached(store: Store) -> None:
    """A read was under way meanwhile."""
    versions = [NO_VERSION]
    for step in ("accepted", "erased", "accepted", "erased"):
        await (apply_to(store)(event("x")) if step == "accepted" else store.erase("ann"))
        for version in versions:
            await store.keep("ann", version, group=Cached(b"interests", 60), answer=Cached(b"answer", 60))
        record = await store.read("ann")
        assert (record.group, record.answer) == (None, None)
        versions.append(record.version)
    await store.keep("ann", versions[-1], group=Cached(b"interests", 60), answer=Cached(b"answer", 60))
    record = await store.read("ann")
    assert (record.group, record.answer) == ((None, None) if store.kind == "embedded" else (b"interests", b"answer"))


async def test_an_erased_user_starts_afresh(store: Store) -> None:
    apply = apply_to(store)
    await apply(event("x", 1.0), event("y", 2.0, user_id="bob"))
    await store.erase("ann")
    record = await store.read("ann")
    assert (list(record.history), dict(record.marks), record.erased) == ([], {}, True)
    assert await apply(event("x")) == ["accepted"], "what was erased is not remembered as seen"
    record = await store.read("ann")
    assert ([entry.item_id for entry in record.history], record.erased) == (["x"], True)
    assert await history_of(store, "bob") == ["y"]


@pytest.mark.parametrize(
    "other", [{"item_id": "y"}, {"event": "view"}, {"user_id": "bob"}, {"event": "remove", "user_id": "bob"}], ids=str
)
@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one after the other"])
async def test_an_event_id_names_one_event(store: Store, other: dict[str, Any], together: bool) -> None:
    first, second = event("x", 1.0, "purchase", event_id="e1"), event("x", 2.0, "purchase", event_id="e1", **{})
    posted = read_events(first, {**second, **other}, first)
    results = await store.apply(posted) if together else [(await store.apply([one]))[0] for one in posted]
    assert results == [Applied("accepted"), Applied("reused", "x", "purchase"), Applied("duplicate")]
    assert [await history_of(store), await history_of(store, "bob")] == [["x"], []]
    assert (await store.read("ann")).marks == {"x": ItemMark(bought=1.0)}, "nothing of the other event stands"


async def test_an_event_id_is_the_same_whatever_the_case_of_the_type(store: Store) -> None:
    one = event("x", 1.0, event_id="e1")
    assert await apply_to(store)({**one, "event": "View"}, {**one, "event": " vIEW "}) == ["accepted", "duplicate"]
    assert await store.apply(read_events(one)) == [Applied("reused", "x", "view")]


async def test_an_event_id_may_name_another_event_after_a_day(store: Store) -> None:
    apply = apply_to(store)
    one, other = event("x", 1.0, event_id="e1"), event("y", 2.0, event_id="e1", user_id="bob")
    assert await apply(one) == ["accepted"]
    await let_pass(store, REMEMBER_S - 60)
    assert await apply(other) == ["reused"]
    await let_pass(store, 61)
    assert await apply(other) == ["accepted"]
    assert await apply(one) == ["reused"]


async def test_of_many_events_with_one_id_exactly_one_is_taken_in(store: Store) -> None:
    posted = [event(f"i{k}", 1.0, user_id=f"u{k}", event_id="e1") for k in range(12)]
    outcomes = [outcome for (outcome,) in await all_of([apply_to(store)(one) for one in posted])]
    assert sorted(outcomes) == ["accepted", *["reused"] * 11]
    winner = outcomes.index("accepted")
    assert [len(await history_of(store, f"u{k}")) for k in range(12)] == [int(k == winner) for k in range(12)]
    (named,) = await store.apply(read_events(posted[winner - 1]))
    assert named == Applied("reused", f"i{winner}", "")


@pytest.mark.parametrize("prefix", ["derived-", "auto-"])
async def test_an_id_that_looks_made_here_is_a_callers_own(store: Store, prefix: str) -> None:
    """Events that were exported come back with such ids."""
    apply = apply_to(store)
    (made,) = read_events(event("x", 1.0))
    event_id = made.event_id if prefix == "derived-" else "auto-1"
    assert await apply(event("x", 1.0) if prefix == "derived-" else event("x", 1.0, event_id=event_id)) == ["accepted"]
    assert await apply(event("x", 1.0, event_id=event_id)) == ["duplicate"]
    assert await apply(event("y", 1.0, event_id=f"{prefix}2"), event("z", 1.0, event_id=f"{prefix}2")) == [
        "accepted",
        "reused",
    ]


async def test_what_is_dated_before_an_erasure_stays_out(store: Store) -> None:
    apply, now = apply_to(store), time.time()
    await apply(event("x", now - 10, "purchase", event_id="e1"))
    await store.erase("ann")
    late = event("x", now - 10, "purchase", event_id="e1")
    assert await apply(late, {**late, "event_id": "e2"}, event("y", 0.0)) == ["erased"] * 3
    assert (await history_of(store), (await store.read("ann")).marks) == ([], {})
    after = [event("y", time.time() + 1, "view"), event("z"), event("x", now - 10, user_id="bob")]
    assert await apply(*after) == ["accepted"] * 3
    assert await apply(late) == ["erased"], "not after a fresh start either"
    assert await history_of(store) == ["y", "z"]


async def test_what_is_sent_again_after_an_erasure_stays_out(store: Store) -> None:
    """With its id, and without a timestamp."""
    apply = apply_to(store)
    posted = [event("x", event_id="e1"), event("y", None, "view", event_id="e2"), event("z", 5.0, event_id="e3")]
    assert await apply(*posted) == ["accepted"] * 3
    for _ in range(2):
        await store.erase("ann")
        undated = [{**one, "timestamp": None} for one in posted]
        ahead = [{**one, "timestamp": time.time() + 60} for one in posted]
        assert await apply(*posted, *undated, *ahead) == ["erased"] * 9
        assert (await history_of(store), (await store.read("ann")).marks) == ([], {})
    assert [user async for page in store.user_ids() for user in page] == []
    assert await apply(event("x", event_id="e4"), event("x")) == ["accepted"] * 2, "what is new starts a fresh user"
    assert await apply(event("x", event_id="e4"), event("x", event_id="e1")) == ["duplicate", "erased"]


async def test_an_id_of_an_erased_user_names_no_other_event(store: Store) -> None:
    apply = apply_to(store)
    one = event("x", event_id="e1")
    assert await apply(one) == ["accepted"]
    await store.erase("ann")
    others = [{**one, "item_id": "y"}, {**one, "event": "view"}, {**one, "user_id": "bob"}]
    assert await apply(*others) == ["reused"] * 3
    assert await apply(one) == ["erased"], "and goes on naming its own"


async def test_an_id_of_an_erased_user_is_forgotten_after_a_day(store: Store) -> None:
    apply = apply_to(store)
    one, later = event("x", event_id="e1"), event("y", event_id="e2")
    assert await apply(one) == ["accepted"]
    await let_pass(store, REMEMBER_S / 2)
    assert await apply(later) == ["accepted"]
    await store.erase("ann")
    await let_pass(store, REMEMBER_S / 2 - 60)
    assert await apply(one, later) == ["erased"] * 2
    await let_pass(store, 61)
    assert await apply(one, later) == ["accepted", "erased"]
    await store.erase("ann")
    assert await apply(one, later) == ["erased"] * 2


async def test_ids_of_another_user_are_not_erased(store: Store) -> None:
    apply = apply_to(store)
    mine, others = event("x", event_id="e1"), event("x", event_id="e2", user_id="bob")
    await apply(mine, others)
    await store.erase("ann")
    assert await apply(mine, others) == ["erased", "duplicate"]


async def test_who_was_never_known_is_erased_from_then_on(store: Store) -> None:
    await store.erase("ann")
    assert await apply_to(store)(event("x", time.time() - 5)) == ["erased"]


async def test_an_erasure_reaches_as_far_as_what_was_held(store: Store) -> None:
    """The shop's clock runs ahead, and its queue sends again what was erased."""
    ahead = event("x", time.time() + 60, "view", event_id="e1")
    await apply_to(store)(ahead)
    await store.erase("ann")
    assert await apply_to(store)(ahead) == ["erased"]
    assert await apply_to(store)(event("y")) == ["accepted"]


async def test_a_second_erasure_reaches_as_far_as_the_first(store: Store) -> None:
    ahead = event("x", time.time() + 60, "view", event_id="e1")
    await apply_to(store)(ahead)
    await store.erase("ann")
    await store.erase("ann")
    assert await apply_to(store)(ahead, event("y", time.time() + 30)) == ["erased"] * 2


async def test_a_refused_event_leaves_its_id_to_others(store: Store) -> None:
    await store.erase("ann")
    old, other = event("x", 1.0, event_id="e1"), event("y", 1.0, event_id="e1", user_id="bob")
    assert await apply_to(store)(old, other) == ["erased", "accepted"]
    assert await apply_to(store)(event("x", event_id="e1")) == ["reused"]


def by(now: float, *posted: dict[str, Any]) -> list[Event]:
    """Events as a replica reads them whose clock says `now`."""
    return read_events(*posted, now=now)


@pytest.mark.parametrize("behind_s", [2.0, 0.0, 1e-7, 3600.0])
async def test_a_users_own_order_never_runs_backwards(store: Store, behind_s: float) -> None:
    """Two replicas' clocks differ, or one steps back: what comes later counts as later."""
    now = time.time()
    for k in range(10):
        user, item = f"u{k}", f"x{k}"
        about = {"user_id": user}
        await store.apply(by(now, event(item, None, "purchase", **about)))
        await store.apply(by(now - behind_s, event(item, None, "remove", **about)))
        assert (await store.read(user)).history == []
        await store.apply(by(now - 2 * behind_s, event(item, None, "purchase", **about)))
        record = await store.read(user)
        assert [entry.item_id for entry in record.history] == [item]
        mark = record.marks[item]
        assert mark.bought is not None
        assert mark.removed is not None
        assert mark.bought > mark.removed >= now
        assert record.history[0].timestamp == mark.bought


async def test_undated_events_follow_what_the_shop_dated(store: Store) -> None:
    now = time.time()
    await store.apply(by(now, event("a", now + 30, "view"), event("b", now + 20, "dislike")))
    await store.apply(by(now, event("c", None, "view"), event("d", None, "view")))
    await store.apply(by(now - 9, event("e", None, "view"), event("late", now - 50, "view"), event("f", None, "view")))
    record = await store.read("ann")
    assert [entry.item_id for entry in record.history] == ["late", "a", "c", "d", "e", "f"]
    times = [entry.timestamp for entry in record.history if entry.assigned and entry.timestamp is not None]
    assert all(0 < later - earlier < 1e-5 for earlier, later in itertools.pairwise([now + 30, *times]))


async def test_undated_events_of_a_batch_keep_its_order(store: Store) -> None:
    now = time.time()
    kinds = ["purchase", "remove", "purchase", "remove", "purchase"]
    for clock in (now, now - 2, now - 2):
        await store.apply(by(clock, *(event("x", None, kind) for kind in kinds)))
        record = await store.read("ann")
        assert [entry.item_id for entry in record.history] == ["x"]
    await store.apply(by(now - 4, event("x", None, "remove")))
    assert (await store.read("ann")).history == []


async def test_a_fresh_start_comes_after_the_erasure_whatever_the_clock_says(store: Store) -> None:
    now = time.time()
    await store.apply(by(now + 5, event("a", None, "view")))
    await store.erase("ann")
    await store.apply(by(now - 2, event("b", None, "view")))
    await store.erase("ann")
    await store.apply(by(now - 2, event("c", None, "view")))
    (entry,) = (await store.read("ann")).history
    assert entry.timestamp is not None
    assert (entry.item_id, entry.timestamp > now + 5) == ("c", True)


async def test_what_is_kept_for_the_offline_job_has_the_time_that_counts(store: Store) -> None:
    now = time.time()
    await store.apply(by(now, event("a", None, "view")))
    await store.apply(by(now - 60, event("b", None, "view")))
    await store.apply(by(now - 60, event("c", now - 90.125, "view", event_id='"quoted\\"')))
    kept = [one async for page in store.accepted() for one in page]
    held = {(entry.item_id, entry.timestamp, entry.assigned) for entry in (await store.read("ann")).history}
    assert {(one.item_id, one.timestamp, one.assigned) for one in kept} == held
    assert {one.event_id for one in kept} >= {'"quoted\\"'}


async def exported(store: Store) -> list[tuple[str, str]]:
    return sorted([(one.user_id, one.item_id) async for page in store.accepted() for one in page])


async def test_accepted_events_and_only_they_are_exported(store: Store) -> None:
    apply = apply_to(store)
    one = event("x", 1.0, event_id="e1")
    assert await apply(one, one, {**one, "item_id": "y"}) == ["accepted", "duplicate", "reused"]
    assert await apply(one, event("z", user_id="bob"), event("z", user_id="gone")) == ["duplicate", *["accepted"] * 2]
    await store.erase("gone")
    assert await apply(event("old", 1.0, user_id="gone")) == ["erased"]
    assert await exported(store) == [("ann", "x"), ("bob", "z")]


async def test_effects_and_record_agree_whatever_is_erased_beside(store: Store) -> None:
    users = [f"u{k}" for k in range(8)]

    async def write(user_id: str, round_: int) -> None:
        for k in range(3):
            assert await apply_to(store)(event(f"i{round_}-{k}", None, "view", user_id=user_id)) == ["accepted"]

    for round_ in range(6):
        erasures = [store.erase(user_id) for user_id in users[round_ % 2 :: 2]]
        await asyncio.gather(*(write(user_id, round_) for user_id in users), *erasures)
        records = await store.read_many(users)
        held = [(user_id, entry.item_id) for user_id, one in zip(users, records, strict=True) for entry in one.history]
        assert sorted(held) == await exported(store)
        assert [list((await store.read(user_id)).history) for user_id in users] == [
            list(one.history) for one in records
        ]


async def test_everybody_of_whom_there_is_state_is_listed(store: Store) -> None:
    await apply_to(store)(*(event("x", 1.0, user_id=f"u{k}") for k in range(30)), event("y", 1.0, "dislike"))
    await store.erase("u7")
    listed = {user_id async for page in store.user_ids() for user_id in page}
    assert listed == {"ann", *(f"u{k}" for k in range(30))} - {"u7"}


async def test_counts_add_up(store: Store) -> None:
    await store.count({"answers": 2})
    await store.count({"answers": 3, "shown": 1})
    assert await store.counts() == {"answers": 5, "shown": 1}


async def test_of_each_mark_the_first_is_told(store: Store) -> None:
    assert await store.first(["one", "two"], 60) == [True, True]
    assert await store.first(["two", "three", "one"], 60) == [False, True, False]


async def test_a_kept_list_is_read_where_there_are_other_replicas(store: Store) -> None:
    await store.keep_lists({"one": b"\x00first", "two": b"second"}, 60)
    found = [await store.read_list(name) for name in ("one", "two", "three")]
    assert found == ([None] * 3 if store.kind == "embedded" else [b"\x00first", b"second", None])


async def test_one_replica_is_given_the_work(store: Store) -> None:
    assert await store.claim("work", 60)
    assert await store.claim("other", 60)
    assert await store.claim("work", 60) == (store.kind == "embedded"), "an embedded store has one process"


async def test_all_keys_of_a_user_share_a_slot_and_users_spread_over_the_buckets() -> None:
    keys = [*user_keys("ann/{x}"), stream_key(bucket_of("ann/{x}"))]
    assert {key[key.index("{") : key.index("}") + 1] for key in keys} == {f"{{b{bucket_of('ann/{x}')}}}"}
    assert {bucket_of(f"user-{k}") for k in range(2000)} == set(range(NUM_BUCKETS))
    assert bucket_of("ann") == 51, "a stable hash: state is lost if this changes"


async def test_accepted_events_and_only_they_stand_in_the_stream(redis_server: RedisServer, tmp_path: Any) -> None:
    with redis_server.client() as client:
        client.flushall()
    store = await open_store(settings_for(redis_server, tmp_path))
    good = [one._replace(named=True) for one in read_events(event("x", 1.0), event("日本", user_id="a/b"))]
    await store.apply([*good, good[0]])
    await store.erase("nobody")
    with redis_server.client() as client:
        kept = [
            payload.decode(fields[b"e"])
            for bucket in range(NUM_BUCKETS)
            for _, fields in client.xrange(stream_key(bucket))
        ]
        assert sorted(kept) == sorted(good)
        await store.erase("ann")
        assert not client.xrange(stream_key(bucket_of("ann")))
    await store.close()


async def test_a_key_of_the_wrong_type_refuses_its_bucket_whole(redis_server: RedisServer, tmp_path: Any) -> None:
    """The script looks before its first write: no half of an event stays."""
    store = await open_store(settings_for(redis_server, tmp_path))
    keys = user_keys("ann")
    for broken in (keys.version, keys.history, keys.marks, keys.event_ids, stream_key(bucket_of("ann"))):
        with redis_server.client() as client:
            client.flushall()
            client.rpush(broken, "not what is expected")
            with pytest.raises(StoreError):
                await store.apply(read_events(event("x", 1.0)))
            assert set(client.keys("*")) - {META_KEY.encode()} == {broken.encode()}
    await store.close()


async def test_one_broken_bucket_does_not_refuse_the_others(redis_server: RedisServer, tmp_path: Any) -> None:
    store = await open_store(settings_for(redis_server, tmp_path))
    other = next(f"u{k}" for k in range(100) if bucket_of(f"u{k}") != bucket_of("ann"))
    with redis_server.client() as client:
        client.flushall()
        client.set(user_keys("ann").history, "broken")
    assert await apply_to(store)(event("x", 1.0), event("y", 1.0, user_id=other)) == ["unavailable", "accepted"]
    assert await history_of(store, other) == ["y"]
    await store.close()


async def test_a_server_that_forgot_the_script_is_told_again(redis_server: RedisServer, tmp_path: Any) -> None:
    store = await open_store(settings_for(redis_server, tmp_path))
    with redis_server.client() as client:
        client.flushall()
        assert await apply_to(store)(event("x", 1.0)) == ["accepted"]
        client.script_flush()
    assert await apply_to(store)(event("x", 1.0), event("y", 2.0), event("z", 1.0, user_id="bob")) == [
        "duplicate",
        "accepted",
        "accepted",
    ]
    assert await history_of(store) == ["x", "y"]
    await store.close()


async def test_full_memory_refuses_writes_and_keeps_state(own_redis: RedisServer, tmp_path: Any) -> None:
    store = await open_store(settings_for(own_redis, tmp_path))
    await apply_to(store)(event("x", 1.0))
    with own_redis.client() as client:
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreError, match="cannot be reached or written"):
            await apply_to(store)(event("y", 2.0))
        with pytest.raises(StoreError):
            await store.ping()
        for _ in range(10):
            await store.keep("ann", (await store.read("ann")).version, group=Cached(b"x", 60))
            assert await history_of(store) == ["x"], "what cannot be written can still be read"
        client.config_set("maxmemory", 0)
    assert await apply_to(store)(event("y", 2.0)) == ["accepted"]
    await store.close()


async def refused_in_time(store: Store) -> None:
    """Reads fail before a caller would notice."""
    taken = []
    for _ in range(10):
        began = time.monotonic()
        with pytest.raises(StoreError):
            await store.read("ann")
        taken.append(time.monotonic() - began)
    check_soon(taken, wait_s=1.0)


async def test_redis_gone_is_said_soon_and_its_return_is_noticed(own_redis: RedisServer, tmp_path: Any) -> None:
    store = await open_store(settings_for(own_redis, tmp_path, **AS_SERVED))
    await apply_to(store)(event("x", 1.0))
    own_redis.kill()
    await refused_in_time(store)
    with pytest.raises(StoreError):
        await apply_to(store)(event("y", 2.0))
    own_redis.start()
    back = await eventually(lambda: history_of(store), what="the return")
    assert back == ["x"], "kill -9 of Redis lost an accepted event"
    assert await eventually(lambda: apply_to(store)(event("y", 2.0)), what="writing") == ["accepted"]
    await store.close()


async def test_kill_9_of_redis_in_a_storm_loses_no_accepted_event(own_redis: RedisServer, tmp_path: Any) -> None:
    store = await open_store(settings_for(own_redis, tmp_path))
    accepted: list[tuple[str, str]] = []
    killed = 0

    async def client(number: int, life: int) -> None:
        for k in range(100_000):
            item = f"{life}-{number}-{k}"
            try:
                outcomes = await apply_to(store)(event(item, float(k), "view", user_id=f"u{life}-{number}-{k // 50}"))
            except StoreError:
                if killed > life:
                    return
                continue
            if outcomes == ["accepted"]:
                accepted.append((f"u{life}-{number}-{k // 50}", item))

    async def killer(wanted: int) -> None:
        nonlocal killed
        while len(accepted) < wanted:
            await asyncio.sleep(0.005)
        killed += 1
        own_redis.kill()

    for life in range(3):
        await all_of([killer(len(accepted) + 300), *(client(number, life) for number in range(8))])
        own_redis.start()
    await eventually(store.ping, what="the return")
    held = {user_id: await history_of(store, user_id) for user_id in {user_id for user_id, _ in accepted}}
    assert len(accepted) >= 900
    for user_id, item in accepted:
        assert held[user_id].count(item) == 1
    await store.close()


async def test_a_slow_redis_is_not_waited_for(own_redis: RedisServer, tmp_path: Any) -> None:
    store = await open_store(settings_for(own_redis, tmp_path, **AS_SERVED))
    await eventually(lambda: apply_to(store)(event("x", 1.0)), what="writing")
    assert own_redis.process is not None
    own_redis.process.send_signal(signal.SIGSTOP)
    await refused_in_time(store)
    own_redis.process.send_signal(signal.SIGCONT)
    assert await eventually(lambda: history_of(store), what="the return") == ["x"]
    await store.close()
