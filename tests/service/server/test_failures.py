"""A Redis that is slow, read-only or full; several replicas; storms. Long versions stand in tests/soak."""

import asyncio
import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from isrf.contract.errors import StoreError
from isrf.contract.event_log import NUM_BUCKETS, stream_key
from offline.commands.loop_back.redis_source import RedisSource
from offline.commands.loop_back.take_in import take_in
from service.state.connect import open_store
from service.state.redis.store import RedisStore
from tests.service.releases import shopper_of
from tests.service.servers import (
    AS_SERVED,
    PATIENCE_S,
    PATIENT,
    RedisCluster,
    RedisServer,
    ServiceProcess,
    SlowProxy,
    all_of,
    apply_to,
    as_environment,
    check_soon,
    event,
    eventually,
    free_port,
    settings_for,
    wait_until,
)


@pytest.fixture(scope="module")
def items(tiny_release: Path) -> list[str]:
    lines = (tiny_release / "current" / "items.jsonl").read_text().splitlines()
    return [json.loads(line)["item_id"] for line in lines]


@pytest.fixture(scope="module")
def shopper(tiny_release: Path) -> str:
    return shopper_of(tiny_release / "current")


class Replica:
    """A service in front of a Redis that may be ill."""

    def __init__(self, process: ServiceProcess, http: httpx.Client, shopper: str) -> None:
        self.process, self.http, self.shopper = process, http, shopper

    def reads(self, count: int) -> tuple[list[float], set[str]]:
        """Seconds of each read, and what the answers rest on."""
        taken, sources = [], set()
        for _ in range(count):
            began = time.monotonic()
            answer = self.http.get(f"/recommend/{self.shopper}")
            taken.append(time.monotonic() - began)
            assert (answer.status_code, len(answer.json()["items"])) == (200, 10)
            sources.add(answer.json()["meta"]["source"])
        return taken, sources

    def write(self, item_id: str) -> httpx.Response:
        posted = {"user_id": "w", "item_id": item_id, "event_id": uuid.uuid4().hex}
        return self.http.post("/interactions", json={"events": [posted]})

    def readiness(self) -> str:
        status: str = self.http.get("/readyz").json()["status"]
        return status


@pytest.fixture
def replica(tiny_release: Path, tmp_path: Path, shopper: str) -> Iterator[Callable[..., Replica]]:
    started: list[tuple[ServiceProcess, httpx.Client]] = []

    def start(url: str, waits: Mapping[str, object] = PATIENT) -> Replica:
        folder = tmp_path / f"service-{len(started)}"
        more = {"REDIS_URL": url, "ISRF_CROWD_EPOCH_S": "0.5", **as_environment(waits)}
        process = ServiceProcess(tiny_release, folder, **more).start()
        http = httpx.Client(base_url=process.url, timeout=PATIENCE_S)
        started.append((process, http))
        return Replica(process, http, shopper)

    yield start
    for process, http in started:
        http.close()
        process.kill()


def test_a_redis_that_takes_2_seconds_is_not_waited_for(
    own_redis: RedisServer, replica: Callable[..., Replica], items: list[str]
) -> None:
    proxy = SlowProxy(own_redis.port)
    service = replica(proxy.url, AS_SERVED)
    wait_until(lambda: service.reads(1)[1] == {"sequence"}, what="a read in time")
    proxy.delay_s = 2.0
    taken, sources = service.reads(20)
    assert sources == {"bundle:sequence"}
    check_soon(taken, wait_s=proxy.delay_s)
    refused = service.write(items[0])
    assert (refused.status_code, int(refused.headers["retry-after"]) >= 1) == (503, True)
    assert service.readiness() == "degraded"
    proxy.delay_s = 0.0
    wait_until(lambda: service.readiness() == "ready", what="recovery")
    wait_until(lambda: service.reads(1)[1] == {"sequence"}, what="recovery of reads")
    assert service.write(items[0]).json()["accepted"] == 1
    proxy.close()


