"""One process, one release after the other: who holds one keeps it, who lets go frees it, who is erased stays so."""

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from isrf.contract.errors import BundleError
from isrf.method.recommend.request import UserInterests
from service.inference.admission import AdmissionController
from service.inference.engine import Engine
from service.inference.limits import LoadLimits
from service.recommend.query_models import ListQuery
from service.recommend.recommender import CacheLimits
from service.recommend.result_lists import ResultLists
from service.settings import Experiment
from service.state.connect import open_store
from service.state.events import EventRules
from service.state.store import Store
from service.sync.release_manager import ReleaseManager
from service.sync.release_runtime import Parts, ReleaseRuntime
from service.sync.release_source import FolderSource
from service.telemetry.metrics import Metrics
from tests.service.releases import (
    MARK,
    id_of,
    named_copy,
    point,
    shopper_of,
    truncated,
    two_releases,
    with_other_rows,
)
from tests.service.servers import RedisServer, settings_for


@pytest.fixture(scope="module")
def folder(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    releases = two_releases(tiny_release / "current", tmp_path_factory.mktemp("releases"))
    with_other_rows(tiny_release / "current", releases, "r-rows")
    truncated(named_copy(tiny_release / "current", releases, "r-broken"))
    return releases


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(settings_for(None, tmp_path / "state"))
    yield opened
    await opened.close()


def new(
    folder: Path,
    store: Store,
    experiment: Experiment | None = None,
    *,
    metrics: Metrics | None = None,
    opened: Callable[[], None] = lambda: None,
) -> ReleaseManager:
    parts = Parts(
        store=store,
        metrics=metrics or Metrics(),
        rules=EventRules(()),
        result_lists=ResultLists(store, ttl_s=60),
        admission=AdmissionController(LoadLimits(1), Metrics()),
        cache_limits=CacheLimits(60, 60, 1 << 20),
        crowd_epoch_s=60.0,
        items_poll_s=60.0,
        max_added_items=10,
    )
    return ReleaseManager(FolderSource(folder), parts, experiment=experiment, opened=opened)


@contextlib.asynccontextmanager
async def running(
    folder: Path, store: Store, experiment: Experiment | None = None, *, metrics: Metrics | None = None
) -> AsyncIterator[ReleaseManager]:
    point(folder, "r-a")
    releases = new(folder, store, experiment, metrics=metrics)
    try:
        await releases.start()
        yield releases
    finally:
        await releases.close()


async def until_freed(found: "weakref.ref[Any]") -> None:
    """Without the garbage collector: what holds a release must let go of it."""
    for _ in range(500):
        if found() is None:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"held by {gc.get_referrers(found())}")


async def test_a_request_ends_on_the_release_it_began_with_which_is_then_freed(folder: Path, store: Store) -> None:
    async with running(folder, store) as releases:
        held, go_on = threading.Event(), threading.Event()

        async def request() -> list[str]:
            with releases.lease(None) as runtime:
                # The engine has one thread: what it is asked meanwhile waits in its queue.
                blocked = asyncio.create_task(runtime.engine.run("group", wait))
                answer = await runtime.recommendations.for_session([known], ListQuery(n=5))
                await blocked
                return [runtime.release.catalogue.item_id(item.item_index) for item in answer.items]

        def wait() -> None:
            held.set()
            assert go_on.wait(60)

        known = releases.current.release.catalogue.item_id(3)
        before = releases.current
        under_way = asyncio.create_task(request())
        await asyncio.to_thread(held.wait, 60)
        point(folder, "r-b")
        assert (await releases.reload())[:2] == (id_of(folder / "r-a"), id_of(folder / "r-b"))
        assert releases.current.release_id == id_of(folder / "r-b")
        await asyncio.sleep(0.1)
        assert not under_way.done()
        assert releases.knows(known), "as long as somebody may have been shown it"
        go_on.set()
        items = await under_way
        assert len(items) == 5
        assert not any(item.endswith(MARK) for item in items)
        gone = weakref.ref(before.release)
        del before, under_way, request
        await until_freed(gone)
        assert not releases.knows(known)
        assert releases.knows(known + MARK)


async def test_a_release_that_is_refused_is_freed_and_nothing_changes(folder: Path, store: Store) -> None:
    async with running(folder, store) as releases:
        before = releases.current
        for _ in range(2):
            point(folder, "r-broken")
            with pytest.raises(BundleError, match=r"item_vectors\.npy"):
                await releases.reload()
            assert releases.current is before
        point(folder, "r-a")
        assert (await releases.reload())[:2] == (before.release_id, before.release_id)
        assert releases.current is before


