"""Neighbours among the base users and those active since: who joins, who is gone, and that nothing else changes."""

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from isrf.method.evidence import GROUP_RECENCY
from isrf.method.recommend.request import UserInterests
from isrf.runtime.active_users import ActiveUser, read_active_users
from service.inference.engine import Engine
from service.inference.limits import LoadLimits
from service.inference.queue_limit import QueueLimit
from service.release.opening import Release, open_release
from service.release.snapshot import Snapshot, base_snapshot, make_snapshot
from service.state.connect import open_store
from service.state.events import EventRules
from service.state.store import Store
from service.sync import activity_sync as activity_sync
from service.sync.activity_sync import ActivitySync
from service.telemetry.metrics import Metrics
from tests.service.servers import RedisServer, apply_to, event, settings_for


@pytest.fixture(scope="module")
def release(tiny_release: Path) -> Release:
    return open_release(tiny_release)


def history_of(release: Release, row: int) -> list[int]:
    lists = release.recommender.tables.user_items
    return [int(item) for item in lists.indices[lists.row(row)]]


def newcomers_of(release: Release, **histories: list[int]) -> dict[str, ActiveUser]:
    read = read_active_users(release.recommender, ["v"] * len(histories), list(histories.values()))
    return dict(zip(histories, read, strict=True))


def someone(release: Release) -> int:
    return next(row for row in range(len(release.users)) if len(history_of(release, row)) > 4)


def read(snapshot: Snapshot, history: list[int], own: int = -1) -> UserInterests:
    return snapshot.recommender.read([history], [own])


def neighbours(interests: UserInterests) -> list[int]:
    users = interests.neighbours.users[0]
    return [int(user) for user in users[users >= 0]]


def test_without_news_the_recommender_is_the_releases_own(release: Release) -> None:
    assert make_snapshot(release, (), {}).recommender is base_snapshot(release).recommender is release.recommender


def test_an_erased_base_user_is_nobodys_neighbour_and_no_evidence(release: Release) -> None:
    history = history_of(release, someone(release))
    before = neighbours(read(base_snapshot(release), history))
    gone = before[:5]
    snapshot = make_snapshot(release, gone, {})
    after = neighbours(read(snapshot, history))
    assert not {*gone} & {*after}
    assert [user for user in before if user not in gone] == [user for user in after if user in before]
    assert snapshot.token != base_snapshot(release).token


def test_a_newcomer_is_a_neighbour_and_what_they_took_is_evidence(release: Release) -> None:
    mine = history_of(release, someone(release))
    strange = next(item for item in range(len(release.catalogue)) if item not in mine)
    snapshot = make_snapshot(release, (), newcomers_of(release, twin=[*mine, strange, *mine[-2:]]))
    row = snapshot.row("twin")
    assert row == len(release.users)
    interests = read(snapshot, mine)
    assert row in neighbours(interests)
    tables = snapshot.recommender.tables
    assert strange in tables.user_items.indices[tables.user_items.row(row)]
    assert tables.user_items.weights[tables.user_items.row(row)][-2:].tolist() == pytest.approx([GROUP_RECENCY, 1.0])
    group = snapshot.recommender.evidence(mine, interests.neighbours, 0)["group"]
    assert strange in group.items
    for base in range(0, len(release.users), 97):
        ours, theirs = tables.user_items, release.recommender.tables.user_items
        np.testing.assert_array_equal(ours.indices[ours.row(base)], theirs.indices[theirs.row(base)])


def test_a_newcomer_is_no_neighbour_of_their_own_nor_is_their_base_row(release: Release) -> None:
    base = someone(release)
    user_id = list(release.users.ids)[base]
    snapshot = make_snapshot(release, (), newcomers_of(release, **{str(user_id): history_of(release, base)}))
    own = snapshot.row(str(user_id))
    assert own == len(release.users)
    found = neighbours(read(snapshot, history_of(release, base), own))
    assert not {own, base} & {*found}
    assert own in neighbours(read(snapshot, history_of(release, base)))


def test_replicas_that_know_the_same_people_number_them_equally(release: Release) -> None:
    people = newcomers_of(release, a=[1, 2], b=[3], c=[4, 5])
    one = make_snapshot(release, {1, 2}, people)
    other = make_snapshot(release, [2, 1], dict(reversed(people.items())))
    assert (one.token, one.active_users) == (other.token, other.active_users)
    changed = people | {"a": people["a"]._replace(version="w")}
    assert make_snapshot(release, {1, 2}, changed).token != one.token