def test_a_read_that_takes_longer_than_allowed_says_what_it_rests_on(
    own_redis: RedisServer, replica: Callable[..., Replica]
) -> None:
    """Redis is there and answers, only too late: the answer is the release's, and says so."""
    proxy = SlowProxy(own_redis.port)
    service = replica(proxy.url, AS_SERVED)
    proxy.delay_s = 2 * float(AS_SERVED["redis_read_timeout_s"])
    body = service.http.get(f"/recommend/{service.shopper}").json()
    assert body["meta"]["source"] == "bundle:sequence"
    assert [warning["code"] for warning in body["warnings"]] == ["store_unavailable"]
    proxy.close()


def snapshot(client: Any, *, becomes: str) -> None:
    client.bgsave()
    wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == becomes, what="a snapshot")


def failed_save(client: Any) -> None:
    """A snapshot whose place is taken by a folder."""
    place = Path(client.config_get("dir")["dir"]) / "dump.rdb"
    place.unlink(missing_ok=True)
    place.mkdir()
    snapshot(client, becomes="err")


def saved_again(client: Any) -> None:
    (Path(client.config_get("dir")["dir"]) / "dump.rdb").rmdir()
    snapshot(client, becomes="ok")


ILLNESSES: dict[str, tuple[Callable[[Any], object], Callable[[Any], object]]] = {
    "read-only": (lambda c: c.replicaof("127.0.0.1", free_port()), lambda c: c.replicaof("NO", "ONE")),
    "full": (lambda c: c.config_set("maxmemory", 1), lambda c: c.config_set("maxmemory", 0)),
    "a failed snapshot": (failed_save, saved_again),
    "too few replicas": (
        lambda c: c.config_set("min-replicas-to-write", 1),
        lambda c: c.config_set("min-replicas-to-write", 0),
    ),
    "no scripts": (
        lambda c: c.execute_command("ACL", "SETUSER", "default", "-@scripting"),
        lambda c: c.execute_command("ACL", "SETUSER", "default", "+@all"),
    ),
    "no streams": (
        lambda c: c.execute_command("ACL", "SETUSER", "default", "-xadd"),
        lambda c: c.execute_command("ACL", "SETUSER", "default", "+@all"),
    ),
}


@pytest.mark.parametrize("illness", ILLNESSES)
def test_a_redis_that_takes_no_writes_is_read(
    own_redis: RedisServer, replica: Callable[..., Replica], items: list[str], illness: str
) -> None:
    service = replica(own_redis.url)
    assert service.write(items[0]).json()["accepted"] == 1
    fall_ill, recover = ILLNESSES[illness]
    with own_redis.client() as client:
        fall_ill(client)
        wait_until(lambda: service.readiness() == "degraded", what="degradation")
        refused = service.write(items[1])
        assert (refused.status_code, refused.json()["code"]) == (503, "store.unavailable")
        assert service.reads(5)[1] == {"sequence"}, "state can be read"
        assert service.http.get("/users/w").json()["history"] == [items[0]]
        recover(client)
    wait_until(lambda: service.readiness() == "ready", what="recovery")
    assert service.write(items[1]).json()["accepted"] == 1
    assert service.http.get("/users/w").json()["history"] == items[:2]


async def test_one_ill_server_of_a_cluster_is_noticed(three_masters: RedisCluster, tmp_path: Path) -> None:
    store = await open_store(settings_for(three_masters.nodes[0], tmp_path, redis_cluster=True))
    await store.ping()
    for node in three_masters.nodes:
        with node.client() as client:
            client.config_set("maxmemory", 1)
            with pytest.raises(StoreError):
                await store.ping()
            client.config_set("maxmemory", 0)
        await store.ping()
    await store.close()


