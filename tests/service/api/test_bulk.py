"""Many lines in and out: every line judged, none dropped in silence, and what goes out comes in again."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from isrf.contract.errors import StoreError
from service.api.bulk.lines import (
    HELD_S,
    MAX_LINE_BYTES,
    MAX_NAMED,
    PIECE_BYTES,
    TOGETHER,
    LineVerdict,
    import_lines,
    write_lines,
)
from service.state.connect import open_store
from service.state.store import Store
from tests.service.servers import (
    PATIENCE_S,
    RedisCluster,
    RedisServer,
    ServiceProcess,
    apply_to,
    event,
    settings_for,
)
from tests.slowness import slowness


async def pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


class Taker:
    """Accepts even numbers."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    async def take(self, records: Sequence[Mapping[str, Any]]) -> list[list[LineVerdict]]:
        self.sizes.append(len(records))
        return [
            [LineVerdict("accepted") if record["n"] % 2 == 0 else LineVerdict("refused", "odd", str(record["n"]))]
            for record in records
        ]


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_lines_are_judged_one_by_one_however_they_arrive(size: int) -> None:
    body = b'\xef\xbb\xbf{"n": 0}\r\n\n{"n": 1}\nnonsense\n[1]\n\xff\n{"n": 2}'
    report = (await import_lines(pieces(body, size), Taker().take)).body()
    assert (report["lines"], report["accepted"], report["refused"]) == (7, 2, 4)
    assert report["reasons"] == {"odd": 1, "malformed_json": 3}
    assert [one["line"] for one in report["problems"]] == [3, 4, 5, 6]


@pytest.mark.parametrize("number", [2**63 - 1, 2**64 - 1, 2**64, -(2**70), 10**30])
async def test_an_integer_is_read_as_it_stands(number: int) -> None:
    """Beyond 64 bits one became another number, and nobody was told."""
    read: list[Any] = []

    async def take(records: Sequence[Mapping[str, Any]]) -> list[list[LineVerdict]]:
        read.extend(record["n"] for record in records)
        return [[LineVerdict("accepted")] for _ in records]

    body = b'{"n": %d, "text": "12345678901234567890"}\n{"n": %s1}' % (number, b"9" * 400)
    report = (await import_lines(pieces(body, 1000), take)).body()
    assert (read, report["reasons"]) == ([number], {"malformed_json": 1})
    assert isinstance(read[0], int)


async def test_a_line_without_end_is_not_kept_and_the_next_is_read() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'{"n": 0}\n{"n": "'
        for _ in range(50):
            yield b"x" * MAX_LINE_BYTES
        yield b'"}\n{"n": 2}\n' + b"y" * (MAX_LINE_BYTES + 1)

    report = (await import_lines(body(), Taker().take)).body()
    assert (report["lines"], report["accepted"]) == (4, 2)
    assert [(one["line"], one["reason"]) for one in report["problems"]] == [(2, "line_too_long"), (4, "line_too_long")]


async def test_many_lines_go_in_parts_and_every_bad_one_is_counted() -> None:
    taker = Taker()
    body = b"".join(b'{"n": 1}\n' for _ in range(3 * TOGETHER + 1))
    report = (await import_lines(pieces(body, 1000), taker.take)).body()
    assert taker.sizes == [TOGETHER] * 3 + [1]
    assert report["refused"] == 3 * TOGETHER + 1
    assert len(report["problems"]) == MAX_NAMED
    assert report["problems_left_out"] == 3 * TOGETHER + 1 - MAX_NAMED


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece",
    [b"\n" * 65536, b"1\n" * 32768, b'{"n": 0}\n' * 7000, b'{"n": [%s]}\n' % b",".join([b"1"] * 100_000)],
    ids=["blank lines", "no objects", "good lines", "long lines"],
)
async def test_others_have_their_turn_while_lines_are_judged(piece: bytes) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield piece  # without a pause, as a body that has come already

    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    began = time.process_time()
    await import_lines(body(), Taker().take)
    cpu_s = time.process_time() - began
    beside.cancel()
    assert turns > cpu_s / HELD_S / 10


async def test_a_long_line_costs_its_length_however_small_its_pieces_are() -> None:
    line = b'{"n": 0, "x": "%s"}\n' % (b"x" * (MAX_LINE_BYTES - 40))
    began = time.process_time()
    report = (await import_lines(pieces(line * 10, 64), Taker().take)).body()
    assert report["accepted"] == 10
    assert time.process_time() - began < 2 * slowness()


async def test_lines_leave_before_a_page_is_whole() -> None:
    made = 0

    def page() -> Iterator[dict[str, Any]]:
        nonlocal made
        for made in range(1000):  # noqa: B007 - counted
            yield {"line": "x" * 1000}

    async def pages() -> AsyncIterator[Iterator[dict[str, Any]]]:
        yield page()

    pieces_left = write_lines(pages())
    first = await anext(pieces_left)
    assert made < 100
    rest = [piece async for piece in pieces_left]
    assert max(map(len, [first, *rest])) < 2 * PIECE_BYTES
    assert b"".join([first, *rest]).count(b"\n") == 1000


