"""Everybody's events teach everybody: counted from every store alike, taken back, bounded, gone when erased."""

import asyncio
import contextlib
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isrf.contract.event_log import META_KEY, TRIMMED, StoredEvent, bucket_of, stream_key
from isrf.contract.item_changes import HIDDEN
from isrf.method.kinds.similar import likeness
from isrf.method.recommend.live.daily_limit import ITEMS_A_DAY
from isrf.method.recommend.product_groups import ProductGroups
from isrf.method.recommend.request import RankingRequest
from service.inference.engine import Engine
from service.inference.limits import LoadLimits
from service.inference.queue_limit import QueueLimit
from service.release.live_counting import LiveCounting
from service.release.mapped_entries import ItemLookup, MappedEntries
from service.release.opening import Release, open_release
from service.state.connect import open_store
from service.state.item_store import ItemChange
from service.state.store import Store
from service.state.user_store import AcceptedEntry
from service.sync import live_sync
from service.sync.catalogue_sync import CatalogueSync
from service.sync.live_sync import LiveSync
from service.sync.release_runtime import with_live_evidence
from service.telemetry.metrics import Metrics
from tests.conftest import OLDER_RELEASES
from tests.service.servers import RedisServer, apply_to, event, settings_for

NOW = 1_757_000_000.0
"""Two days after the release was made."""
MB = 1 << 20
ALONE = ProductGroups.of([])
"""No item is a variant of another."""


@pytest.fixture(scope="module")
def release(tiny_release: Path) -> Release:
    return open_release(tiny_release)


@pytest.fixture(autouse=True)
def _erasures_seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_sync, "ERASURES_S", 0.0)


class Replica:
    """One process's worth of counting."""

    def __init__(self, release: Release, store: Store, memory: int = MB) -> None:
        self.metrics = Metrics()
        live, counting = with_live_evidence(release, memory)
        assert counting is not None
        self.counting = counting
        self.engine = Engine(live, limit=QueueLimit(LoadLimits(1), Metrics()), metrics=Metrics())
        self.items = CatalogueSync(self.engine, store, poll_s=60.0)
        self.sync = LiveSync(counting, self.engine, store, items=self.items, metrics=self.metrics, poll_s=0.01)

    def row(self, item_id: str) -> int:
        (row,) = self.engine.release.catalogue.rows([item_id])
        return row

    def followers(self, item_id: str) -> dict[str, float]:
        """What live events say followed an item."""
        found = self.counting.evidence.counts.row(self.row(item_id))
        name = self.engine.release.catalogue.item_id
        return {
            name(int(row)): float(count) for row, count in zip(found.transition, found.transition_counts, strict=True)
        }

    def takers(self, item_id: str) -> float:
        return float(self.counting.evidence.counts.takers(np.array([self.row(item_id)]))[0])

    def state(self) -> list[str]:
        """All that is counted."""
        items = [self.engine.release.catalogue.item_id(row) for row in range(len(self.engine.release.catalogue))]
        return [
            f"{item} {self.counting.version([self.row(item)], ALONE)} {self.takers(item)}" for item in sorted(items)
        ]

    def outcomes(self) -> dict[str, int]:
        found = {}
        for line in self.metrics.exposition().decode().splitlines():
            if line.startswith("isrf_live_entries_total{"):
                found[line.split('"')[1]] = int(float(line.split()[-1]))
        return found


@contextlib.asynccontextmanager
async def replicas(release: Release, store: Store, count: int = 1) -> AsyncIterator[list[Replica]]:
    found = [Replica(release, store) for _ in range(count)]
    yield found
    for one in found:
        await one.sync.close()
        await one.items.close()
        one.engine.close()


def ids(release: Release, count: int) -> list[str]:
    return [release.catalogue.item_id(row) for row in range(count)]


async def test_every_store_is_counted_alike_whenever_read(release: Release, store: Store) -> None:
    a, b, c, d = ids(release, 4)
    post = apply_to(store)
    async with replicas(release, store, 2) as (one, other):
        await post(event(a, NOW, user_id="u1"), event(b, NOW + 5, user_id="u1"))
        await one.sync.look()
        assert set(one.followers(a)) == {b}
        await post(*(event(item, NOW + 9 + k, user_id=f"u{k}") for item in (c, d) for k in range(2, 30)))
        await post(event(c, NOW + 90, "view", user_id="u1"))
        for replica in (one, other):
            await replica.sync.look()
        assert set(one.followers(a)) == {b, c}
        assert one.followers(c)[d] > 20
        assert one.state() == other.state()
        assert one.outcomes() == other.outcomes() == {"counted": 59}