def test_three_replicas_see_each_others_writes_and_erasures(
    own_redis: RedisServer, replica: Callable[..., Replica], items: list[str], shopper: str
) -> None:
    replicas = [replica(own_redis.url) for _ in range(3)]
    for k in range(12):
        user_id, one = f"u{k}", replicas[k % 3]
        posted = {"user_id": user_id, "item_id": items[k]}
        assert one.http.post("/interactions", json={"events": [posted]}).json()["accepted"] == 1
        for other in replicas:
            assert other.http.get(f"/users/{user_id}").json()["history"] == [items[k]]
    versions = {one.http.get("/recommend/u0").json()["meta"]["user_version"] for one in replicas}
    assert len(versions) == 1
    assert replicas[0].http.delete(f"/users/{shopper}").status_code == 204
    for one in replicas:
        assert one.http.get(f"/users/{shopper}").json()["history"] == []
        assert one.http.get(f"/recommend/{shopper}").json()["meta"]["source"] == "popular"
    replicas[1].process.kill()
    replicas[1].process.start()

    def all_know() -> bool:
        """Without Redis there is nobody to ask."""
        own_redis.kill()
        sources = [one.http.get(f"/recommend/{shopper}").json()["meta"]["source"] for one in replicas]
        own_redis.start()
        return sources == ["bundle:popular"] * 3

    wait_until(all_know, what="the next epoch")


def test_new_users_find_each_other_before_the_next_release(
    tiny_release: Path, own_redis: RedisServer, replica: Callable[..., Replica], items: list[str]
) -> None:
    """Over two replicas: what the one took is evidence for the other, until the one is erased."""
    here, there = replica(own_redis.url), replica(own_redis.url)
    common, extra = items[40:48], items[100]
    line = (tiny_release / "current" / "items.jsonl").read_text().splitlines()[100]
    category = json.loads(line)["categories"][-1]

    def post(one: Replica, user_id: str, taken: list[str]) -> None:
        events = [{"user_id": user_id, "item_id": item, "event": "view"} for item in taken]
        assert one.http.post("/interactions", json={"events": events}).json()["accepted"] == len(taken)

    def witnesses() -> int:
        """Similar users of ann who took the extra item."""
        # All of a category, so that the item is on the list whatever its rank.
        wanted = {"n": 200, "explain": True, "category": category}
        body = here.http.get("/recommend/ann", params=wanted).json()
        reasons = [item["reasons"] for item in body["items"] if item["item_id"] == extra]
        return sum(reason.get("similar_users", 0) for reason in reasons[0])

    post(here, "ann", common)
    before = witnesses()
    version = here.http.get("/users/ann").json()["version"]
    post(there, "bob", [extra, *common])
    wait_until(lambda: witnesses() == before + 1, what="bob")
    assert here.http.get("/users/ann").json()["version"] == version
    assert there.http.delete("/users/bob").status_code == 204
    wait_until(lambda: witnesses() == before, what="bob's leave")


async def storm(post: Callable[..., Any], clients: int, events: int) -> list[list[str]]:
    posted = [event(f"i{k}", float(k), user_id=f"u{k % 97}") for k in range(events)]

    async def client(number: int) -> list[str]:
        outcomes: list[str] = []
        for start in range(0, events, 100):
            outcomes += await post(*posted[start : start + 100])
        return outcomes

    return await all_of([client(number) for number in range(clients)])


async def test_a_storm_of_duplicates_counts_each_once(redis_server: RedisServer, tmp_path: Path) -> None:
    with redis_server.client() as client:
        client.flushall()
        store = await open_store(settings_for(redis_server, tmp_path))
        answers = await storm(apply_to(store), 8, 1000)
        assert all(sorted(one) == ["accepted", *["duplicate"] * 7] for one in zip(*answers, strict=True))
        assert sum(client.xlen(stream_key(bucket)) for bucket in range(NUM_BUCKETS)) == 1000
        await store.close()


async def test_a_cluster_of_three_masters(three_masters: RedisCluster, tmp_path: Path) -> None:
    three_masters.flush()
    settings = settings_for(three_masters.nodes[0], tmp_path, redis_cluster=True)
    store = await open_store(settings)
    answers = await storm(apply_to(store), 3, 300)
    assert all(sorted(one) == ["accepted", "duplicate", "duplicate"] for one in zip(*answers, strict=True))
    held = [entry.item_id for k in range(97) for entry in (await store.read(f"u{k}")).history]
    assert sorted(held) == sorted(f"i{k}" for k in range(300))
    records = await store.read_many([f"u{k}" for k in range(97)])
    assert sum(len(record.history) for record in records) == 300
    await store.erase("u5")
    erased = await store.erased()
    assert erased is not None
    assert [erased.holds("u5"), erased.holds("u6")] == [True, False]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "interactions.csv").write_text("user_id,item_id,timestamp\nu5,x,1\n")
    done = await asyncio.to_thread(take_in, three_masters.url, tmp_path / "data")
    theirs = len([k for k in range(300) if k % 97 == 5])
    assert (done.events, done.forgotten_rows) == (300 - theirs, 1)
    await store.close()


