"""What one request may cost: how much it may ask for, as how many calls it counts, and junk that is refused unread."""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from starlette.testclient import TestClient

from isrf.contract.item_changes import MAX_ITEM_BYTES
from service.api.schemas.items import MAX_METADATA_VALUES
from service.api.schemas.requests import MAX_N
from service.api.validation.json_bounds import MAX_DEPTH, MAX_FIELDS, MAX_VALUES, json_problem
from service.app import create_app
from service.auth.rate import RateLimiter
from service.auth.request_cost import EXPLAINED_A_CALL, MOST_EXPLAINED, MOST_ITEMS, calls_of
from service.server.middleware import PIECE_BYTES
from service.settings import Settings
from tests.service.auth.test_doors import Guarded, make_key
from tests.service.releases import some_users
from tests.service.servers import RedisServer, settings_for
from tests.slowness import slowness

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def http(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    chosen = Settings(releases_dir=tiny_release, state_dir=tmp_path_factory.mktemp("state"), deadline_s=60, demo=True)
    with TestClient(create_app(chosen)) as http:
        yield http


@pytest.fixture(scope="module")
def users(tiny_release: Path) -> list[str]:
    found = some_users(tiny_release / "current")
    return (found * (1 + 256 // len(found)))[:256]


def code(answer: httpx.Response | httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code", "")


def test_users_times_items_have_a_bound_and_it_is_said(http: TestClient, users: list[str]) -> None:
    for num_users, n, explain, most in (
        (256, 200, True, MOST_EXPLAINED),
        (256, 4, True, MOST_EXPLAINED),
        (256, 200, False, MOST_ITEMS),
        (6, 200, True, MOST_EXPLAINED),
    ):
        answer = http.post("/recommend", json={"users": users[:num_users], "n": n, "explain": explain})
        assert code(answer) == (422, "request.too_much")
        problem = answer.json()
        assert str(most) in problem["detail"]
        allowed = max(1, most // num_users)
        assert f"n={allowed} at most" in problem["fix"]
        assert num_users * allowed <= most
    for num_users, n, explain in ((5, 200, True), (50, 20, True), (256, 3, True), (64, 200, False)):
        answer = http.post("/recommend", json={"users": users[:num_users], "n": n, "explain": explain})
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["answers"]) == num_users
    schema = http.get("/openapi.json").json()["components"]["schemas"]["UsersRequest"]["properties"]["users"]
    assert str(MOST_ITEMS) in schema["description"]
    assert str(MOST_EXPLAINED) in schema["description"]


def test_so_many_candidates_are_explained(http: TestClient, tiny_release: Path) -> None:
    lines = (tiny_release / "current" / "items.jsonl").read_text().splitlines()
    known = [json.loads(line)["item_id"] for line in lines]
    candidates = [*known, *(f"no-item-{number}" for number in range(MAX_N))]
    answer = http.post("/rank", json={"candidates": candidates, "explain": True})
    assert code(answer) == (422, "request.too_much")
    assert f"n={MAX_N}" in answer.json()["fix"]
    assert code(http.post("/rank", json={"candidates": candidates, "explain": True, "n": MAX_N + 1}))[0] == 422
    for more in ({"explain": True, "n": MAX_N}, {"explain": False}):
        assert http.post("/rank", json={"candidates": candidates, **more}).status_code == 200


def test_what_a_request_counts_as() -> None:
    assert calls_of(1, 200, explain=False) == calls_of(1, EXPLAINED_A_CALL, explain=True) == 1
    assert calls_of(256, 10, explain=True) == 256
    assert calls_of(1, 200, explain=True) == 11
    assert calls_of(5, 200, explain=True) == 55


@pytest.fixture(params=["embedded", pytest.param("redis", marks=pytest.mark.redis)])
def kept_by(request: pytest.FixtureRequest) -> RedisServer | None:
    """What keeps the rates: an empty Redis, or (None) the embedded store."""
    if request.param == "embedded":
        return None
    server: RedisServer = request.getfixturevalue("redis_server")
    with server.client() as client:
        client.flushall()
    return server


async def test_a_call_that_costs_more_than_a_rate_takes_all_of_it(tmp_path: Path, kept_by: RedisServer | None) -> None:
    """No wait could ever buy it: a key with a low rate could never ask for many users."""
    limiter = RateLimiter("10/hour")
    limiter.share(settings_for(kept_by, tmp_path))
    assert await limiter.wait_s("low", None, 255) is None
    assert 0 < (await limiter.wait_s("low", None) or 0) <= 3600
    assert await limiter.wait_s("other", None, 4) is None
    assert await limiter.wait_s("other", None, 255) is not None, "all of it is more than is left"
    assert await limiter.wait_s("other", None, 6) is None
    await limiter.close()


def test_a_call_for_many_users_counts_for_each(
    tiny_release: Path, tmp_path: Path, users: list[str], kept_by: RedisServer | None
) -> None:
    service = Guarded(tiny_release, tmp_path, **({} if kept_by is None else {"REDIS_URL": kept_by.url}))
    slow = make_key(service.file, "read", "--rate", "40/day")

    def ask(count: int, **more: Any) -> httpx.Response:
        return service.call("POST", "/recommend", slow, json={"users": users[:count], "n": 1, **more})

    try:
        service.start()
        assert ask(20).status_code == 200
        refused = ask(30)
        assert code(refused) == (429, "rate.limited")
        assert "29 calls more" in refused.json()["detail"]
        assert int(refused.headers["retry-after"]) >= 1
        # 20, and the one that every call is before it is known what it asks for.
        assert ask(5).status_code == 200
        explained = service.call("GET", f"/recommend/{users[0]}?n=200&explain=true", slow)
        assert explained.status_code == 200
        left = [service.call("GET", "/popular", slow).status_code for _ in range(6)]
        assert left == [200] * 3 + [429] * 3, "20, 1, 5 and 11 of 40 are gone"
        again = service.call("GET", f"/recommend/{users[0]}?n=200&explain=true", service.keys["read"])
        assert again.status_code == 200
    finally:
        service.kill()


ROUTES = [
    ("POST", "/recommend", {"history": []}),
    ("POST", "/recommend", {"users": ["a"]}),
    ("POST", "/rank", {"candidates": ["a"]}),
    ("POST", "/interactions", {"events": [{"user_id": "a", "item_id": "b"}]}),
    ("PUT", "/items/x", {"title": "x"}),
    ("POST", "/demo/items", {"item_ids": ["a"]}),
]


def send(http: TestClient, method: str, path: str, body: bytes) -> tuple[httpx2.Response, float]:
    began = time.process_time()
    answer = http.request(method, path, content=body, headers=JSON)
    return answer, time.process_time() - began


@pytest.mark.parametrize(("method", "path", "good"), ROUTES)
def test_unknown_fields_are_refused_at_the_price_of_one(
    http: TestClient, method: str, path: str, good: dict[str, Any]
) -> None:
    for count in (9, MAX_FIELDS - 100, 130_000):
        body = json.dumps({**good, **{f"k{number}": 1 for number in range(count)}}).encode()
        answer, cpu_s = send(http, method, path, body)
        assert answer.status_code == 422
        assert len(answer.content) < 2000
        told = count if count < MAX_FIELDS else count + json.dumps(good).count(":")
        assert f"{told} fields" in answer.json()["detail"]
        assert ("'k0'" if count < MAX_FIELDS else next(iter(good))) in answer.json()["detail"]
        assert cpu_s < slowness(), "130,000 took more than a second for each field's own complaint"
    few = http.request(method, path, json={**good, "k1": 1, "k2": 2})
    assert {one["where"].rpartition(".")[2] for one in few.json()["errors"]} == {"k1", "k2"}


@pytest.mark.parametrize(("method", "path", "good"), ROUTES)
def test_what_nests_too_deep_is_refused_unread(http: TestClient, method: str, path: str, good: dict[str, Any]) -> None:
    field = next(iter(good))
    for opening, closing in (("[", "]"), ('{"a":', "}"), ('["]",', "]"), ('["\\"]",', "]")):
        deep = opening * (MAX_DEPTH + 1) + "1" + closing * (MAX_DEPTH + 1)
        answer, _ = send(http, method, path, f'{{"{field}": {deep}}}'.encode())
        assert code(answer) == (422, "request.too_complex"), opening
        assert str(MAX_DEPTH) in answer.json()["detail"]


def test_brackets_and_colons_in_texts_are_text(http: TestClient) -> None:
    for text in ("[" * 900, "]" * 900, ':"\\' * 200, "\\" * 77, '\\"' * 100 + "{"):
        answer = http.put("/items/brackets", json={"title": text, "metadata": {"note": text}})
        assert answer.status_code == 200, answer.text
        assert answer.json()["item"]["title"] == text


def test_depth_and_fields_are_counted_as_a_parser_would() -> None:
    """Against a count of what the parser made of it."""
    rng = random.Random(7)
    texts = ["", "x", '"', "\\", '\\"', "[", "}", ":", "a:b", '{"a": [', "é"]

    def value(depth: int) -> Any:
        kind = rng.random()
        if depth == 0 or kind < 0.2:
            return rng.choice([*texts, 1, None, True])
        if kind < 0.6:
            return [value(depth - 1) for _ in range(rng.randrange(3))]
        return {rng.choice(texts) + str(k): value(depth - 1) for k in range(rng.randrange(3))}

    def depth_of(one: Any) -> int:
        inside = one.values() if isinstance(one, dict) else one if isinstance(one, list) else None
        return 0 if inside is None else 1 + max(map(depth_of, inside), default=0)

    deepest = 0
    for _ in range(300):
        made: Any = value(12)
        for _ in range(rng.randrange(40)):
            made = [made] if rng.random() < 0.5 else {rng.choice(texts): made, "more": rng.choice(texts)}
        text = json.dumps(made, ensure_ascii=rng.random() < 0.5).encode()
        deepest = max(deepest, depth_of(made))
        assert (json_problem(text) is not None) == (depth_of(made) > MAX_DEPTH), text
    assert deepest > MAX_DEPTH
    assert json_problem(json.dumps({f"a:{k}": "b:" for k in range(MAX_FIELDS)}).encode()) is None
    assert "20001 fields" in str(json_problem(json.dumps({f"a:{k}": "b:" for k in range(MAX_FIELDS + 1)}).encode()))


def test_a_list_of_junk_is_refused_unread(http: TestClient) -> None:
    junk = [b"1", b"[]", b"{}", b"null", b"1.5"]
    places = [
        ("POST", "/recommend", b'{"history": [%s]}'),
        ("POST", "/recommend", b'{"history": [], "exclude": [%s]}'),
        ("POST", "/recommend", b'{"users": [%s]}'),
        ("POST", "/rank", b'{"candidates": [%s]}'),
        ("POST", "/interactions", b'{"events": [%s]}'),
        ("PUT", "/items/fat", b'{"metadata": {"a": [%s]}}'),
        ("PUT", "/items/fat", b'{"categories": [%s]}'),
    ]
    for method, path, body in places:
        for one in junk:
            answer, cpu_s = send(http, method, path, body % b",".join([one] * 400_000))
            assert code(answer) == (422, "request.too_complex"), (path, one)
            assert f"values, {MAX_VALUES} are allowed" in answer.json()["detail"]
            assert cpu_s < 0.2 * slowness(), (path, one)
    assert json_problem(b"[%s]" % b",".join([b'","'] * MAX_VALUES)) is None
    assert "40001 values" in str(json_problem(b"[%s]" % b",".join([b'","'] * (MAX_VALUES + 1))))


BRACKETS = {
    "opened alone": b"[",
    "closed alone": b"]",
    "as deep as may be": b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1),
    "of both kinds": b"[{" * 12 + b"}]" * 12,
}


@pytest.mark.parametrize("kind", BRACKETS)
def test_a_body_of_brackets_is_refused_at_once(http: TestClient, kind: str) -> None:
    """2 MB of them took 0.2 s and more, in which nobody else was answered."""
    piece = BRACKETS[kind]
    body = b'{"history": [%s]}' % (piece * (2_000_000 // len(piece)))
    answer, cpu_s = send(http, "POST", "/recommend", body)
    assert answer.status_code in (400, 422), answer.text
    assert len(answer.content) < 2000
    assert cpu_s < 0.12 * slowness()


def test_lists_and_objects_have_a_bound() -> None:
    assert json_problem(b"[%s]" % (b"[[]]" * 10_000)) is None
    assert f"{MAX_VALUES + 2} lists and objects" in str(json_problem(b"[%s[]]" % (b"[[]]" * (MAX_VALUES // 2))))


@pytest.mark.parametrize("path", ["/import/items", "/import/events", "/import/users"])
def test_a_line_of_junk_is_refused_at_the_price_of_a_line(http: TestClient, path: str) -> None:
    ids = '"item_id": "b"' if path == "/import/items" else '"user_id": "a"'
    fields = ",".join(f'"k{number}": "x"' for number in range(15_000))
    lines = [
        f"{{{ids}, {fields}}}",
        f'{{{ids}, "bought": {{{fields}}}}}',
        f'{{{ids}, "history": [{",".join("1" for _ in range(100_000))}]}}',
        f'{{{ids}, "a": {"[" * 5000}{"]" * 5000}}}',
        "{" + ",".join(f'"{number}":1' for number in range(25_000)) + "}",
    ]
    answer, cpu_s = send(http, "POST", path, "\n".join(lines * 4).encode())
    assert answer.status_code == 200
    body = answer.json()
    assert (body["lines"], body["refused"]) == (20, 20)
    assert {one["reason"] for one in body["problems"] if one["line"] % 5 == 4} == {"too_complex"}
    assert all(len(one["detail"]) < 400 for one in body["problems"])
    assert cpu_s < 1.5 * slowness()


def test_an_error_does_not_grow_with_what_is_wrong(http: TestClient) -> None:
    long = "x" * 1500
    for method, path, body in (
        ("POST", "/recommend", {"history": [long] * 1000}),
        ("POST", "/recommend", {"history": [{}] * 1000}),
        ("POST", "/recommend", {"users": [long] * 256}),
        ("POST", "/rank", {"candidates": [long] * 1000}),
        ("POST", "/recommend", {"history": [], "n": 10**4000}),
        ("POST", "/recommend", {"history": [], "category": long * 1000}),
        ("PUT", "/items/x", {"categories": [{}] * 64}),
    ):
        answer = http.request(method, path, json=body)
        assert answer.status_code in {200, 422}, (path, answer.text[:200])
        assert len(answer.content) < 6000
    junk = [{"user_id": "a", "item_id": "b", "k" * 900: "v" * 900} for _ in range(1000)]
    answer = http.post("/interactions", json={"events": junk})
    assert answer.json()["refused"] == 1000
    assert len(answer.content) < 250_000


def test_what_is_kept_of_an_item_has_a_bound_and_it_is_said(http: TestClient) -> None:
    long = "x" * (MAX_ITEM_BYTES // 2)
    too_much: list[tuple[dict[str, Any], int]] = [
        ({"description": "x" * MAX_ITEM_BYTES}, MAX_ITEM_BYTES),
        ({"description": "é" * (MAX_ITEM_BYTES // 2)}, MAX_ITEM_BYTES),
        ({"description": long, "categories": ["c" * 500] * 17}, MAX_ITEM_BYTES),
        ({"description": long, "metadata": {"a": long}}, MAX_ITEM_BYTES),
        ({"metadata": {"a": [[] for _ in range(MAX_METADATA_VALUES)]}}, MAX_METADATA_VALUES),
        ({"metadata": {str(k): k for k in range(MAX_METADATA_VALUES)}}, MAX_METADATA_VALUES),
    ]
    for body, most in too_much:
        answer = http.put("/items/fat", json=body)
        assert code(answer) == (422, "request.invalid")
        assert f"{most} are allowed" in answer.json()["detail"]
        imported = http.post("/import/items", content=json.dumps({"item_id": "fat", **body}).encode()).json()
        assert imported["reasons"] == {"item_too_large": 1}
        assert f"{most} are allowed" in imported["problems"][0]["detail"]
    fat = {"title": "x" * 2000, "description": "y" * 6000, "categories": ["c" * 500] * 8, "metadata": {"a": "m" * 4000}}
    assert http.put("/items/fat", json=fat).status_code == 200
    assert http.post("/import/items", content=json.dumps({"item_id": "fat", **fat}).encode()).json()["accepted"] == 1
    others = {f"field {k}": "x" for k in range(MAX_METADATA_VALUES)}
    imported = http.post("/import/items", content=json.dumps({"item_id": "fat", **others}).encode()).json()
    assert imported["reasons"] == {"item_too_large": 1}, "fields that are not ours are metadata"
    http.put("/items/slim", json={"description": "y" * 8000})
    for rest in ({"metadata": {"a": "m" * 9000}}, {"title": "x" * 2000, "categories": ["c" * 500] * 14}):
        answer = http.put("/items/slim", json=rest)
        assert code(answer) == (422, "item.too_large"), "a piece that is sent by itself adds to what is kept"
        assert f"{MAX_ITEM_BYTES} bytes" in answer.json()["detail"]
        imported = http.post("/import/items", content=json.dumps({"item_id": "slim", **rest}).encode()).json()
        assert imported["reasons"] == {"item_too_large": 1}
    assert http.put("/items/slim", json={"available": False, "price": 1.25}).status_code == 200
    assert http.put("/items/slim", json={"description": None, "metadata": {"a": "m" * 9000}}).status_code == 200
    schema = http.get("/openapi.json").json()["components"]["schemas"]["ItemBody"]["properties"]["metadata"]
    assert str(MAX_ITEM_BYTES) in schema["description"]


async def test_a_large_answer_leaves_in_pieces(tiny_release: Path, tmp_path: Path, users: list[str]) -> None:
    app = create_app(Settings(releases_dir=tiny_release, state_dir=tmp_path, deadline_s=60))
    body = json.dumps({"users": users[:50], "n": 20, "explain": True}).encode()
    pieces: list[bytes] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        pieces.append(message.get("body", b""))

    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers.append((b"host", b"localhost"))
    scope = {
        "type": "http", "method": "POST", "path": "/recommend", "raw_path": b"/recommend", "query_string": b"",
        "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "scheme": "http", "root_path": "",
        "http_version": "1.1", "asgi": {"version": "3.0"},
    }  # fmt: skip
    async with app.router.lifespan_context(app):
        await app(scope, receive, send)
    assert len(json.loads(b"".join(pieces))["answers"]) == 50
    assert max(map(len, pieces)) <= PIECE_BYTES < sum(map(len, pieces))