async def test_each_effect_counts_for_what_it_means(release: Release, store: Store) -> None:
    a, b, c, d = ids(release, 4)
    post = apply_to(store)
    async with replicas(release, store) as (one,):
        await post(event(a, NOW), event(b, NOW + 1, "view"), event(c, NOW + 2, "dislike"))
        await one.sync.look()
        assert one.takers(a) == pytest.approx(one.takers(b), rel=1e-4)
        assert (one.takers(c), set(one.followers(a))) == (0.0, {b})
        await post(event(b, NOW + 3, "remove"), event(d, NOW + 9, "remove"), event(d, NOW + 8, event_id="late"))
        await post(event(d, NOW + 10, event_id="later"))
        await one.sync.look()
        assert (one.takers(b), set(one.followers(a))) == (0.0, {d})
        assert one.outcomes() == {"counted": 3, "dislike": 1, "remove": 2, "removed": 1}


async def test_what_the_release_learned_is_not_counted_again(release: Release, store: Store) -> None:
    row = next(row for row in range(len(release.users)) if release.users.tail(str(list(release.users.ids)[row])))
    user_id = str(list(release.users.ids)[row])
    past = release.users.tail(user_id)[0]
    assert past.timestamp is not None
    async with replicas(release, store) as (one,):
        await apply_to(store)(
            event(past.item_id, past.timestamp, user_id=user_id),
            event(past.item_id, past.timestamp - 0.5, user_id=user_id),
            event(past.item_id, past.timestamp, user_id="another"),
        )
        await one.sync.look()
        assert one.outcomes() == {"counted": 2, "learned": 1}


async def test_unknown_items_are_looked_for_once(release: Release, store: Store) -> None:
    a, b = ids(release, 2)
    post = apply_to(store)
    async with replicas(release, store, 2) as (one, other):
        change = ItemChange("novelty", {"title": "A lamp of brass for the desk"}, NOW, True)
        assert await store.change_items([change], limit=9) == ["accepted"]
        await post(event(a, NOW + 1), event("novelty", NOW + 2), event("nowhere", NOW + 3), event(b, NOW + 4))
        await other.items.look()
        for replica in (one, other):
            await replica.sync.look()
            assert replica.outcomes() == {"counted": 3, "unknown_item": 1}
            assert set(replica.followers("novelty")) == {b}
        assert one.state() == other.state()
        recommender = one.engine.snapshot.recommender
        assert one.row(b) in recommender.tables.item_lists["transition"].entries(one.row("novelty")).indices


async def test_requests_of_before_a_new_item_are_answered(release: Release, store: Store) -> None:
    """Their snapshot lacks an item that live evidence names already."""
    a, b = ids(release, 2)
    async with replicas(release, store) as (one,):
        before = one.engine.snapshot
        await store.change_items([ItemChange("novelty", {"title": "A lamp of brass for the desk"}, NOW, True)], limit=9)
        await apply_to(store)(*(event(item, NOW + k, user_id=f"u{k}") for k in range(9) for item in (a, "novelty", b)))
        await one.sync.look()
        allowed = release.catalogue.allowed()
        for history in ([0], []):
            request = RankingRequest(history=history, n=120, allowed=allowed)
            _, ranked = await one.engine.answer(request, -1, before, None)
            assert sorted(item.item_index for item in ranked.items) == np.flatnonzero(allowed).tolist()
        tables = before.recommender.tables
        assert len(likeness(0, tables.item_lists, tables.item_vectors).scores) == 120


async def test_an_item_that_leaves_stays_counted_and_unshown(release: Release, store: Store) -> None:
    a, b = ids(release, 2)
    async with replicas(release, store) as (one,):
        await apply_to(store)(*(event(item, NOW, user_id=f"u{k}") for item in (a, b) for k in range(9)))
        await store.change_items([ItemChange(b, {HIDDEN: True}, time.time(), False)], limit=9)
        await one.items.look()
        await one.sync.look()
        assert one.takers(b) > 0
        catalogue = one.engine.release.catalogue
        popular = one.engine.snapshot.recommender.most_popular(catalogue.allowed(), np.zeros(0, np.int64), 120)
        assert one.row(a) in popular
        assert one.row(b) not in popular


