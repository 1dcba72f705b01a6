"""State that a release has learned goes, and nobody sees it go."""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isrf.contract.event_log import JOURNAL_FILE, REMEMBER_S
from offline.commands.loop_back.take_in import take_in
from service.release.opening import Release, open_release
from service.state.connect import open_store
from service.state.events import EventRules
from service.state.merge import LATE_S, ReleasePast, learned, merge
from service.state.records import HistoryEntry, ItemMark, Learned, UserRecord
from service.state.store import Store
from service.sync.compaction import collect_learned
from tests.service.servers import apply_to, event, let_pass, settings_for

RULES = EventRules(())


@pytest.fixture(scope="module")
def release(tiny_release: Path) -> Release:
    """As if it had been made long ago, just after the last event that it holds."""
    opened = open_release(tiny_release)
    through = opened.manifest.events_through
    assert through is not None
    return replace(opened, learned_until=through)


def past_of(release: Release, user_id: str) -> ReleasePast:
    return release.users.past(user_id, lambda kind: RULES.effect(kind) == "B")


def shopper(release: Release) -> str:
    return next(str(user) for user in release.users.ids if len(past_of(release, str(user)).history) > 5)


def learned_events(release: Release, user_id: str) -> list[dict[str, object]]:
    past = past_of(release, user_id)
    return [
        event(entry.item_id, entry.timestamp, "purchase" if bought else "view", user_id=user_id)
        for entry, bought in zip(past.history, past.bought, strict=True)
    ]


def without(record: UserRecord, found: Learned) -> UserRecord:
    history = [entry for entry in record.history if entry not in found.entries]
    return record._replace(
        history=history, marks={item: mark for item, mark in record.marks.items() if item not in found.items}
    )


MOMENTS = st.sampled_from([1.0, 2.0, 3.0, 4.0, LATE_S + 5.0])
MAYBE = st.none() | MOMENTS
ITEMS = st.sampled_from("abcd")


def entries(times: st.SearchStrategy[float | None]) -> st.SearchStrategy[Sequence[HistoryEntry]]:
    return st.lists(st.builds(HistoryEntry, ITEMS, times, st.booleans()), max_size=6, unique=True)


@given(
    history=entries(MOMENTS),
    marks=st.dictionaries(ITEMS, st.builds(ItemMark, MAYBE, MAYBE, MAYBE)),
    held=entries(MAYBE),
    disliked=st.lists(ITEMS, unique=True),
    until=st.sampled_from([2.5, LATE_S + 3.0, LATE_S + 10.0]),
)
def test_without_what_was_learned_the_user_is_the_same(
    history: Sequence[HistoryEntry],
    marks: dict[str, ItemMark],
    held: Sequence[HistoryEntry],
    disliked: list[str],
    until: float,
) -> None:
    record = UserRecord("v", sorted(history, key=lambda entry: entry.timestamp or 0), marks, False, None)
    past = ReleasePast(held, [True] * len(held), disliked)
    # One mark at a time is judged; all of them together must hold as well.
    found = learned(record, past, until)
    assert merge(without(record, found), past, until) == merge(record, past, until)


async def test_learned_state_goes_and_news_stay(store: Store, release: Release) -> None:
    user_id = shopper(release)
    apply = apply_to(store)
    await apply(*learned_events(release, user_id))
    fresh = next(
        str(item)
        for item in release.catalogue.ids
        if item not in {e.item_id for e in past_of(release, user_id).history}
    )
    await apply(event(fresh, release.learned_until + 60, user_id=user_id))
    before = merge(await store.read(user_id), past_of(release, user_id), release.learned_until)
    assert await collect_learned(store, release, RULES) == 1
    record = await store.read(user_id)
    assert [entry.item_id for entry in record.history] == [fresh]
    assert set(record.marks) == {fresh}
    assert merge(record, past_of(release, user_id), release.learned_until) == before


async def test_nobody_is_read_of_whom_there_is_no_state(
    store: Store, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release knows thousands; a read of each, just after the start, is what requests would wait for."""
    user_id = shopper(release)
    await apply_to(store)(*learned_events(release, user_id), event("new", release.learned_until, user_id="stranger"))
    asked: list[str] = []
    read_many = store.read_many

    async def noted(user_ids: Sequence[str]) -> list[UserRecord]:
        asked.extend(user_ids)
        return await read_many(user_ids)

    monkeypatch.setattr(store, "read_many", noted)
    assert await collect_learned(store, release, RULES) == 1
    assert set(asked) == {user_id}


async def test_what_moved_meanwhile_or_was_erased_is_left_alone(store: Store, release: Release) -> None:
    user_id = shopper(release)
    apply = apply_to(store)
    posted = learned_events(release, user_id)
    await apply(*posted)
    record = await store.read(user_id)
    await apply(event(str(posted[0]["item_id"]), user_id=user_id, kind="view"))
    await store.collect(user_id, record.version, learned(record, past_of(release, user_id), release.learned_until))
    assert len((await store.read(user_id)).history) == len(posted) + 1
    await store.erase(user_id)
    await apply(*({**one, "timestamp": None} for one in posted))
    assert await collect_learned(store, release, RULES) == 0
    assert len((await store.read(user_id)).history) == len(posted)


async def test_the_journal_shrinks_to_what_state_needs(tmp_path: Path, release: Release) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "interactions.csv").write_text("user_id,item_id,timestamp\nann,cup,1\n")
    user_id = shopper(release)
    store = await open_store(settings_for(None, tmp_path / "state"))
    posted = learned_events(release, user_id)
    await apply_to(store)(*posted, now=release.learned_until)
    await apply_to(store)(event("new", release.learned_until + 5, user_id="stranger"), now=release.learned_until + 10)
    await let_pass(store, REMEMBER_S + 1)  # duplicates need not be known any more

    def rows() -> int:
        with sqlite3.connect(tmp_path / "state" / JOURNAL_FILE) as db:
            (count,) = db.execute("SELECT count(*) FROM journal").fetchone()
        db.close()
        return int(count)

    assert await collect_learned(store, release, RULES) == 1
    assert rows() == len(posted) + 1, "nothing goes before it is in the shop's data"
    for expected in (len(posted) + 1, 1):
        take_in(str(tmp_path / "state"), tmp_path / "data")
        await collect_learned(store, release, RULES)
        assert rows() == expected, "nothing goes before the next run: a service may start meanwhile"
    await collect_learned(store, release, RULES)
    assert rows() == 1, "what the release does not know stays"
    await store.close()
    store = await open_store(settings_for(None, tmp_path / "state"))
    assert [entry.item_id for entry in (await store.read("stranger")).history] == ["new"]
    state = merge(await store.read(user_id), past_of(release, user_id), release.learned_until)
    assert [entry.item_id for entry in state.history] == [str(one["item_id"]) for one in posted]
    assert take_in(str(tmp_path / "state"), tmp_path / "data").events == 0
    await store.close()
