"""What only a Redis can do to state: lose its data, lose half of a write, refuse writes, hold what others wrote."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from isrf.contract.errors import StoreError
from isrf.contract.event_log import (
    META_KEY,
    NUM_BUCKETS,
    PURGE_PAGE,
    REMEMBER_S,
    TOMBSTONE_SECRET,
    bucket_of,
    stream_key,
    tombstone_key,
)
from service.state.connect import open_store
from service.state.records import Applied, Cached
from service.state.redis import room
from service.state.redis.keys import event_digest
from service.state.redis.scripts import ScriptCall, Scripts
from service.state.redis.users import event_writes
from service.state.redis.users.erasure import Erasure
from service.state.store import Store
from tests.service.servers import RedisCluster, RedisServer, apply_to, event, let_pass, read_events, settings_for

Open = Callable[[], Awaitable[Store]]


@pytest.fixture
async def replicas(redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens another replica of one empty store."""
    with redis_server.client() as client:
        client.flushall()
    opened: list[Store] = []

    async def another() -> Store:
        opened.append(await open_store(settings_for(redis_server, tmp_path)))
        return opened[-1]

    yield another
    for store in opened:
        await store.close()


def lose(server: RedisServer) -> None:
    with server.client() as client:
        client.flushall()


async def check_erased(user_id: str, *stores: Store) -> None:
    """For whoever reads, writes, or asks for everybody who was erased."""
    for store in stores:
        assert (await store.read(user_id)).erased
        assert [one.erased for one in await store.read_many(["somebody", user_id])] == [False, True]
        erased = await store.erased()
        assert erased is not None
        assert (erased.holds(user_id), erased.holds("somebody")) == (True, False)
        assert await store.apply(read_events(event("x", 1.0, user_id=user_id))) == [Applied("erased")]


@pytest.mark.parametrize("known_first", [True, False], ids=["both knew the secret", "the other one did not"])
@pytest.mark.parametrize("fresh_first", [True, False], ids=["a fresh replica told its secret", "nobody did"])
async def test_an_erasure_after_the_data_was_lost_holds_everywhere(
    replicas: Open, redis_server: RedisServer, known_first: bool, fresh_first: bool
) -> None:
    one, other = await replicas(), await replicas()
    await one.erase("before")
    if known_first:
        await check_erased("before", other)
    lose(redis_server)
    if fresh_first:
        assert not (await (await replicas()).read("ann")).erased
    await one.erase("ann")
    third = await replicas()
    await check_erased("ann", one, other, third)
    # The other way round, and once more.
    await other.erase("bob")
    lose(redis_server)
    await third.erase("eve")
    await one.erase("dan")
    fourth = await replicas()
    for user_id in ("eve", "dan"):
        await check_erased(user_id, one, other, third, fourth)
    await check_erased("bob", one, other, third, fourth)  # whoever erased him has written him back