async def test_an_erased_user_is_gone_on_every_replica(release: Release, store: Store) -> None:
    a, b, c = ids(release, 3)
    neighbour = next(name for k in range(9999) if bucket_of(name := f"n{k}") == bucket_of("ann"))
    post = apply_to(store)
    async with replicas(release, store, 3) as (one, other, late):
        await post(event(a, NOW), event(b, NOW + 1), event(a, NOW, user_id=neighbour), event(c, NOW, user_id="far"))
        for replica in (one, other):
            await replica.sync.look()
        await store.erase("ann")
        await one.sync.forget("ann")
        assert one.followers(a) == {}
        for replica in (one, other, late):
            await replica.sync.look()
            assert replica.followers(a) == {}
            assert (replica.takers(a) > 0, replica.takers(b), replica.takers(c) > 0) == (True, 0.0, True)
        assert one.state() == other.state() == late.state()
        await post(event(c, NOW + 60, event_id="again"))
        await one.sync.look()
        assert one.followers(a) == {}


async def test_a_store_that_comes_back_is_read_on(
    release: Release, own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_sync, "AGAIN_S", 0.05)
    a, b = ids(release, 2)
    store = await open_store(settings_for(own_redis, tmp_path, redis_write_timeout_s=1.0))
    async with replicas(release, store) as (one,):
        await apply_to(store)(event(a, NOW))
        await one.sync.start(is_serving=False)
        before = one.takers(a)
        assert before > 0
        own_redis.kill()
        await until(lambda: one.takers(a) == before, seconds=0.3)
        own_redis.start()
        await apply_to(store)(event(b, NOW + 1))
        await until(lambda: one.takers(b) > 0)
        assert (one.takers(a), set(one.followers(a))) == (before, {b})
    await store.close()


