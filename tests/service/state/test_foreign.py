"""Whatever others write under our keys, nobody is answered 500: answers do without state, writes are refused by name.

Every kind of content is planted into every kind of key, and every route is called.
"""

import contextlib
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from isrf.contract.event_log import (
    META_KEY,
    bucket_of,
    erased_ids_key,
    secret_of,
    stream_key,
    tombstone_key,
    tombstone_name,
    user_keys,
)
from isrf.contract.item_changes import ADDED_KEY, COUNT_KEY, ENTRIES_KEY, ORDER_KEY
from service.auth import rate
from service.auth.rate import RateLimiter
from service.state.connect import open_store
from service.state.records import NOBODY
from service.state.redis.counters import COUNTS_KEY
from service.state.redis.users.claims import claim_of
from service.state.user_store import nobody_recent
from tests.service.servers import PATIENCE_S, RedisServer, ServiceProcess, event, read_events, settings_for

USER, OTHER = "ann", "somebody else"
BUCKET = bucket_of(USER)
KINDS = dict(zip("vhxega", user_keys(USER), strict=True))

STRINGS = {
    "empty": b"",
    "bytes": b"\xff\xfe\x00\x80",
    "words": b"not what is expected",
    "number": b"12",
    "minus": b"-1",
    "huge": b"9" * 40,
    "nan": b"nan",
    "json": b'{"a": [1, null, "x"]}',
    "broken json": b'{"a": ',
    "lines": b"a\nb\nc\n\n",
    "zlib": zlib.compress(b"[1,2"),
    "version": b"abc.7@nan",
    "far version": b"abc.7@99999999999999999999",
    "sixteen": b"0123456789abcdef" + zlib.compress(b"[]"),
}
MEMBERS = [b"", b"\xff\xfe", b"words", b"item\nnan", b"item\ninf", b"item\n-5", b"item\n1e400", b"a\nb\nc\nd", b"\n"]
MARKS = [b"", b"\xff\xfe", b"words", b"Bnan", b"B", b"Binf", b"B-1", b";;", b"B1;D", b"Bx;R2", b"B1e400", b"12"]
STONES = [
    b"", b"\xff\xfe", b"words", b"a b c", b"a 0-0 nan", b"a 0-0", b"a x-y 5", b"12", b"a 0-0 -3", b"a 0-0 1e400",
]  # fmt: skip
SECRETS = [
    b"",
    b"\xff\xfe",
    b"words",
    b"generated",
    b"generated zz",
    b"generated ",
    b"given",
    b"given abc",
    b"\xc3\xbc x",
]
ENTRIES = [
    b"", b"\xff\xfe", b"words", b"12", b"[]", b"null", b'{"price": 1}', b'{"price": ["x", 1]}', b'{"price": [1, "x"]}',
    b'{"price": [1, NaN]}', b'{"categories": [7, 1]}', b'{"other": [7, 1]}', b'{"title": [7, 1]}',
    b'{"metadata": [7, 1]}',
    b'{"price": [1e400, 1]}', b'{"available": ["no", 1]}', b'{"title": [null]}', b'{"price": [-1, 1]}',
]  # fmt: skip
COUNTS = [b"", b"\xff\xfe", b"words", b"-5", b"9" * 40, b"nan", b"1.5"]
FIELDS: list[dict[bytes, bytes]] = [
    {b"x": b"y"}, {b"e": b""}, {b"e": b"\xff"}, {b"e": b"[]"}, {b"e": b"{}"}, {b"e": b"[1,2,3,4,5,6,7,8]"},
    {b"e": b"null"},
    {b"e": json.dumps([USER, 1, None, [], "x", 3, {}, "y"]).encode()}, {b"e": b'["ann"]'}, {b"\xff": b"\xff"},
]  # fmt: skip


WITHOUT_STATE = (
    "GET /recommend", "POST /recommend", "POST /rank", "GET /similar", "GET /popular", "GET /items", "GET /users",
    "GET /readyz",
)  # fmt: skip