async def test_a_store_that_gives_up_is_told_from_which_line() -> None:
    calls = 0

    async def take(records: Sequence[Mapping[str, Any]]) -> list[list[LineVerdict]]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise StoreError("store.unavailable", "no.")
        return [[LineVerdict("accepted")] for _ in records]

    body = b'{"n": 0}\n' * (TOGETHER + 5)
    calls = 1
    with pytest.raises(StoreError, match="no line was imported"):
        await import_lines(pieces(body, 4096), take)
    calls = 0
    with pytest.raises(StoreError, match=f"lines 1 to {TOGETHER} were imported"):
        await import_lines(pieces(body, 4096), take)


async def check_everything(store: Store) -> None:
    """Users and events come out of every store, without those erased."""
    apply = apply_to(store)
    posted = [event(f"i{k % 7}", float(k), user_id=f"u{k % 30}") for k in range(90)]
    await apply(*posted)
    await store.erase("u3")
    await apply(event("fresh", 100.0, user_id="u4"))
    users = [user_id async for page in store.user_ids() for user_id in page]
    assert set(users) == {f"u{k}" for k in range(30) if k != 3}
    found = [(one.user_id, one.item_id, one.timestamp) async for page in store.accepted() for one in page]
    expected = [(one["user_id"], one["item_id"], one["timestamp"]) for one in posted if one["user_id"] != "u3"]
    assert sorted(found) == sorted([*expected, ("u4", "fresh", 100.0)])


async def test_everything_comes_out_of_every_store(store: Store) -> None:
    await check_everything(store)


async def test_everything_comes_out_of_every_master(three_masters: RedisCluster, tmp_path: Path) -> None:
    three_masters.flush()
    store = await open_store(settings_for(three_masters.nodes[0], tmp_path, redis_cluster=True))
    await check_everything(store)
    await store.close()


class Bulk(ServiceProcess):
    def send(self, kind: str, *records: Any) -> dict[str, Any]:
        lines = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in records]
        answer = httpx.post(f"{self.url}/import/{kind}", content=b"\n".join(lines), timeout=PATIENCE_S)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def fetch(self, kind: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.url}/export/{kind}", timeout=PATIENCE_S)
        assert answer.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in answer.text.splitlines()]


@pytest.fixture
def service(tiny_release: Path, tmp_path: Path) -> Iterator[Bulk]:
    process = Bulk(tiny_release, tmp_path / "one")
    process.start()
    yield process
    process.kill()


@pytest.fixture(scope="module")
def shared(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bulk]:
    """One for several tests: each names items and users of its own."""
    process = Bulk(tiny_release, tmp_path_factory.mktemp("shared"))
    process.start()
    yield process
    process.kill()


@pytest.fixture
def other(tiny_release: Path, tmp_path: Path, redis_server: RedisServer) -> Iterator[Bulk]:
    with redis_server.client() as client:
        client.flushall()
    process = Bulk(tiny_release, tmp_path / "other", REDIS_URL=redis_server.url)
    process.start()
    yield process
    process.kill()


def item_ids(release: Path) -> list[str]:
    return [json.loads(line)["item_id"] for line in (release / "current" / "items.jsonl").read_text().splitlines()]


def test_fields_that_may_be_meant_as_ours_are_named_once(shared: Bulk) -> None:
    """Accepted and of no use: a shop that calls its titles names would have items without a word."""
    report = shared.send(
        "items",
        {"item_id": "a", "Name": "Cup", "category": "Kitchen", "colour": "red"},
        {"item_id": "b", "title": None, "product-name": "Pot", "metadata": {"in_stock": False}},
        {"item_id": "c", "title": "Pan", "name": "pan-1", "id": 5, "x" * 5000: 1},
    )
    assert (report["accepted"], {one["code"] for one in report["warnings"]}) == (3, {"misnamed_field"})
    assert {one["message"] for one in report["warnings"]} == {
        '2 items have "Name" but no title: rename it if it means title.',
        '1 items have "category" but no categories: rename it if it means categories.',
        '1 items have "in_stock" but no available: rename it if it means available.',
    }
    assert shared.send("items", {"item_id": "d", "title": "Cup", "colour": "red"})["warnings"] == []
    assert shared.send("events", {"user_id": "u", "item_id": "a"})["warnings"] == []


