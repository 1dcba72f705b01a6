"""What was stored is answered as stored, whatever fails after it: an error would make the caller send it again."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from isrf.contract.errors import StoreError
from service.inference.engine import Engine
from service.inference.limits import LoadLimits
from service.inference.queue_limit import QueueLimit
from service.recommend.placements.placement import Placement
from service.release.opening import open_release
from service.state.store import Store
from service.sync.catalogue_sync import CatalogueSync
from service.sync.placement_sync import PlacementSync
from service.telemetry.metrics import Metrics


async def fail(*_: Any) -> Any:
    raise StoreError("store.unavailable", "nobody answers.", fix="Wait.")


async def test_a_placement_is_stored_even_if_it_cannot_be_read_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = PlacementSync(store, {})
    await sync.look()
    with monkeypatch.context() as patched:
        patched.setattr(store, "placements", fail)
        stored = await sync.put("home", Placement(kind="popular"))
        assert (stored.outcome, stored.version) == ("done", 1)
        assert (sync.is_current, sync.find("home")) == (False, None)
    await sync.look()
    home = sync.find("home")
    assert home is not None
    assert (sync.is_current, home.version) == (True, 1)
    with monkeypatch.context() as patched:
        patched.setattr(store, "placements", fail)
        assert (await sync.delete("home")).outcome == "done"
    await sync.look()
    assert sync.find("home") is None


async def test_a_placement_that_is_not_stored_is_an_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = PlacementSync(store, {})
    monkeypatch.setattr(store, "put_placement", lambda *_, **__: fail())
    monkeypatch.setattr(store, "delete_placement", lambda *_, **__: fail())
    with pytest.raises(StoreError):
        await sync.put("home", Placement(kind="popular"))
    with pytest.raises(StoreError):
        await sync.delete("home")


@pytest.fixture
async def engine(tiny_release: Path) -> AsyncIterator[Engine]:
    opened = Engine(open_release(tiny_release), limit=QueueLimit(LoadLimits(1), Metrics()), metrics=Metrics())
    yield opened
    opened.close()


async def test_a_release_that_closes_does_not_cancel_who_waits_for_its_items(
    engine: Engine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = asyncio.Event()

    async def hang(*_: Any) -> Any:
        await answers.wait()
        await fail()

    monkeypatch.setattr(store, "items", hang)
    sync = CatalogueSync(engine, store, poll_s=60.0)
    running = asyncio.create_task(sync.look())
    await asyncio.sleep(0.01)
    waiting, cancelled = asyncio.create_task(sync.look()), asyncio.create_task(sync.look())
    await asyncio.sleep(0.01)
    cancelled.cancel()
    await sync.close()
    await asyncio.wait_for(waiting, 1.0)
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    answers.set()
    await running