@pytest.mark.redis
@pytest.mark.slow
@pytest.mark.parametrize("restarted", [False, True], ids=["", "restarted"])
async def test_a_cluster_that_lost_a_master_takes_what_the_others_can(tmp_path: Path, restarted: bool) -> None:
    cluster = RedisCluster(tmp_path)
    for node in cluster.nodes:
        node.options = (*node.options[:2], "--cluster-require-full-coverage", "no", *node.options[2:])
    cluster.start()
    try:
        settings = settings_for(cluster.nodes[0], tmp_path, redis_cluster=True)
        store = await open_store(settings)
        users = [f"u{k}" for k in range(30)]
        await apply_to(store)(*(event("x", 1.0, user_id=user) for user in users))
        cluster.nodes[2].kill()
        outcomes: set[str] = set()
        if restarted:
            await store.close()
            store = await open_store(settings)
        for user in users:
            try:
                outcomes |= {*(await apply_to(store)(event("y", 2.0, user_id=user)))}
            except StoreError:
                outcomes.add("refused")
        assert outcomes == {"accepted", "refused"}
        cluster.nodes[2].start()

        async def take_all() -> None:
            taken = await apply_to(store)(*(event("y", 2.0, user_id=user) for user in users))
            if "unavailable" in taken:
                raise StoreError("store.unavailable", "not all of the cluster is there yet.")

        await eventually(take_all, what="the master's return")
        await store.close()
    finally:
        cluster.kill()


@pytest.mark.redis
async def test_a_cluster_that_is_gone_is_a_store_that_is_gone(tmp_path: Path) -> None:
    cluster = RedisCluster(tmp_path)
    cluster.start()
    store = await open_store(settings_for(cluster.nodes[0], tmp_path, redis_cluster=True, **AS_SERVED))
    try:
        assert await apply_to(store)(event("x", 1.0)) == ["accepted"]
        cluster.kill()
        for _ in range(2):
            asked = [store.read("ann"), store.read_many(["ann"]), store.ping(), store.erase("ann"), store.items(None)]
            for one in [*asked, apply_to(store)(event("y", 2.0)), anext(store.accepted()), store.counts()]:
                with pytest.raises(StoreError):
                    await one
    finally:
        await store.close()
        cluster.kill()


@pytest.mark.redis
async def test_a_cluster_that_went_away_stops_the_loop_with_an_error_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = RedisCluster(tmp_path)
    cluster.start()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "interactions.csv").write_text("user_id,item_id,timestamp\nann,x,1\n")
    read = RedisSource.read

    def gone(self: RedisSource, cursors: Mapping[int, Any]) -> Any:
        cluster.kill()
        return read(self, cursors)

    monkeypatch.setattr(RedisSource, "read", gone)
    try:
        with pytest.raises(StoreError):
            await asyncio.to_thread(take_in, cluster.url, tmp_path / "data")
    finally:
        cluster.kill()


async def test_connections_of_a_cluster_that_break_under_load_are_errors_of_the_store(
    three_masters: RedisCluster, tmp_path: Path
) -> None:
    """After one failure the client closes the other connections of a node, whoever has just taken one."""
    three_masters.flush()
    settings = settings_for(three_masters.nodes[0], tmp_path, redis_cluster=True)
    store = await open_store(settings)
    await apply_to(store)(event("x", 1.0))
    assert isinstance(store, RedisStore)
    clients = [store.clients.reads, store.clients.writes]
    ends = time.monotonic() + 3.0

    async def uses(number: int) -> None:
        while time.monotonic() < ends:
            with contextlib.suppress(StoreError):
                await apply_to(store)(*(event("x", user_id=f"u{number}-{k}") for k in range(5)))
                await store.read(f"u{number}-0")

    async def breaks() -> None:
        while time.monotonic() < ends:
            for client in clients:
                await all_of([node.disconnect_free_connections() for node in client.get_nodes()])
            await asyncio.sleep(0)

    await all_of([*(uses(number) for number in range(12)), breaks()])
    await store.close()