async def until(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def test_an_unreadable_entry_is_counted_and_passed(
    release: Release, own_redis: RedisServer, tmp_path: Path
) -> None:
    a, b = ids(release, 2)
    store = await open_store(settings_for(own_redis, tmp_path))
    async with replicas(release, store) as (one,):
        await apply_to(store)(event(a, NOW))
        with own_redis.client() as client:
            client.xadd(stream_key(bucket_of("ann")), {"e": "nonsense"})
        await apply_to(store)(event(b, NOW + 1))
        await one.sync.look()
        assert one.outcomes() == {"counted": 2, "unreadable": 1}
        assert set(one.followers(a)) == {b}
    await store.close()


async def test_a_stream_trimmed_too_far_is_reported(release: Release, own_redis: RedisServer, tmp_path: Path) -> None:
    store = await open_store(settings_for(own_redis, tmp_path))
    (a,) = ids(release, 1)
    async with replicas(release, store) as (one,):
        await apply_to(store)(event(a, NOW))
        await one.sync.look()
        assert (one.sync.progress.truncated, one.sync.warnings()) == (False, [])
        with own_redis.client() as client:
            client.hset(META_KEY, TRIMMED, repr(release.learned_until + 5.0))
        await one.sync.look()
        assert one.sync.progress.truncated
        assert [warning["code"] for warning in one.sync.warnings()] == ["live_events_missing"]
        assert one.takers(a) > 0
        gauge = f'isrf_live_truncated{{release_id="{release.manifest.release_id}"}}'
        assert f"{gauge} 1.0" in one.metrics.exposition().decode()
        await one.sync.close()
        assert f"{gauge} 0.0" in one.metrics.exposition().decode()
    await store.close()


async def test_an_erasure_that_could_not_be_counted_is_counted_by_the_next_look(
    release: Release, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = ids(release, 2)
    async with replicas(release, store) as (one,):
        await apply_to(store)(event(a, NOW), event(b, NOW + 1))
        await one.sync.look()
        await store.erase("ann")

        def fail(_: int) -> None:
            raise MemoryError

        with monkeypatch.context() as patched:
            patched.setattr(one.counting, "take_out_bucket", fail)
            with pytest.raises(MemoryError):
                await one.sync.look()
        assert one.takers(a) > 0
        await one.sync.look()
        assert (one.takers(a), one.takers(b), one.followers(a)) == (0.0, 0.0, {})


async def test_a_look_without_news_looks_up_no_items(
    release: Release, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ItemLookup] = []

    class Counted(ItemLookup):
        def __init__(self, item_ids: Any) -> None:
            super().__init__(item_ids)
            made.append(self)

    monkeypatch.setattr(live_sync, "ItemLookup", Counted)
    async with replicas(release, store) as (one,):
        await one.sync.look()
        assert made == []
        await apply_to(store)(event(ids(release, 1)[0], NOW))
        await one.sync.look()
        assert len(made) == 1


def test_an_older_release_has_no_live_evidence(tiny_release: Path) -> None:
    opened = open_release(OLDER_RELEASES[3])
    assert with_live_evidence(opened, MB) == (opened, None)
    assert with_live_evidence(open_release(tiny_release), 0)[1] is None


def stored(user_id: str, item_id: str, timestamp: float, *followed: str) -> AcceptedEntry:
    one = StoredEvent(user_id, item_id, "", "B", timestamp, False, "x", max(timestamp, NOW), followed)
    return AcceptedEntry(bucket_of(user_id), one)


def counting_of(release: Release) -> LiveCounting:
    _, counting = with_live_evidence(release, 100 * MB)
    assert counting is not None
    return counting


def count(counting: LiveCounting, release: Release, entries: Sequence[AcceptedEntry]) -> Counter[Any]:
    return counting.count(MappedEntries.of(entries, ItemLookup(release.catalogue.ids)))


def test_one_account_counts_once_for_a_hundred_thousand(release: Release) -> None:
    a, b = ids(release, 2)
    loud, quiet = counting_of(release), counting_of(release)
    burst = [stored("bot", b, NOW + k / 1000, a) for k in range(100_000)]
    assert count(loud, release, burst) == {"counted": 1, "limit": 99_999}
    count(quiet, release, burst[:1])
    assert loud.version([0, 1], ALONE) == quiet.version([0, 1], ALONE)
    everything = [stored("bot", item, NOW, a) for item in ids(release, 120)] * 100
    assert count(loud, release, everything)["counted"] <= ITEMS_A_DAY


def test_a_thousand_new_accounts_move_one_pair_alone(release: Release) -> None:
    """What a thousand accounts move, each in one day: one item's row and popularity, as a thousand buyers would."""
    rows = range(len(release.catalogue))
    a, b, c, d = ids(release, 4)
    counting = counting_of(release)
    honest = [stored(f"h{k}", d, NOW, c) for k in range(5)]
    count(counting, release, honest)
    tables = release.recommender.with_live(counting.evidence).tables

    def listed(row: int) -> dict[int, float]:
        entries = tables.item_lists["transition"].entries(row)
        return dict(zip(entries.indices.tolist(), entries.weights.tolist(), strict=True))

    before = [listed(row) for row in rows]
    found = count(counting, release, [stored(f"new{k}", b, NOW, a) for k in range(1000)])
    assert found == {"counted": 1000}
    assert listed(0)[1] > 0.9
    for row in rows[1:]:
        assert listed(row) == pytest.approx(before[row])
    assert counting.evidence.counts.people(0, 1, channel="transition") == 1000


def test_clocks_that_jump_move_no_more_than_others(release: Release) -> None:
    a, b, c, d = ids(release, 4)
    counting = counting_of(release)
    ahead, long_ago = stored("y", c, NOW, a), 5.0
    assert ahead.event is not None
    ahead = ahead._replace(event=ahead.event._replace(timestamp=NOW + 86_000.0))
    entries = [stored("x", b, NOW, a), ahead, stored("z", d, long_ago, a)]
    assert count(counting, release, entries) == {"counted": 3}
    usual, tomorrow, old = counting.evidence.counts.takers(np.array([1, 2, 3])).tolist()
    assert usual == tomorrow
    assert 0 <= old < 1e-4
    every_day = [stored("bot", b, NOW - 86_400 * k, a) for k in range(20_000)]
    before = counting.evidence.counts.takers(np.array([1]))[0]
    count(counting, release, every_day)
    moved = counting.evidence.counts.takers(np.array([1]))[0] - before
    assert moved < 300 * usual, "a half-life of 180 days: what lies far back weighs nothing"


def test_identities_are_equal_whatever_the_rows(release: Release) -> None:
    a, b = ids(release, 2)
    one, other = counting_of(release), counting_of(release)
    turned = release.catalogue.of(list(reversed(release.catalogue.items)), release.catalogue.popularity[::-1])
    one.count(MappedEntries.of([stored("u", b, NOW, a)], ItemLookup(release.catalogue.ids)))
    other.count(MappedEntries.of([stored("u", b, NOW, a)], ItemLookup(turned.ids)))
    assert one.version(release.catalogue.rows([a, b]), ALONE) == other.version(turned.rows([a, b]), ALONE)
    assert zlib.crc32(b"u") % 64 == bucket_of("u")