def plants(client: Any, item_id: str, list_id: str) -> Iterator[str]:
    """Puts one thing after the other in its place, and says what it is."""
    (named,) = read_events(event(item_id, event_id="e1"))
    claim = claim_of(named, b"any").key
    strings = {**{k: KINDS[k] for k in "vga"}, "claim": claim, "list": f"isrf:l:{list_id}"}
    for kind, key in strings.items():
        for name, text in STRINGS.items():
            client.set(key, text)
            yield f"{kind}: {name}"
    record = client.hget(META_KEY, "secret")
    name = tombstone_name(secret_of(record.decode(), None), USER)
    every = [*KINDS.values(), erased_ids_key(BUCKET, name), claim, f"isrf:l:{list_id}", tombstone_key(BUCKET)]
    every += [stream_key(BUCKET), META_KEY, ENTRIES_KEY, ORDER_KEY, COUNT_KEY, ADDED_KEY, COUNTS_KEY]
    puts: dict[str, Callable[[str], object]] = {
        "string": lambda k: client.set(k, b"x"),
        "list": lambda k: client.rpush(k, b"x"),
        "set": lambda k: client.sadd(k, b"\xff"),
        "hash": lambda k: client.hset(k, b"\xff", b"\xff"),
        "zset": lambda k: client.zadd(k, {b"\xff": 1.0}),
        "stream": lambda k: client.xadd(k, {b"x": b"y"}),
    }
    for key in every:
        for kind, put in puts.items():
            client.delete(key)
            put(key)
            yield f"{key} is a {kind}"
    for member in MEMBERS:
        client.zadd(KINDS["h"], {member: float("inf") if member == b"words" else 1.0})
        yield f"h: {member!r}"
        client.zadd(KINDS["e"], {member: 1.0})
        yield f"e: {member!r}"
        client.zadd(ORDER_KEY, {member: 10.0**9})
        yield f"order: {member!r}"
    for text in MARKS:
        for field in (item_id, b"\xff"):
            client.hset(KINDS["x"], field, text)
            yield f"x: {field!r} {text!r}"
    for text in STONES:
        client.hset(tombstone_key(BUCKET), name, text)
        yield f"t: {text!r}"
    for field in (b"n", b"s", b"\xff"):
        for text in (*COUNTS, *SECRETS):
            client.hset(tombstone_key(BUCKET), field, text)
            yield f"t {field!r}: {text!r}"
    for text in SECRETS:
        client.hset(META_KEY, "secret", text)
        yield f"meta: {text!r}"
    for text in ENTRIES:
        client.hset(ENTRIES_KEY, item_id, text)
        client.zadd(ORDER_KEY, {item_id: 10.0**9})
        yield f"item: {text!r}"
    for field in ("id", "n"):
        for text in COUNTS:
            client.hset(COUNT_KEY, field, text)
            yield f"items' {field}: {text!r}"
    for field in (b"", b"\xff", b"words", b"a\tb\tc\td", b"shown\tr\ts", b"shown\tr\ts\tc\td", b"answers\tr\ts\t"):
        for text in (b"7", b"x", b"\xff"):
            client.hset(COUNTS_KEY, field, text)
            yield f"counts: {field!r} {text!r}"
    for fields in FIELDS:
        client.xadd(stream_key(BUCKET), fields)
        yield f"s: {fields!r}"


def calls(http: httpx.Client, item_id: str, list_id: str) -> Iterator[tuple[str, httpx.Response]]:
    """Every route; reads of the user first, then writes, then what concerns everybody."""
    one = {"user_id": USER, "item_id": item_id}
    for method, path, more in (
        ("GET", f"/recommend/{USER}", {"params": {"n": 5}}),
        ("GET", f"/recommend/{USER}", {"params": {"recommendation_id": list_id, "offset": 2, "n": 2}}),
        ("POST", "/recommend", {"json": {"history": [item_id], "user_id": USER}}),
        ("POST", "/recommend", {"json": {"users": [USER, OTHER]}}),
        ("POST", "/rank", {"json": {"candidates": [item_id], "user_id": USER}}),
        ("GET", f"/similar/{item_id}", {}),
        ("GET", "/popular", {}),
        ("GET", f"/items/{item_id}", {}),
        ("GET", f"/users/{USER}", {}),
        ("POST", "/interactions", {"json": {"events": [{**one, "event": "view", "event_id": "e1"}]}}),
        ("POST", "/interactions", {"json": {"events": [{**one, "event": "remove"}, {**one, "user_id": OTHER}]}}),
        ("POST", "/import/events", {"content": json.dumps({**one, "timestamp": 5.0})}),
        ("POST", "/import/users", {"content": json.dumps({"user_id": USER, "bought": {item_id: 5.0}})}),
        ("POST", "/import/items", {"content": json.dumps({"item_id": item_id, "price": 2.0})}),
        ("PUT", f"/items/{item_id}", {"json": {"price": 3.0}}),
        ("GET", "/export/events", {}),
        ("GET", "/export/users", {}),
        ("GET", "/export/items", {}),
        ("GET", "/admin/stats", {}),
        ("GET", "/readyz", {}),
        ("DELETE", f"/users/{USER}", {}),
        ("DELETE", f"/items/{item_id}", {}),
    ):
        yield f"{method} {path}", http.request(method, path, **more)