async def test_closing_closes_both_clients_whatever_the_first_says(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis_server.client() as client:
        before = {one["id"] for one in client.client_list()}
    store = await open_store(settings_for(redis_server, tmp_path))
    await apply_to(store)(event("x"))
    await store.read("ann")
    assert isinstance(store, RedisStore)
    reads = store.clients.reads.connection_pool
    disconnect = reads.disconnect

    async def too_slow(**more: Any) -> None:
        await disconnect(**more)
        raise redis.exceptions.TimeoutError("Timed out closing connection")

    monkeypatch.setattr(reads, "disconnect", too_slow)
    with redis_server.client() as client:

        def connections() -> set[str]:
            return {one["id"] for one in client.client_list()}

        opened = connections() - before
        assert len(opened) >= 3, "of both clients, and this one"
        await store.close()
        own = str(client.client_id())
        wait_until(lambda: not (opened - {own}) & connections(), what="the end of both clients' connections")


def test_hostile_events_are_answered_each_in_its_own_right(
    redis_server: RedisServer, replica: Callable[..., Replica], items: list[str]
) -> None:
    http = replica(redis_server.url).http
    now = time.time()
    hostile: list[tuple[dict[str, Any], str]] = [
        ({"timestamp": now + 90_000}, "timestamp_in_future"),
        ({"timestamp": now * 1000}, "timestamp_in_future"),
        ({"timestamp": 10**400}, "invalid_timestamp"),
        ({"timestamp": -1}, "invalid_timestamp"),
        ({"timestamp": "yesterday"}, "invalid_event"),
        ({"timestamp": True}, "invalid_event"),
        ({"user_id": "u" * 10_000}, "invalid_user_id"),
        ({"user_id": ""}, "invalid_user_id"),
        ({"user_id": "a\nb"}, "invalid_user_id"),
        ({"item_id": "i" * 10_000}, "invalid_item_id"),
        ({"item_id": "nothing of the kind"}, "unknown_item"),
        ({"event_id": "e" * 10_000}, "invalid_event_id"),
        ({"event": "é" * 60}, "invalid_event_type"),
        ({"event": "view\x00"}, "invalid_event_type"),
        ({"surprise": 1}, "invalid_event"),
    ]
    user_id = uuid.uuid4().hex
    good = {"user_id": user_id, "item_id": items[0], "timestamp": 0}
    posted = [good, *({"user_id": user_id, "item_id": items[1], **bad} for bad, _ in hostile), good]
    headers = {"content-type": "application/json"}
    body = http.post("/interactions", content=json.dumps({"events": posted}), headers=headers).json()
    answers = [result.get("reason") or result["status"] for result in body["results"]]
    assert answers == ["accepted", *(reason for _, reason in hostile), "duplicate"]
    assert http.get(f"/users/{user_id}").json()["history"] == [items[0]]


def test_clients_of_http_post_the_same_thousand_events_at_once(
    redis_server: RedisServer, replica: Callable[..., Replica], items: list[str]
) -> None:
    service = replica(redis_server.url)
    run = uuid.uuid4().hex
    posted = [
        {"user_id": f"{run}-{k % 50}", "item_id": items[k % len(items)], "event_id": f"{run}-{k}"} for k in range(1000)
    ]
    counts: list[tuple[int, int, int]] = []

    def client() -> None:
        url = f"{service.process.url}/interactions"
        while (answer := httpx.post(url, json={"events": posted}, timeout=PATIENCE_S)).status_code == 503:
            time.sleep(int(answer.headers["Retry-After"]))  # a machine that is slow today asks for patience
        body = answer.json()
        counts.append((body["accepted"], body["duplicates"], body["refused"]))

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sum(column) for column in zip(*counts, strict=True)] == [1000, 7000, 0]