async def feed_of(release: Release, store: Store) -> tuple[Engine, ActivitySync]:
    engine = Engine(release, limit=QueueLimit(LoadLimits(1), Metrics()), metrics=Metrics())
    return engine, ActivitySync(engine, store, rules=EventRules(()), epoch_s=0.001)


async def test_two_replicas_come_to_the_same_crowd(
    release: Release, store: Store, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """New users join on the replica that took the event and on one that just started; erased ones leave."""
    item = [release.catalogue.item_id(row) for row in range(4)]
    base = str(list(release.users.ids)[someone(release)])
    post = apply_to(store)
    await post(*(event(item[k % 4], float(k + 1), user_id=f"new{k % 7}") for k in range(28)))
    await post(event(item[0], 5.0, user_id=base), event("no such item", 1.0, user_id="strange"))
    engine, feed = await feed_of(release, store)
    await feed.look()
    assert set(engine.snapshot.active_users) == {*(f"new{k}" for k in range(7)), base}
    other, second = await feed_of(release, store)
    await second.look()
    assert other.snapshot.token == engine.snapshot.token
    await feed.look()
    await second.look()
    assert other.snapshot.token == engine.snapshot.token, "nothing new, nobody numbered anew"
    await post(event(item[2], 50.0, user_id="new1"))
    tokens = {engine.snapshot.token}
    for one, its in ((engine, feed), (other, second)):
        await its.look()
        tokens.add(one.snapshot.token)
    assert len(tokens) == 2, "both see the change, and see the same"
    await store.erase("new3")
    await store.erase(base)
    await feed.forget(base)
    row = release.users.row(base)
    assert engine.snapshot.erased == {row}
    assert base not in engine.snapshot.active_users
    for one, its in ((engine, feed), (other, second)):
        await its.look()
        people = one.snapshot.active_users
        assert one.snapshot.erased == {row}
        assert ("new3" in people, base in people) == (False, False)
    await post(event(item[1], user_id=base))
    await feed.look()
    assert engine.snapshot.erased == {row}, "a fresh start does not bring the release's knowledge back"
    assert base in engine.snapshot.active_users
    for one in (engine, other):
        one.close()


async def test_a_look_that_fails_changes_nothing_and_the_next_one_catches_up(
    release: Release, own_redis: RedisServer, tmp_path: Path
) -> None:
    store = await open_store(settings_for(own_redis, tmp_path))
    engine, feed = await feed_of(release, store)
    await apply_to(store)(event(release.catalogue.item_id(0), 1.0))
    await feed.look()
    snapshot = engine.snapshot
    assert list(snapshot.active_users) == ["ann"]
    own_redis.kill()
    await feed.look()
    assert engine.snapshot is snapshot
    own_redis.start()
    await apply_to(store)(event(release.catalogue.item_id(1), 1.0, user_id="bob"))
    await feed.look()
    assert list(engine.snapshot.active_users) == ["ann", "bob"]
    await store.close()
    engine.close()


async def test_a_look_that_rests_sees_the_same_and_ends_at_once_where_somebody_waits(
    release: Release, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity_sync, "READ_TOGETHER", 10)
    monkeypatch.setattr(activity_sync, "REST_TIMES", 1e9)
    item = release.catalogue.item_id(0)
    await apply_to(store)(*(event(item, 1.0, user_id=f"new{k}") for k in range(40)))
    engine, feed = await feed_of(release, store)
    began = time.monotonic()
    look = asyncio.create_task(feed.look(rests_for_s=0.5))
    await look
    assert time.monotonic() - began >= 0.5
    assert set(engine.snapshot.active_users) == {f"new{k}" for k in range(40)}
    other, second = await feed_of(release, store)
    look = asyncio.create_task(second.look(rests_for_s=3600))
    await asyncio.sleep(0.5)
    assert not look.done(), "it rests"
    assert not other.snapshot.active_users
    async with asyncio.timeout(60):
        await second.forget("new7")
        await look
    assert set(other.snapshot.active_users) == {f"new{k}" for k in range(40) if k != 7}
    for one in (engine, other):
        one.close()