async def test_out_of_the_garbage_collectors_way_a_release_is_freed_all_the_same(folder: Path, store: Store) -> None:
    frozen: list[int] = []

    def set_apart() -> None:
        gc.freeze()
        frozen.append(gc.get_freeze_count())

    point(folder, "r-a")
    releases = new(folder, store, opened=set_apart)
    try:
        await releases.start()
        assert len(frozen) == 1
        await releases.reload()
        assert len(frozen) == 1, "nothing was opened"
        gone = weakref.ref(releases.current.release)
        point(folder, "r-b")
        await releases.reload()
        assert len(frozen) == 2
        await until_freed(gone)
        assert gc.get_freeze_count() < frozen[-1]
    finally:
        await releases.close()
        gc.unfreeze()


async def test_a_second_switch_waits_for_the_release_before_the_last(folder: Path, store: Store) -> None:
    """However long a request takes, no third release is opened beside two."""
    async with running(folder, store) as releases:
        with releases.lease(None):
            point(folder, "r-b")
            await releases.reload()
            point(folder, "r-rows")
            again = asyncio.create_task(releases.reload())
            await asyncio.sleep(0.5)
            assert releases.current.release_id == id_of(folder / "r-b")
        assert (await again)[:2] == (id_of(folder / "r-b"), id_of(folder / "r-rows"))


async def test_current_becomes_the_experiments_release_without_a_second_copy(folder: Path, store: Store) -> None:
    async with running(folder, store, Experiment("r-b", 0.5)) as releases:
        trial = next(runtime for k in range(50) if (runtime := releases.of(f"u{k}")) is not releases.current)
        point(folder, "r-b")
        await releases.reload()
        assert releases.current is trial
        point(folder, "r-rows")
        await releases.reload()
        rows, b = id_of(folder / "r-rows"), id_of(folder / "r-b")
        assert {releases.of(f"u{k}").release_id for k in range(50)} == {b, rows}
        assert releases.of(None).release_id == rows


def rows_found(runtime: ReleaseRuntime) -> set[int]:
    """Base users who are a neighbour of anybody."""
    release, snapshot = runtime.release, runtime.engine.snapshot
    lists = release.recommender.tables.user_items
    histories = [lists.indices[lists.row(user)].tolist() for user in range(len(release.users))]
    found: UserInterests = snapshot.recommender.read(histories, [-1] * len(histories))
    return set(found.neighbours.users.ravel().tolist())


@pytest.mark.parametrize("store_answers", [True, False])
async def test_an_erased_user_is_in_no_neighbour_list_of_a_release_from_older_data(
    folder: Path, tmp_path: Path, own_redis: RedisServer, store_answers: bool
) -> None:
    """Erased on one replica; both go on to a release in which everybody stands in another row."""
    store = await open_store(settings_for(own_redis, tmp_path / "state"))
    erased = shopper_of(folder / "r-a")
    async with running(folder, store) as one, running(folder, store) as other:
        assert all(r.current.release.users.row(erased) in rows_found(r.current) for r in (one, other))
        await store.erase(erased)
        await one.forget(erased)
        await other.current.activity_sync.look()
        if not store_answers:
            own_redis.kill()
        point(folder, "r-rows")
        for releases in (one, other):
            before = releases.current.release.users.row(erased)
            await releases.reload()
            row = releases.current.release.users.row(erased)
            assert row not in {-1, before}
            found = rows_found(releases.current)
            assert row not in found
            assert before in found, "whoever stands in the old row is somebody else"
            view = await releases.current.recommendations.users.view(erased)
            assert (view.rows, view.store_was_read) == ([], store_answers)
    await store.close()


async def test_who_is_erased_while_a_release_is_being_opened_is_not_in_it(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    erased = shopper_of(folder / "r-a")
    warm, go_on = threading.Event(), threading.Event()
    async with running(folder, store) as releases:
        was = Engine.warm_up

        def slowly(engine: Engine) -> None:
            was(engine)
            warm.set()
            assert go_on.wait(60)

        monkeypatch.setattr(Engine, "warm_up", slowly)
        point(folder, "r-rows")
        opening = asyncio.create_task(releases.reload())
        await asyncio.to_thread(warm.wait, 60)
        await store.erase(erased)
        await releases.forget(erased)
        go_on.set()
        await opening
        assert releases.current.release.users.row(erased) not in rows_found(releases.current)


async def test_the_old_release_is_told_to_be_out_of_service(folder: Path, store: Store) -> None:
    metrics = Metrics()
    async with running(folder, store, metrics=metrics) as releases:
        item_id = releases.current.release.catalogue.item_id(3)
        point(folder, "r-b")
        await releases.reload()
        while releases.knows(item_id):  # until the old release is closed
            await asyncio.sleep(0.02)
        text = metrics.exposition().decode()
        told = [line for line in text.splitlines() if "release_info{" in line]
        info = {line.split('release_id="')[1].split('"')[0]: line[-3:] for line in told}
        assert info == {id_of(folder / "r-a"): "0.0", id_of(folder / "r-b"): "1.0"}
