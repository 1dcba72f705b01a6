"""A Redis that would lose what was accepted is refused or named; replicas are waited for where the operator says so."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from isrf.contract.errors import ConfigError, StoreError
from isrf.contract.event_log import META_KEY, bucket_of
from service.settings import Settings, load_settings
from service.state.connect import open_store
from service.state.item_store import ItemChange
from service.state.redis.durability import ASK_AGAIN_S, Durability
from service.state.redis.store import RedisStore
from service.sync import durability_watch as durable
from service.sync.durability_watch import DurabilityWatch
from service.telemetry.metrics import Metrics
from tests.service.servers import (
    PATIENCE_S,
    RedisCluster,
    RedisServer,
    ServiceProcess,
    apply_to,
    event,
    settings_for,
    wait_until,
)

LOSSES = [
    ("appendonly", "no", "appendonly is no: accepted events are lost when Redis is killed"),
    ("appendfsync", "everysec", "appendfsync is everysec: the last accepted events are lost when its machine fails"),
    ("maxmemory-policy", "allkeys-lru", "maxmemory-policy is allkeys-lru: a full memory makes Redis drop users"),
]


OpenStore = Callable[..., Awaitable[RedisStore]]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[OpenStore]:
    """Opens stores on a server, and closes them whatever becomes of the test: one that is left open breaks others."""
    async with AsyncExitStack() as stack:

        async def open_one(server: RedisServer, **more: Any) -> RedisStore:
            store = await open_store(settings_for(server, tmp_path, **more))
            stack.push_async_callback(store.close)
            assert isinstance(store, RedisStore)
            return store

        yield open_one


async def said_by(server: RedisServer, tmp_path: Path, **more: Any) -> Durability:
    store = await open_store(settings_for(server, tmp_path, **more))
    assert isinstance(store, RedisStore)
    try:
        return await store.durability()
    finally:
        await store.close()


async def test_every_setting_that_loses_something_is_named(own_redis: RedisServer, tmp_path: Path) -> None:
    assert await said_by(own_redis, tmp_path) == Durability()
    with own_redis.client() as client:
        for name, value, sentence in LOSSES:
            before = client.config_get(name)[name]
            client.config_set(name, value)
            assert await said_by(own_redis, tmp_path) == Durability((sentence,))
            client.config_set(name, before)


async def test_every_server_of_a_cluster_is_asked(three_masters: RedisCluster, tmp_path: Path) -> None:
    assert await said_by(three_masters.nodes[0], tmp_path, redis_cluster=True) == Durability()
    name, value, sentence = LOSSES[1]
    with three_masters.nodes[2].client() as client:
        client.config_set(name, value)
        found = await said_by(three_masters.nodes[0], tmp_path, redis_cluster=True)
        client.config_set(name, "always")
    assert found == Durability((sentence,))


async def test_a_server_that_was_away_is_asked_before_it_takes_anything(
    three_masters: RedisCluster, opened: OpenStore
) -> None:
    three_masters.flush()
    # A server on a busy disk takes a while for 64 synced writes; one that is stopped takes for ever.
    gives_up_s = 3.0
    first = await opened(three_masters.nodes[0], redis_cluster=True)
    await first.erase("somebody")  # the store has a secret
    store = await opened(
        three_masters.nodes[0],
        redis_cluster=True,
        redis_write_timeout_s=gives_up_s,
        redis_read_timeout_s=gives_up_s,
    )
    away = three_masters.nodes[2]
    assert away.process is not None
    users = [f"u{k}" for k in range(64)]
    with away.client() as client, ExitStack() as stack:
        client.config_set("appendfsync", "everysec")
        stack.callback(client.config_set, "appendfsync", "always")
        slots = range(10922, 16384)
        its: list[str] = []
        others: list[str] = []
        for user_id in users:
            (its if client.cluster("KEYSLOT", f"isrf:{{b{bucket_of(user_id)}}}:s") in slots else others).append(user_id)

        async def write(*of: str) -> list[str]:
            return list(await apply_to(store)(*(event("x", 1.0, user_id=user_id) for user_id in of)))

        # The secret stands on a server of the others, or the test says nothing.
        assert client.cluster("KEYSLOT", META_KEY) not in slots
        away.process.send_signal(signal.SIGSTOP)
        try:
            # The others take what is theirs, and the one that is away is asked now and then, not by every write.
            began = time.monotonic()
            for _ in range(20):
                assert set(await write(*others[:5])) <= {"accepted", "duplicate"}
            assert time.monotonic() - began < 20 * gives_up_s
        finally:
            away.process.send_signal(signal.SIGCONT)
        await asyncio.sleep(ASK_AGAIN_S)  # the time between two questions is over
        with pytest.raises(StoreError) as refused:
            await write(*its)
        assert refused.value.code == "store.not_durable"
        with pytest.raises(StoreError):
            await write(*others)
        client.config_set("appendfsync", "always")
        assert await write(*its) == ["accepted"] * len(its)
        async with asyncio.timeout(PATIENCE_S):
            while not store.clients.required.is_sure:  # until all have answered in time
                await asyncio.sleep(ASK_AGAIN_S)
                assert await write(*its) == ["duplicate"] * len(its)
        client.config_set("appendfsync", "everysec")
        assert await write(*its) == ["duplicate"] * len(its), "no write asks any more"


async def test_where_config_is_forbidden_info_says_a_part(own_redis: RedisServer, tmp_path: Path) -> None:
    with own_redis.client() as client:
        client.execute_command("ACL", "SETUSER", "ann", "on", ">secret", "~*", "+@all", "-config")
        url = own_redis.url.replace("//", "//ann:secret@")
        store = await open_store(Settings(redis_url=SecretStr(url), state_dir=tmp_path))
        assert isinstance(store, RedisStore)
        assert await store.durability() == Durability((), ("appendfsync",))
        client.config_set("appendonly", "no")
        client.config_set("maxmemory-policy", "volatile-lru")
        found = await store.durability()
        assert [problem.split(" ")[0] for problem in found.problems] == ["appendonly", "maxmemory-policy"]
        client.execute_command("ACL", "SETUSER", "ann", "-info")
        assert await store.durability() == Durability((), ("appendonly", "appendfsync", "maxmemory-policy"))
    await store.close()


@pytest.mark.redis
@pytest.mark.slow
def test_the_service_refuses_such_a_redis_unless_told_otherwise(tiny_release: Path, tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", "--appendonly", "no")
    server.start()
    try:
        code, error = ServiceProcess(tiny_release, tmp_path / "one", REDIS_URL=server.url).refused()
        assert code != 0
        assert "config.redis_durability" in error or "appendonly is no" in error
        assert "ISRF_REDIS_DURABILITY=warn" in error
        told = ServiceProcess(
            tiny_release, tmp_path / "two", REDIS_URL=server.url, ISRF_REDIS_DURABILITY="warn"
        ).start()
        try:
            body = httpx.get(f"{told.url}/readyz", timeout=PATIENCE_S).json()
            assert (body["status"], [one["code"] for one in body["warnings"]]) == ("ready", ["redis_not_durable"])
            assert LOSSES[0][2] in body["warnings"][0]["message"]
            assert "redis_not_durable" in told.log
            assert "isrf_store_durable 0.0" in httpx.get(f"{told.url}/metrics", timeout=PATIENCE_S).text
        finally:
            told.stop()
    finally:
        server.kill()


async def test_what_changes_while_it_runs_is_noticed(
    own_redis: RedisServer, opened: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "EVERY_S", 0.05)
    store, metrics = await opened(own_redis), Metrics()
    assert isinstance(store, RedisStore)
    watch = DurabilityWatch(store, metrics, "require")
    await watch.start()

    async def noticed(codes: list[str], value: float) -> None:
        end = time.monotonic() + PATIENCE_S
        while [one["code"] for one in watch.warnings()] != codes:
            assert time.monotonic() < end
            await asyncio.sleep(0.02)
        assert f"isrf_store_durable {value}" in metrics.exposition().decode()

    await noticed([], 1.0)
    with own_redis.client() as client:
        client.config_set("appendfsync", "no")
        await noticed(["redis_not_durable"], 0.0)
        client.config_set("appendfsync", "always")
        await noticed([], 1.0)
    await watch.close()
    refused = DurabilityWatch(store, metrics, "require")
    with own_redis.client() as client:
        client.config_set("appendonly", "no")
    with pytest.raises(ConfigError, match="appendonly is no"):
        await refused.start()


async def test_a_redis_that_is_not_there_yet_refuses_nobody(own_redis: RedisServer, opened: OpenStore) -> None:
    own_redis.kill()
    store = await opened(own_redis)
    assert isinstance(store, RedisStore)
    watch = DurabilityWatch(store, Metrics(), "require")
    await watch.start()
    assert watch.warnings() == []
    await watch.close()


async def test_a_redis_that_comes_later_takes_nothing_that_it_would_lose(
    own_redis: RedisServer, opened: OpenStore
) -> None:
    own_redis.kill()
    store = await opened(own_redis)
    warned = await opened(own_redis, redis_durability="warn")
    change = ItemChange("lamp", {"price": 1.0}, 1.0, True)
    own_redis.options = ("--appendonly", "no")
    own_redis.start()
    for work in (
        lambda: apply_to(store)(event("x", 1.0)),
        lambda: store.erase("ann"),
        lambda: store.change_items([change], limit=10),
        store.ping,
    ):
        with pytest.raises(StoreError, match="appendonly is no") as refused:
            await work()
        assert refused.value.code == "store.not_durable"
    assert list((await store.read("ann")).history) == []
    assert await apply_to(warned)(event("x", 1.0)) == ["accepted"]
    with own_redis.client() as client:
        client.config_set("appendonly", "yes")
    await store.ping()
    assert await apply_to(store)(event("x", 1.0)) == ["duplicate"]


@pytest.fixture
def pair(own_redis: RedisServer, tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A master and its replica."""
    replica = RedisServer(tmp_path / "replica", "--replicaof", "127.0.0.1", str(own_redis.port))
    replica.start()
    with own_redis.client() as client:
        wait_until(lambda: client.info("replication").get("connected_slaves") == 1, what="the replica")
        wait_until(lambda: client.info("replication")["slave0"]["state"] == "online", what="the replica")
    yield own_redis, replica
    if replica.process is not None:
        replica.process.send_signal(signal.SIGCONT)
    replica.kill()