def judged(what: str, call: str, answer: httpx.Response) -> str | None:
    """What is wrong with an answer, None for nothing."""
    if answer.status_code >= 500 and answer.status_code != 503:
        return f"{what}: {call} answered {answer.status_code} {answer.text[:200]}"
    if answer.status_code == 503 and call.startswith(WITHOUT_STATE):
        return f"{what}: {call} could have been answered without state"
    if answer.status_code == 503 and not answer.json()["code"].startswith("store."):
        return f"{what}: {call} is refused as {answer.json()['code']}"
    return None


@pytest.fixture
def fast_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One that waits for no disk: thousands of writes are of no worth here."""
    server = RedisServer(tmp_path / "redis", "--appendonly", "no")
    server.start()
    yield server
    server.kill()


@pytest.mark.timeout(900)
def test_nothing_under_our_keys_makes_a_500(tiny_release: Path, fast_redis: RedisServer, tmp_path: Path) -> None:
    environment = {
        "REDIS_URL": fast_redis.url, "ISRF_REDIS_DURABILITY": "warn", "ISRF_CROWD_EPOCH_S": "1",
        "ISRF_ITEMS_POLL_S": "1",
    }  # fmt: skip
    service = ServiceProcess(tiny_release, tmp_path / "service", **environment).start()
    wrong: list[str] = []
    planted = 0
    try:
        with httpx.Client(base_url=service.url, timeout=PATIENCE_S) as http, fast_redis.client() as client:
            item_id = http.get("/popular?n=1").json()["items"][0]["item_id"]
            list_id = http.get(f"/recommend/{USER}?n=5").json()["meta"]["recommendation_id"]
            for _, answer in calls(http, item_id, list_id):
                assert answer.status_code < 300 or answer.status_code == 404, answer.text
            http.put(f"/items/{item_id}", json={"price": 3.0})
            saved = {key: client.dump(key) for key in client.keys("isrf:*")}
            for what in plants(client, item_id, list_id):
                planted += 1
                answered = calls(http, item_id, list_id)
                while True:
                    try:
                        call, answer = next(answered)
                    except StopIteration:
                        break
                    except httpx.TransportError as error:
                        wrong.append(f"{what}: {error}")
                        break
                    problem = judged(what, call, answer)
                    wrong += [problem] if problem else []
                with contextlib.suppress(redis.RedisError):
                    client.delete(*client.keys("isrf:*"))
                for name, dumped in saved.items():
                    client.restore(name, 0, dumped, replace=True)
        assert "Traceback" not in service.log
    finally:
        service.stop()
    assert planted > 300
    assert not wrong, f"{len(wrong)} of {planted}:\n" + "\n".join(wrong[:40])


@pytest.mark.parametrize("kind", ["words", "wrong type"])
async def test_a_rate_that_cannot_be_read_counts_here_alone(
    redis_server: RedisServer, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate, "ASK_S", 10.0)  # a busy machine may answer late, which counts here alone too
    with redis_server.client() as client:
        client.flushall()
        for _ in range(2):
            limiter = RateLimiter("3/minute")
            limiter.share(settings_for(redis_server, tmp_path))
            assert [await limiter.wait_s("key", None) for _ in range(3)] == [None] * 3
            assert await limiter.wait_s("key", None) is not None
            await limiter.close()
            keys = client.keys("*rate*")
            assert keys
            for key in keys:
                client.delete(key)
                if kind == "words":
                    client.set(key, "not a number")
                else:
                    client.rpush(key, "x")


async def test_one_unreadable_user_does_not_stand_in_everybodys_way(redis_server: RedisServer, tmp_path: Path) -> None:
    with redis_server.client() as client:
        client.flushall()
        store = await open_store(settings_for(redis_server, tmp_path))
        await store.apply(read_events(*(event("x", 1.0, user_id=name) for name in (USER, OTHER))))
        client.xadd(stream_key(BUCKET), {"x": "y"})
        client.delete(KINDS["h"])
        client.set(KINDS["h"], "x")
        foreign, well = await store.read_many([USER, OTHER])
        assert (foreign, [entry.item_id for entry in well.history]) == (NOBODY, ["x"])
        look = await store.recent(nobody_recent(), [None] * 64, 2**48)
        assert look.moved == {USER, OTHER}
        assert sorted([one.user_id async for page in store.accepted() for one in page]) == [USER, OTHER]
    await store.close()