async def test_events_of_other_users_are_stored_where_a_bucket_cannot_be_written(
    replicas: Open, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await replicas()
    post = apply_to(store)
    assert await post(event("x", 1.0)) == ["accepted"]
    with redis_server.client() as client:
        client.hset(tombstone_key(bucket_of("ann")), TOMBSTONE_SECRET, "another secret")

    async def fail(*_: object) -> bool:
        raise ConnectionError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(Erasure, "refresh", fail)
        assert await post(event("y", 2.0), event("y", 2.0, user_id="bob")) == ["unavailable", "accepted"]
        with pytest.raises(StoreError):
            await post(event("y", 3.0))
    assert [entry.item_id for entry in (await store.read("bob")).history] == ["y"]


@pytest.mark.parametrize("asks", ["read", "read_many", "erased", "apply"])
async def test_a_replica_notices_another_secret_whatever_it_asks_first(
    replicas: Open, redis_server: RedisServer, asks: str
) -> None:
    stale = await replicas()
    await stale.erase("ann")
    await stale.erased()
    lose(redis_server)
    fresh = await replicas()
    await fresh.erase("ann")
    if asks == "read":
        assert (await stale.read("ann")).erased
    elif asks == "read_many":
        assert (await stale.read_many(["ann"]))[0].erased
    elif asks == "erased":
        erased = await stale.erased()
        assert erased is not None
        assert erased.holds("ann")
    else:
        assert await apply_to(stale)(event("x", 1.0)) == ["erased"]


async def test_other_erasures_after_a_loss_are_not_taken_for_those_before(
    replicas: Open, redis_server: RedisServer
) -> None:
    """The same number of them, in the same bucket."""
    store = await replicas()
    ann = "ann"
    other = next(f"u{k}" for k in range(1000) if bucket_of(f"u{k}") == bucket_of(ann))
    await store.erase(ann)
    before = await store.erased()
    lose(redis_server)
    await store.erase(other)
    after = await store.erased()
    assert before is not None
    assert after is not None
    assert (after.holds(other), after.holds(ann), after.counts != before.counts) == (True, True, True)


async def test_what_is_known_of_an_erased_users_ids_can_be_read_by_nobody(
    replicas: Open, redis_server: RedisServer
) -> None:
    store = await replicas()
    one = event("x", event_id="order-1", user_id="ann-of-cleves")
    assert await apply_to(store)(one, event("y", 5.0, user_id="ann-of-cleves")) == ["accepted"] * 2
    digests = [event_digest(each) for each in read_events(one, event("y", 5.0, user_id="ann-of-cleves"))]
    assert stored(redis_server, "ann-of-cleves", *digests) == ["ann-of-cleves", *digests]
    await store.erase("ann-of-cleves")
    assert stored(redis_server, "ann-of-cleves", "order-1", *digests) == []
    assert await apply_to(await replicas())(one) == ["erased"], "on every replica"
    with redis_server.client() as client:
        (kept,) = client.keys("isrf:{b*}:f:*")
        assert 0 < client.ttl(kept) <= REMEMBER_S


def stored(server: RedisServer, *texts: str) -> list[str]:
    """Which of them stand somewhere in the server, in a key or in what it holds."""
    found: list[object] = []
    with server.client() as client:
        for key in client.keys("*"):
            kind = client.type(key)
            ask = {
                b"string": client.get,
                b"hash": client.hgetall,
                b"zset": lambda key: client.zrange(key, 0, -1),
                b"stream": client.xrange,
            }[kind]
            found += [key, ask(key)]
    said = repr(found)
    return [text for text in texts if text in said]


async def test_an_export_asks_for_erasures_page_by_page(replicas: Open, redis_server: RedisServer) -> None:
    store = await replicas()
    await apply_to(store)(*(event("x", 1.0, user_id=f"u{k}") for k in range(300)))
    with redis_server.client() as client:
        client.config_resetstat()
        pages = [page async for page in store.accepted()]
        asked = client.info("commandstats")
    assert sum(map(len, pages)) == 300
    assert "cmdstat_hget" not in asked
    assert asked["cmdstat_hmget"]["calls"] <= NUM_BUCKETS


async def test_erasures_that_a_replica_saw_are_written_back(replicas: Open, redis_server: RedisServer) -> None:
    one, other = await replicas(), await replicas()
    for user_id in ("ann", "bob"):
        await one.erase(user_id)
    seen = await other.erased()
    lose(redis_server)
    again = await other.erased()
    assert seen is not None
    assert again is not None
    assert (again.names, again.counts != seen.counts) == (seen.names, True)
    for user_id in ("ann", "bob"):
        await check_erased(user_id, one, other, await replicas())
    lose(redis_server)
    await (await replicas()).erase("eve")
    await check_erased("eve", one, other)
    with redis_server.client() as client:
        assert sum(client.hlen(tombstone_key(bucket)) for bucket in range(NUM_BUCKETS)) == 3, "names of another secret"


@pytest.mark.parametrize("looked_before", [False, True])
async def test_an_erasure_is_written_back_by_who_made_it(
    replicas: Open, redis_server: RedisServer, looked_before: bool
) -> None:
    """The data is lost before anybody's next look."""
    one, other = await replicas(), await replicas()
    if looked_before:
        await other.erase("bob")
        await one.erased()
    await one.erase("ann")
    lose(redis_server)
    await one.erased()
    await check_erased("ann", one, other, await replicas())
    if looked_before:
        await check_erased("bob", one, other)


async def test_a_server_that_restarts_empty_learns_the_secret_again(own_redis: RedisServer, tmp_path: Path) -> None:
    one = await open_store(settings_for(own_redis, tmp_path))
    await one.erase("ann")
    own_redis.kill()
    for path in own_redis.folder.rglob("*"):
        if path.is_file() and path.name != "log":
            path.unlink()
    own_redis.start()
    await one.erase("ann")
    other = await open_store(settings_for(own_redis, tmp_path))
    await check_erased("ann", one, other)
    for store in (one, other):
        await store.close()


async def test_where_only_the_secret_was_lost_the_tombstones_have_it(replicas: Open, redis_server: RedisServer) -> None:
    """One server of a cluster lost its data, the others did not."""
    await (await replicas()).erase("ann")
    with redis_server.client() as client:
        client.delete(META_KEY)
        await check_erased("ann", await replicas())
        assert client.hget(META_KEY, "secret") == client.hget(tombstone_key(bucket_of("ann")), TOMBSTONE_SECRET)


async def test_data_lost_in_the_middle_of_an_erasure(
    replicas: Open, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await replicas()
    await one.erase("somebody")
    original, losses = Scripts.run_one, 0

    async def losing(scripts: Scripts, script: str, call: ScriptCall) -> Any:
        nonlocal losses
        answer = await original(scripts, script, call)
        if losses < 2:
            losses += 1
            lose(redis_server)
            if losses == 2:
                await (await replicas()).read("ann")
        return answer

    with monkeypatch.context() as patched:
        patched.setattr(Scripts, "run_one", losing)
        await one.erase("ann")
    assert losses == 2
    await check_erased("ann", one, await replicas())


async def claim_alone(store: Store, posted: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies after the claim of the event's id."""

    class Died(BaseException):
        pass

    run = Scripts.run

    async def run_until_claimed(scripts: Scripts, script: str, calls: Sequence[ScriptCall]) -> list[Any]:
        if script == event_writes.SCRIPT:
            raise Died
        return await run(scripts, script, calls)

    await store.read("ann")
    with monkeypatch.context() as patched:
        patched.setattr(Scripts, "run", run_until_claimed)
        with pytest.raises(Died):
            await apply_to(store)(posted)


async def test_a_claim_without_its_event_brings_no_erased_user_back(
    replicas: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await replicas()
    one, later = event("x", event_id="e1"), event("y", event_id="e2")
    await claim_alone(store, one, monkeypatch)
    await let_pass(store, 5)
    await store.erase("ann")
    assert await apply_to(store)(one) == ["erased"]
    await claim_alone(store, later, monkeypatch)
    assert await apply_to(store)(later) == ["accepted"], "what came after the erasure is not hidden"
    assert await apply_to(store)(one, later) == ["erased", "duplicate"]


async def test_a_claim_without_its_event_hides_nothing(replicas: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies between the two writes, and the shop sends the event again, to another replica."""

    one, other = await replicas(), await replicas()
    await claim_alone(one, event("x", 1.0, event_id="e1"), monkeypatch)
    assert await other.apply(read_events(event("y", 1.0, event_id="e1"))) == [Applied("reused", "x", "")]
    assert await apply_to(other)(event("x", 1.0, event_id="e1")) == ["accepted"]
    assert await apply_to(one)(event("x", 1.0, event_id="e1")) == ["duplicate"]


async def test_one_id_through_two_replicas_of_a_cluster(three_masters: RedisCluster, tmp_path: Path) -> None:
    """The users' slots lie on different servers, and the id's on one of them."""
    three_masters.flush()
    settings = settings_for(three_masters.nodes[0], tmp_path, redis_cluster=True)
    one, other = await open_store(settings), await open_store(settings)
    for k in range(12):
        first, second = (event("x", 1.0, user_id=f"{name}{k}", event_id=f"e{k}") for name in ("a", "b"))
        outcomes = [await apply_to(one)(first), await apply_to(other)(second), await apply_to(other)(first)]
        assert outcomes == [["accepted"], ["reused"], ["duplicate"]]
    for store in (one, other):
        await store.close()


async def test_nothing_of_an_erased_user_can_be_read_in_any_key(replicas: Open, redis_server: RedisServer) -> None:
    store = await replicas()
    user_id = "ann-of-the-green-gables"
    await apply_to(store)(*(event(f"x{k}", None, user_id=user_id, event_id=f"order-{k}") for k in range(5)))
    await store.erase(user_id)
    with redis_server.client() as client:
        kept = b"".join(key + (client.dump(key) or b"") for key in client.keys("*"))
        claims = [client.get(key) for key in client.keys("isrf:*:c:*")]
    assert user_id.encode() not in kept
    assert len(claims) == 5
    assert len({claim.split(b"\n")[1] for claim in claims}) == 5, "nor that two were of one user"


async def test_erasing_somebody_unknown_is_cheap(replicas: Open, redis_server: RedisServer) -> None:
    """Beside a full stream: a call for each thousand entries, and none of them comes over the wire."""
    store = await replicas()
    await store.erase("somebody")
    bucket = bucket_of("nobody")
    ours = [f"u{k}" for k in range(200_000) if bucket_of(f"u{k}") == bucket][:1500]
    for start in range(0, len(ours), 500):
        await store.apply(read_events(*(event("x", 1.0, "view", user_id=name) for name in ours[start : start + 500])))
    with redis_server.client() as client:
        assert client.xlen(stream_key(bucket)) == len(ours)
        client.config_resetstat()
        await store.erase("nobody")
        calls = {name: one["calls"] for name, one in client.info("commandstats").items()}
        sent = client.info("stats")["total_net_output_bytes"]
    asked = sum(calls.get(f"cmdstat_{name}", 0) for name in ("eval", "evalsha"))
    assert asked <= 2 + len(ours) / PURGE_PAGE
    assert "cmdstat_xdel" not in calls
    assert sent < 20_000


async def test_an_erasure_finds_every_entry_of_a_long_stream(replicas: Open, redis_server: RedisServer) -> None:
    store = await replicas()
    names = ["ann", *[name for name in (f"u{k}" for k in range(9000)) if bucket_of(name) == bucket_of("ann")][:3]]
    like = ['ann"', "ann\\", "annn", "an"]
    posted = [event(f"x{k}", float(k), "view", user_id=names[k % 4]) for k in range(2 * PURGE_PAGE + 10)]
    for start in range(0, len(posted), 500):
        await store.apply(read_events(*posted[start : start + 500]))
    await store.apply(read_events(*(event("x", 1.0, user_id=name) for name in like)))
    await store.erase("ann")
    kept = [one.user_id async for page in store.accepted() for one in page]
    assert sorted(set(kept)) == sorted({*names[1:], *like})
    with redis_server.client() as client:
        left = client.xlen(stream_key(bucket_of("ann")))
    assert left == sum(one["user_id"] != "ann" for one in posted) + sum(
        bucket_of(name) == bucket_of("ann") for name in like
    )
    for name in like:
        await store.erase(name)
    assert like[0] not in [one.user_id async for page in store.accepted() for one in page]


@pytest.fixture
async def closing() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def test_what_can_be_made_again_leaves_room_for_events(
    own_redis: RedisServer, tmp_path: Path, closing: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists and answers filled Redis, which then refused every event."""
    monkeypatch.setattr(room, "EVERY_S", 0.0)
    store = await open_store(settings_for(own_redis, tmp_path))
    closing.push_async_callback(store.close)
    apply = apply_to(store)
    assert await apply(event("x")) == ["accepted"]
    with own_redis.client() as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 16 * 2**20)
        for k in range(40):
            # 24 MB in all
            await store.keep_lists({f"list-{k}-{j}": b"l" * 3000 for j in range(100)}, 900)
            for j in range(100):
                await store.keep(f"u{k}-{j}", "0", answer=Cached(b"a" * 3000, 300))
        assert client.dbsize() > 1000, "they are kept while there is room"
        assert await store.read_list("list-0-0") is not None
        assert await apply(event("y")) == ["accepted"]
        await store.ping()
        client.config_set("maxmemory", 0)
    await store.keep_lists({"more": b"l"}, 900)
    assert await store.read_list("more") == b"l", "again when there is room"