async def test_what_a_replica_lacks_is_not_accepted_and_can_be_sent_again(
    pair: tuple[RedisServer, RedisServer], opened: OpenStore
) -> None:
    master, replica = pair
    assert replica.process is not None
    store = await opened(master, redis_wait_replicas=1, redis_wait_timeout_s=0.3)
    patient = await opened(master, redis_wait_replicas=1, redis_wait_timeout_s=30)
    one = event("x", 1.0, event_id="e1")
    change = ItemChange("lamp", {"price": 1.0}, 1.0, True)
    assert await apply_to(patient)(event("first", 1.0)) == ["accepted"]
    replica.process.send_signal(signal.SIGSTOP)
    for work in (
        lambda: apply_to(store)(one),
        lambda: apply_to(store)(one),  # a duplicate is none that a failover may lose
        lambda: store.erase("bob"),
        lambda: store.change_items([change], limit=10),
    ):
        with pytest.raises(StoreError) as refused:
            await work()
        assert refused.value.code == "store.not_replicated"
    replica.process.send_signal(signal.SIGCONT)
    assert await apply_to(patient)(one) == ["duplicate"]
    await patient.erase("bob")
    assert await patient.change_items([change], limit=10) == ["accepted"]
    with replica.client() as client:
        assert client.zcard("isrf:{b51}:h:ann") == 2, "what was answered is there"


async def test_every_master_of_a_cluster_waits_for_its_own_replicas(
    three_masters: RedisCluster, opened: OpenStore
) -> None:
    """None of them has one."""
    three_masters.flush()
    master = three_masters.nodes[0]
    store = await opened(master, redis_cluster=True, redis_wait_replicas=1, redis_wait_timeout_s=0.1)
    with pytest.raises(StoreError) as refused:
        await apply_to(store)(*(event("x", 1.0, user_id=f"u{k}") for k in range(30)))
    assert refused.value.code == "store.not_replicated"
    easy = await opened(master, redis_cluster=True)
    assert await apply_to(easy)(*(event("x", 1.0, user_id=f"u{k}") for k in range(30))) == ["duplicate"] * 30


def test_replicas_are_not_waited_for_longer_than_a_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISRF_REDIS_WAIT_REPLICAS", "1")
    monkeypatch.setenv("ISRF_REDIS_WAIT_TIMEOUT_S", str(3.0))
    with pytest.raises(ConfigError, match="ISRF_REDIS_WAIT_TIMEOUT_S"):
        load_settings()