def test_bad_lines_are_named_and_the_others_taken(shared: Bulk, tiny_release: Path) -> None:
    known = item_ids(tiny_release)[-1]
    report = shared.send(
        "items",
        {"item_id": "new", "title": "Headphones", "colour": "red", "available": None},
        {"item_id": known, "price": "cheap"},
        b"{",
        {"title": "nobody's"},
        {"item_id": 7, "title": "Seven"},
        {"item_id": "a\nb", "title": "x"},
        {"item_id": known, "price": 3.5, "hidden": True},
    )
    assert (report["accepted"], report["refused"]) == (3, 4)
    assert [(one["line"], one["reason"]) for one in report["problems"]] == [
        (2, "invalid_item"), (3, "malformed_json"), (4, "invalid_item_id"), (6, "invalid_item_id"),
    ]  # fmt: skip
    assert httpx.get(f"{shared.url}/items/{known}").status_code == 404
    events = [{"user_id": "ann", "item_id": one, "timestamp": 5.0} for one in ("new", "7", known, "unknown")]
    report = shared.send("events", *events, events[0], {"user_id": "ann"})
    assert (report["accepted"], report["duplicates"], report["refused"]) == (3, 1, 2)
    assert report["reasons"] == {"unknown_item": 1, "invalid_event": 1}
    assert shared.send("users", {"user_id": "bob", "history": "none"})["reasons"] == {"invalid_user": 1}


def test_a_body_larger_than_any_other_is_taken(shared: Bulk, tiny_release: Path) -> None:
    known = item_ids(tiny_release)
    lines = [
        {"user_id": f"user-{k % 50}", "item_id": known[k % 40], "timestamp": float(k), "event_id": "x" * 200 + str(k)}
        for k in range(9000)
    ]
    report = shared.send("events", *lines)
    assert (report["lines"], report["accepted"]) == (9000, 9000)
    answer = httpx.post(f"{shared.url}/interactions", json={"events": lines}, timeout=PATIENCE_S)
    assert answer.status_code == 413


def test_what_goes_out_comes_in_again(service: Bulk, other: Bulk, tiny_release: Path) -> None:
    first, second, third, *_ = item_ids(tiny_release)
    service.send("items", {"item_id": "new", "title": "Headphones", "colour": "red"}, {"item_id": first, "price": 1.5})
    service.send("items", {"item_id": second, "hidden": True}, {"item_id": third, "available": False})
    catalogue = service.fetch("items")
    by_id = {item["item_id"]: item for item in catalogue}
    assert len(by_id) == len(catalogue) == len(item_ids(tiny_release)) + 1
    assert by_id["new"] == {"item_id": "new", "title": "Headphones", "colour": "red"}
    assert (by_id[first]["price"], by_id[second]["hidden"], by_id[third]["available"]) == (1.5, True, False)
    assert not {"feature", "semantic_id", "metadata"} & {name for item in catalogue for name in item}
    report = other.send("items", *catalogue)
    assert (report["accepted"], report["refused"]) == (len(catalogue), 0)
    assert sorted(other.fetch("items"), key=lambda one: str(one["item_id"])) == sorted(
        catalogue, key=lambda one: str(one["item_id"])
    )

    ids = [first, third, "new"]
    service.send(
        "events",
        *({"user_id": f"u{k % 7}/ä", "item_id": ids[k % 3], "timestamp": float(k), "event": "view"} for k in range(40)),
        {"user_id": "ann", "item_id": first, "timestamp": 50.0},
        {"user_id": "ann", "item_id": third, "timestamp": 51.0, "event": "dislike"},
        {"user_id": "u1/ä", "item_id": third, "timestamp": 60.0, "event": "remove"},
        {"user_id": "gone", "item_id": first, "timestamp": 60.0},
    )
    assert httpx.delete(f"{service.url}/users/gone").status_code == 204
    events, users = service.fetch("events"), service.fetch("users")
    assert len(events) == 43
    assert not any(one["user_id"] == "gone" for one in (*events, *users))
    assert other.send("events", *events)["accepted"] == 43
    assert other.send("events", *events)["duplicates"] == 43
    assert sorted(other.fetch("users"), key=str) == sorted(users, key=str)
    assert sorted(other.fetch("events"), key=str) == sorted(events, key=str)
    httpx.delete(f"{other.url}/users/ann")
    assert len(other.fetch("events")) == 41
    report = other.send("users", *users)
    assert (report["reasons"], report["refused"]) == ({"before_erasure": 2}, 2), "ann was erased since"
    assert [one["user_id"] for one in other.fetch("users")].count("ann") == 0
    again = other.send("events", *events)
    assert (again["duplicates"], again["reasons"]) == (41, {"before_erasure": 2})


@pytest.mark.parametrize("kind", ["items", "events", "users"])
def test_an_export_that_cannot_be_had_is_refused_before_it_begins(
    tiny_release: Path, own_redis: RedisServer, tmp_path: Path, kind: str
) -> None:
    process = Bulk(tiny_release, tmp_path / "service", REDIS_URL=own_redis.url)
    process.start()
    try:
        process.send("events", {"user_id": "ann", "item_id": item_ids(tiny_release)[0], "timestamp": 1.0})
        assert process.fetch(kind)
        own_redis.kill()
        answer = httpx.get(f"{process.url}/export/{kind}", timeout=PATIENCE_S)
        assert (answer.status_code, answer.json()["code"]) == (503, "store.unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        own_redis.start()
        assert process.fetch(kind)
    finally:
        process.kill()
