"""An unchanged user costs no run of the model, and no answer is older than what it rests on."""

import contextlib
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from isrf.contract.item_changes import HIDDEN
from service.inference.admission import AdmissionController
from service.inference.limits import LoadLimits
from service.recommend.query_models import Answer, ListQuery
from service.recommend.recommender import CacheLimits, RecommendationService
from service.recommend.response_cache import CachedResponse
from service.recommend.result_lists import ResultLists
from service.release.catalogue import Filter
from service.state.connect import open_store
from service.state.events import EventRules
from service.state.item_store import ItemChange
from service.state.store import Store
from service.sync.release_manager import ReleaseManager
from service.sync.release_runtime import Parts
from service.sync.release_source import FolderSource
from service.telemetry.metrics import Metrics
from tests.service.releases import point, shopper_of, some_users, two_releases
from tests.service.servers import RedisServer, apply_to, event, settings_for

NOW = 1_700_000_000.0
SINCE = 1_757_000_000.0
"""After the release was made."""


@pytest.fixture(scope="module")
def folder(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_releases(tiny_release / "current", tmp_path_factory.mktemp("releases"))


def content(served: CachedResponse) -> Any:
    """An answer but for its id, which is another one for each that is made."""
    return *served[:3], {**orjson.loads(served.about), "recommendation_id": None}


class Replica:
    """One process's worth of the service on a store, without HTTP."""

    def __init__(self, folder: Path, store: Store, answer_bytes: int = 1 << 20, live_bytes: int = 0) -> None:
        self.metrics = Metrics()
        self.releases = ReleaseManager(
            FolderSource(folder),
            Parts(
                store=store,
                metrics=self.metrics,
                rules=EventRules(()),
                result_lists=ResultLists(store, ttl_s=60),
                admission=AdmissionController(LoadLimits(1), Metrics()),
                cache_limits=CacheLimits(60, 60, answer_bytes),
                crowd_epoch_s=3600.0,
                items_poll_s=3600.0,
                max_added_items=10,
                live_evidence_bytes=live_bytes,
                live_poll_s=60.0,
            ),
        )

    @property
    def ours(self) -> RecommendationService:
        return self.releases.current.recommendations

    async def ask(self, user_id: str, **wanted: Any) -> tuple[str, CachedResponse]:
        return await self.ours.recommend(user_id, ListQuery(**{"n": 10} | wanted), self.write)

    async def anew(self, user_id: str, **wanted: Any) -> CachedResponse:
        """The answer without anything that was kept of earlier ones."""
        asked = ListQuery(**{"n": 10} | wanted)
        answer = await self.ours.for_user(await self.ours.users.view(user_id), asked)
        return CachedResponse(
            answer.source,
            orjson.dumps(self.write(answer)),
            orjson.dumps(answer.warnings),
            orjson.dumps(answer.about(asked)),
        )

    def write(self, answer: Answer) -> Sequence[Mapping[str, Any]]:
        catalogue = self.releases.current.release.catalogue
        return [{"item_id": catalogue.item_id(item.item_index), "score": item.score} for item in answer.items]

    def counted(self) -> dict[str, int]:
        """Answers by where they came from, and runs of the model."""
        found = {"runs": 0}
        for line in self.metrics.exposition().decode().splitlines():
            if line.startswith("isrf_answer_cache_total{"):
                found[line.split('"')[1]] = int(float(line.split()[-1]))
            if line.startswith("isrf_model_batch_size_count"):
                found["runs"] = int(float(line.split()[-1]))
        return found

    async def count(self) -> None:
        """Counts everybody's events until now."""
        live = self.releases.current.live
        assert live is not None
        await live.look()

    async def look(self) -> None:
        """Until now, and not from hour to hour."""
        await self.releases.current.activity_sync.look(until_s=time.time())

    def has_kept(self, user_id: str) -> bool:
        """Whether an answer to the user is kept in this process: it is why they may come when all is full."""
        return self.ours.has_room(user_id, under_way=10**6)


@contextlib.asynccontextmanager
async def running(folder: Path, store: Store, count: int = 1, **more: int) -> AsyncIterator[list[Replica]]:
    point(folder, "r-a")
    async with contextlib.AsyncExitStack() as stack:
        replicas = [Replica(folder, store, **more) for _ in range(count)]
        for one in replicas:
            stack.push_async_callback(one.releases.close)
            await one.releases.start()
        yield replicas


async def settle(replica: Replica) -> None:
    """Until what was to be kept is in the store; to close them is to wait for it."""
    await replica.ours.users.close()


async def test_an_unchanged_user_costs_no_run_on_any_replica(folder: Path, store: Store) -> None:
    shopper = shopper_of(folder / "r-a")
    async with running(folder, store, 2) as (one, other):
        first = await one.ask(shopper)
        await settle(one)
        assert one.counted() == {"computed": 1, "runs": 1}
        assert [await one.ask(shopper) for _ in range(3)] == [first] * 3
        assert one.counted() == {"computed": 1, "process": 3, "runs": 1}
        assert content((await other.ask(shopper))[1]) == content(first[1])
        if store.kind == "embedded":  # one process; the two here share nothing but its state
            assert other.counted() == {"computed": 1, "runs": 1}
        else:
            assert other.counted() == {"store": 1, "runs": 0}
        assert content(await one.anew(shopper)) == content(first[1])


async def test_every_parameter_is_part_of_the_key(folder: Path, store: Store) -> None:
    shopper = shopper_of(folder / "r-a")
    async with running(folder, store) as (one,):
        items = [item["item_id"] for item in orjson.loads((await one.ask(shopper))[1].items)]
        catalogue = one.releases.current.release.catalogue
        category = catalogue.items[0].categories[-1]
        filters = (
            Filter(exclude=tuple(items[:1])),
            Filter(exclude=tuple(items[1:2])),
            Filter(categories=(category,)),
            Filter(categories=("none",)),
            Filter(max_price=20.0),
        )
        asked: list[dict[str, Any]] = [
            {"n": 3},
            *({"item_filter": item_filter} for item_filter in filters),
            {"include_seen": True},
            {"explain": True},
            {"diversity": 0.5},
        ]
        for _ in range(2):
            for wanted in asked:
                _, served = await one.ask(shopper, **wanted)
                assert content(served) == content(await one.anew(shopper, **wanted)), wanted
        assert one.counted()["process"] == len(asked)


async def test_an_accepted_write_another_crowd_an_erasure_and_a_reload_are_seen_at_once(
    folder: Path, store: Store
) -> None:
    shopper = shopper_of(folder / "r-a")
    async with running(folder, store, 2) as replicas:
        one = replicas[0]
        for replica in replicas:
            version, served = await replica.ask(shopper)
            await settle(replica)
        bought = orjson.loads(served.items)[0]["item_id"]
        assert await apply_to(store)(event(bought, NOW, user_id=shopper)) == ["accepted"]
        for replica in replicas:
            newer, after = await replica.ask(shopper)
            assert newer != version
            assert bought.encode() not in after.items
        runs = one.counted()["runs"]
        await one.look()
        assert one.releases.current.engine.snapshot.active_users, "the shopper is somebody's neighbour now"
        assert content((await one.ask(shopper))[1]) == content(await one.anew(shopper))
        assert one.counted()["runs"] == runs + 2, "another crowd, another answer"
        assert one.has_kept(shopper)
        await store.erase(shopper)
        await one.releases.forget(shopper)
        assert not one.has_kept(shopper)
        for replica in replicas:
            assert (await replica.ask(shopper))[1].source == "popular"
        point(folder, "r-b")
        await one.releases.reload()
        source, items = (await one.ask("somebody"))[1][:2]
        assert source == "popular"
        assert all(item["item_id"].endswith("~b") for item in orjson.loads(items))


async def test_without_the_store_nothing_is_kept_nor_taken(
    folder: Path, own_redis: RedisServer, tmp_path: Path
) -> None:
    shopper, other = shopper_of(folder / "r-a"), some_users(folder / "r-a")[-1]
    store = await open_store(settings_for(own_redis, tmp_path))
    async with running(folder, store) as (one,):
        await one.ask(shopper)
        own_redis.kill()
        for user_id in (shopper, shopper, other):
            assert (await one.ask(user_id))[1].source.startswith("bundle:")
        assert one.counted()["bypassed"] == 3
        assert one.has_kept(shopper), "from before"
        assert not one.has_kept(other)
    await store.close()


async def test_it_can_be_switched_off(folder: Path, store: Store) -> None:
    shopper = shopper_of(folder / "r-a")
    async with running(folder, store, answer_bytes=0) as (one,):
        first = await one.ask(shopper)
        await settle(one)
        assert content((await one.ask(shopper))[1]) == content(first[1])
        assert one.counted() == {"bypassed": 2, "runs": 2}
        assert (await store.read(shopper)).answer is None


async def test_events_of_others_renew_what_rests_on_their_items(folder: Path, store: Store) -> None:
    """A user whose last items an event names, but no other; without a history, everybody."""
    async with running(folder, store, 2, live_bytes=1 << 20) as (one, other):
        items = [item.item_id for item in one.releases.current.release.catalogue.items]
        post = apply_to(store)
        await post(event(items[5], SINCE, user_id="lamp"), event(items[60], SINCE, user_id="sofa"))
        for replica in (one, other):
            await replica.count()
        asked = {user_id: (await one.ask(user_id))[1] for user_id in ("lamp", "sofa", "nobody")}
        session = await one.ask("nobody", session=(items[60],))
        await settle(one)
        await post(event(items[5], SINCE + 5, user_id="ann"), event(items[110], SINCE + 9, user_id="ann"))
        for replica in (one, other):
            await replica.count()
        runs = one.counted()["runs"]
        assert content((await one.ask("sofa"))[1]) == content(asked["sofa"])
        assert await one.ask("nobody", session=(items[60],)) == session
        assert one.counted()["runs"] == runs, "neither rests on what was taken"
        after = (await one.ask("lamp"))[1]
        assert after.items != asked["lamp"].items
        assert content(after) == content(await one.anew("lamp"))
        assert one.counted()["runs"] == runs + 2
        assert (await one.ask("nobody"))[1].items != asked["nobody"].items
        await settle(one)
        if store.kind == "redis":
            assert content((await other.ask("lamp"))[1]) == content(after)
            assert other.counted() == {"store": 1, "runs": 0}, "versions are equal on every replica"


async def test_whatever_happens_kept_answers_are_those_made_anew(folder: Path, store: Store) -> None:
    """Two replicas, in any order: writes, erasures, looks at the snapshot, reloads, items hidden and shown again."""
    rng = random.Random(0)
    users = [*some_users(folder / "r-a")[:3], "new"]
    async with running(folder, store, 2) as replicas:
        for step in range(40):
            user_id, replica = rng.choice(users), rng.choice(replicas)
            match rng.randrange(9):
                case 0 | 1:
                    catalogue = replica.releases.current.release.catalogue
                    kind = rng.choice(["purchase", "view", "dislike", "remove"])
                    item = catalogue.item_id(rng.randrange(5))
                    await apply_to(store)(event(item, NOW + step, kind, user_id=user_id))
                case 2:
                    await replica.look()
                case 3 if rng.random() < 0.3:
                    await store.erase(user_id)
                    await replica.releases.forget(user_id)
                case 4 if rng.random() < 0.3:
                    point(folder, rng.choice(["r-a", "r-b"]))
                    await replica.releases.reload()
                case 5:
                    items = replica.releases.current.release.catalogue
                    change = ItemChange(items.item_id(rng.randrange(20)), {HIDDEN: rng.random() < 0.5}, step, False)
                    assert await replica.releases.change_items([change]) == ["accepted"]
                case _:
                    choices: list[dict[str, Any]] = [{}, {"n": 3}, {"include_seen": True}]
                    wanted = rng.choice(choices)
                    for _ in range(2):
                        _, served = await replica.ask(user_id, **wanted)
                        assert content(served) == content(await replica.anew(user_id, **wanted)), step
        assert sum(one.counted().get("process", 0) + one.counted().get("store", 0) for one in replicas) > 0
