"""The HTTP API of a real process, with the embedded store."""

import json
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import polars as pl
import pytest

from isrf.contract.event_log import FOLLOWED_ITEMS, JOURNAL_FILE, read_event
from service.release.opening import Release, open_release
from service.state.records import HistoryEntry
from tests.service.servers import PATIENCE_S, ServiceProcess

EXCLUDES = {"", "purchase"}.__contains__


@pytest.fixture(scope="module")
def service(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    process = ServiceProcess(tiny_release, tmp_path_factory.mktemp("service")).start()
    yield process
    process.kill()


@pytest.fixture(scope="module")
def http(service: ServiceProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture(scope="module")
def release(tiny_release: Path) -> Release:
    return open_release(tiny_release)


@pytest.fixture(scope="module")
def shoppers(tiny_release: Path, release: Release) -> Iterator[str]:
    """Users of the release with a history."""
    ids = pl.read_parquet(tiny_release / "current" / "users.parquet")["user_id"].to_list()
    return (user for user in ids if len(past(release, user)) > 3)


@pytest.fixture
def shopper(shoppers: Iterator[str]) -> str:
    """A user of the release with a history, another one for each test."""
    return next(shoppers)


def past(release: Release, user_id: str) -> Sequence[HistoryEntry]:
    return release.users.past(user_id, EXCLUDES).history


def recommend(http: httpx.Client, user_id: str, **query: Any) -> dict[str, Any]:
    answer = http.get(f"/recommend/{quote(user_id, safe='')}", params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def items(body: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in body["items"]]


def post(http: httpx.Client, *events: dict[str, Any]) -> list[str]:
    answer = http.post("/interactions", json={"events": events})
    assert answer.status_code == 200, answer.text
    return [result["status"] for result in answer.json()["results"]]


def user(http: httpx.Client, user_id: str) -> dict[str, Any]:
    answer = http.get(f"/users/{quote(user_id, safe='')}")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_a_known_user_gets_new_items_from_their_sequence(http: httpx.Client, release: Release, shopper: str) -> None:
    body = recommend(http, shopper)
    assert body["user_id"] == shopper
    assert [item["rank"] for item in body["items"]] == list(range(1, 11))
    assert len(set(items(body))) == 10
    held = release.users.past(shopper, EXCLUDES)
    bought = {entry.item_id for entry, excludes in zip(held.history, held.bought, strict=True) if excludes}
    assert bought
    assert not set(items(recommend(http, shopper, n=200))) & bought
    assert body["meta"]["source"] == "sequence"
    assert body["meta"]["release_id"] == release.manifest.release_id
    assert body["warnings"] == []
    scores = [item["score"] for item in body["items"]]
    assert scores == sorted(scores, reverse=True)


def test_an_unknown_user_gets_the_popular_items_and_is_told_so(http: httpx.Client) -> None:
    body = recommend(http, "nobody-" + uuid.uuid4().hex)
    assert body["meta"]["source"] == "popular"
    assert items(body) == items(http.post("/recommend", json={"history": []}).json())
    assert {item["source"] for item in body["items"]} == {"popular"}


@pytest.mark.parametrize("n", [1, 37, 200])
def test_n_items_while_n_are_allowed(http: httpx.Client, release: Release, shopper: str, n: int) -> None:
    for who in (shopper, "nobody"):
        allowed = len(release.catalogue) - len(user(http, who)["excluded"])
        found = items(recommend(http, who, n=n))
        assert len(found) == len(set(found)) == min(n, allowed)


@pytest.mark.parametrize("n", ["0", "-1", "201", str(10**9), "x", "1.5", "", "1e1"])
def test_an_impossible_n_is_a_problem(http: httpx.Client, n: str) -> None:
    for path in ("/recommend/ann", "/popular"):
        answer = http.get(path, params={"n": n})
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["code"] == "request.invalid"
        assert problem["errors"][0]["where"] == "query.n"
        assert problem["request_id"] == answer.headers["x-request-id"]
    assert http.post("/recommend", json={"history": [], "n": 10**9}).json()["code"] == "request.invalid"


def test_the_next_answer_reflects_a_purchase(http: httpx.Client, shopper: str) -> None:
    before = recommend(http, shopper)
    assert post(http, {"user_id": shopper, "item_id": items(before)[0], "event": "purchase"}) == ["accepted"]
    after = recommend(http, shopper, n=200)
    assert items(before)[0] not in items(after)
    assert after["meta"]["user_version"] != before["meta"]["user_version"]
    assert user(http, shopper)["history"][-1] == items(before)[0]


def test_a_view_is_history_and_excludes_nothing(http: httpx.Client, shopper: str) -> None:
    before = recommend(http, shopper, n=200)
    assert post(http, {"user_id": shopper, "item_id": items(before)[0], "event": "view"}) == ["accepted"]
    after = recommend(http, shopper, n=200)
    assert items(before)[0] in items(after)
    assert user(http, shopper)["history"][-1] == items(before)[0]


def test_a_new_user_becomes_known_by_one_event(http: httpx.Client, release: Release) -> None:
    someone = "new-" + uuid.uuid4().hex
    assert user(http, someone) | {"meta": None} == {
        "user_id": someone, "known": False, "version": "0", "history": [], "timestamps": [], "excluded": [],
        "history_total": 0, "excluded_total": 0,
        "interests": {"explicit": [], "group": [], "similar_users": 0}, "meta": None, "warnings": [],
    }  # fmt: skip
    bought = release.catalogue.item_id(5)
    assert post(http, {"user_id": someone, "item_id": bought, "timestamp": 1.0}) == ["accepted"]
    body = recommend(http, someone)
    assert body["meta"]["source"] == "sequence"
    assert bought not in items(body)
    assert (user(http, someone)["history"], user(http, someone)["excluded"]) == ([bought], [bought])


def test_a_disliked_item_never_comes_and_a_removed_one_may(http: httpx.Client, release: Release, shopper: str) -> None:
    known = {entry.item_id for entry in past(release, shopper)}
    hated = next(item for item in items(recommend(http, shopper, n=200)) if item not in known)
    post(http, {"user_id": shopper, "item_id": hated, "event": "dislike"})
    assert hated not in items(recommend(http, shopper, n=200, include_seen=True))
    assert hated not in user(http, shopper)["history"]
    post(http, {"user_id": shopper, "item_id": hated, "event": "remove"})
    assert hated in items(recommend(http, shopper, n=200))
    bought = past(release, shopper)[0].item_id
    post(http, {"user_id": shopper, "item_id": bought, "event": "remove"})
    assert bought not in user(http, shopper)["history"]


def test_a_category_is_filled_whole_and_with_seen_items_only_if_wanted(
    http: httpx.Client, release: Release, shopper: str
) -> None:
    bought = past(release, shopper)[-1].item_id
    line = next(item for item in release.catalogue.items if item.item_id == bought)
    category = line.categories[-1]
    members = {item.item_id for item in release.catalogue.items if category in item.categories}
    seen = set(user(http, shopper)["excluded"])
    body = recommend(http, shopper, n=200, category=category)
    assert set(items(body)) == members - seen
    assert [warning["code"] for warning in body["warnings"]] == ["fewer_items"]
    assert set(items(recommend(http, shopper, n=200, category=category, include_seen=True))) == members
    assert set(items(http.get("/popular", params={"n": 200, "category": category}).json())) == members


def test_an_unknown_category_is_empty_and_says_so(http: httpx.Client, shopper: str) -> None:
    body = recommend(http, shopper, category="no such thing")
    assert body["items"] == []
    assert [warning["code"] for warning in body["warnings"]] == ["unknown_category", "fewer_items"]


def test_excluded_items_stay_out_and_others_take_their_place(http: httpx.Client, shopper: str) -> None:
    first = items(recommend(http, shopper))
    for query in ({"exclude": first[:3]}, {"exclude": ",".join(first[:3])}):
        second = items(recommend(http, shopper, **query))
        assert not set(second) & set(first[:3])
        assert len(set(second)) == 10


def test_a_session_is_answered_from_what_it_holds(http: httpx.Client, release: Release, shopper: str) -> None:
    history = [entry.item_id for entry in past(release, shopper)]
    body = http.post("/recommend", json={"history": history, "n": 7}).json()
    assert (body["user_id"], body["meta"]["source"], len(body["items"])) == (None, "session", 7)
    assert not set(items(body)) & set(history)
    assert "user_version" not in body["meta"]
    other = http.post("/recommend", json={"history": history[:1], "n": 7}).json()
    assert items(other) != items(body)


def test_a_session_of_unknown_items_gets_the_popular_ones(http: httpx.Client) -> None:
    for history, codes in (([], []), (["gone", "a/b #?%"], ["unknown_items"])):
        body = http.post("/recommend", json={"history": history}).json()
        assert body["meta"]["source"] == "popular"
        assert [warning["code"] for warning in body["warnings"]] == codes
        assert items(body) == items(recommend(http, "nobody at all"))


def test_an_answer_does_not_change_with_the_cache(http: httpx.Client, shopper: str) -> None:
    cold = recommend(http, shopper, n=50)
    for _ in range(3):
        assert recommend(http, shopper, n=50)["items"] == cold["items"]


def test_every_item_says_why(http: httpx.Client, shopper: str) -> None:
    history = user(http, shopper)["history"]
    body = recommend(http, shopper, n=30, explain=True)
    assert all(item["reasons"] and item["reasons"][0]["text"] for item in body["items"])
    paths = [path for item in body["items"] for reason in item["reasons"] for path in reason["paths"]]
    assert paths
    assert {path["item_id"] for path in paths} <= set(history)
    session = http.post("/recommend", json={"history": history, "n": 30, "explain": True}).json()
    everybody = http.get("/popular", params={"explain": True}).json()
    for item in (*session["items"], *everybody["items"]):
        assert item["reasons"]
    assert {reason["channel"] for item in everybody["items"] for reason in item["reasons"]} == {"popular"}
    assert [item["reasons"][0]["popularity_rank"] for item in everybody["items"]] == list(range(1, 11))
    assert "reasons" not in recommend(http, shopper)["items"][0]


JSON = {"content-type": "application/json"}
HOSTILE = [
    "a/b",
    "/",
    "//",
    "a//b/",
    "../x",
    "#",
    "?n=1",
    "100%",
    "%2F",
    "a b",
    "a+b",
    "日本語",
    "🦊",
    ";,&=",
    "'\"<>\\",
    "x" * 512,
]


@pytest.mark.parametrize("user_id", HOSTILE)
def test_any_id_comes_through_the_path(http: httpx.Client, release: Release, user_id: str) -> None:
    bought = release.catalogue.item_id(3)
    assert post(http, {"user_id": user_id, "item_id": bought, "event_id": uuid.uuid4().hex}) == ["accepted"]
    assert user(http, user_id)["history"][-1:] == [bought]
    body = recommend(http, user_id)
    assert (body["user_id"], body["meta"]["source"]) == (user_id, "sequence")
    assert bought not in items(body)


@pytest.mark.parametrize(
    "path", ["%FF", "a%C3", "a%09b", "a%0Ab", "a%0A", "%00", "%7F", "x" * 513, "%F0%9F%A6%8A" * 129]
)
def test_an_id_that_cannot_be_is_a_problem(http: httpx.Client, path: str) -> None:
    for answer in (http.get(f"/recommend/{path}"), http.get(f"/users/{path}"), http.delete(f"/users/{path}")):
        assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid_user_id")


def test_each_event_is_answered_in_its_own_right(http: httpx.Client, release: Release) -> None:
    good = release.catalogue.item_id(1)
    someone = "batch-" + uuid.uuid4().hex
    events: list[Any] = [
        {"user_id": someone, "item_id": good, "timestamp": 5},
        {"user_id": someone, "item_id": good, "timestamp": 5},
        {"user_id": someone, "item_id": "no such item"},
        {"user_id": someone, "item_id": good, "timestamp": -1},
        {"user_id": someone, "item_id": good, "timestamp": 10**12},
        {"user_id": "x" * 10_000, "item_id": good},
        {"user_id": someone},
        "no event",
        {"user_id": someone, "item_id": good, "event_id": "mine", "event": "view"},
    ]
    body = http.post("/interactions", json={"events": events}).json()
    assert [result.get("reason", result["status"]) for result in body["results"]] == [
        "accepted", "duplicate", "unknown_item", "invalid_timestamp", "timestamp_in_future", "invalid_user_id",
        "invalid_event", "invalid_event", "accepted",
    ]  # fmt: skip
    assert (body["accepted"], body["duplicates"], body["refused"]) == (2, 1, 6)
    assert body["results"][0]["event_id"] == body["results"][1]["event_id"]
    assert body["results"][-1]["event_id"] == "mine"
    nan = http.post(
        "/interactions", content=json.dumps({"events": [{**events[0], "timestamp": float("nan")}]}), headers=JSON
    )
    assert nan.json()["results"][0]["reason"] == "invalid_timestamp"


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, "request.malformed_json"),
        (b"", 422, "request.invalid"),
        (b"\xff\xfe", 400, "request.malformed_json"),
        (b"[" * 100_000, 400, "request.malformed_json"),
        (b"[]", 422, "request.invalid"),
        (b"null", 422, "request.invalid"),
        (b'{"events": []}', 422, "request.invalid"),
        (b'{"events": {}}', 422, "request.invalid"),
        (b'{"events": [{}], "more": 1}', 422, "request.invalid"),
        (json.dumps({"events": [{}] * 1001}).encode(), 422, "request.invalid"),
        (b" " * (2 * 1024 * 1024 + 1), 413, "request.too_large"),
    ],
)
def test_a_body_that_cannot_be_read_is_a_problem(http: httpx.Client, content: bytes, status: int, code: str) -> None:
    def in_parts() -> Iterator[bytes]:
        for start in range(0, len(content), 65536):
            yield content[start : start + 65536]

    for body in (content, in_parts()):
        answer = http.post("/interactions", content=body, headers=JSON)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
        assert len(answer.content) < 5000


@pytest.mark.parametrize(
    "bad", [{"history": "x"}, {"history": [1.5]}, {}, {"history": [], "users": []}, {"history": [""]}]
)
def test_a_session_that_cannot_be_read_is_a_problem(http: httpx.Client, bad: dict[str, Any]) -> None:
    assert http.post("/recommend", json=bad).status_code == 422


def test_no_resource_and_no_method_are_problems(http: httpx.Client) -> None:
    missing = http.get("/nothing")
    assert (missing.status_code, missing.json()["code"]) == (404, "http.not_found")
    for path in ("/popular&n=5", "/placements/home/items&user_id=a"):
        misspelt = http.get(path)
        assert (misspelt.status_code, misspelt.json()["code"]) == (404, "http.not_found")
        assert "Parameters begin with ?" in misspelt.json()["fix"]
    wrong = http.delete("/popular")
    assert (wrong.status_code, wrong.json()["code"], wrong.headers["allow"]) == (
        405,
        "http.method_not_allowed",
        "GET, HEAD, OPTIONS",
    )
    empty = http.get("/recommend/")
    assert (empty.status_code, empty.json()["code"]) == (422, "request.invalid_user_id")


def test_a_sane_request_id_is_taken_and_another_replaced(http: httpx.Client) -> None:
    mine = http.get("/popular", headers={"X-Request-ID": "trace-1.a:b"})
    assert mine.headers["x-request-id"] == mine.json()["meta"]["request_id"] == "trace-1.a:b"
    for insane in ("x" * 65, "a b", "{}", ""):
        replaced = http.get("/popular", headers={"X-Request-ID": insane})
        assert replaced.headers["x-request-id"] == replaced.json()["meta"]["request_id"] != insane
        assert len(replaced.headers["x-request-id"]) == 32


def test_an_erased_user_is_unknown_again(http: httpx.Client, shopper: str) -> None:
    post(http, {"user_id": shopper, "item_id": items(recommend(http, shopper))[0]})
    assert http.delete(f"/users/{shopper}").status_code == 204
    assert (user(http, shopper)["history"], user(http, shopper)["known"]) == ([], False)
    assert recommend(http, shopper)["meta"]["source"] == "popular"


def test_interests_are_told_in_the_catalogues_words(http: httpx.Client, release: Release, shopper: str) -> None:
    interests = user(http, shopper)["interests"]
    bought = {entry.item_id for entry in past(release, shopper)}
    theirs = {name for item in release.catalogue.items if item.item_id in bought for name in item.categories}
    assert {entry["words"] for entry in interests["explicit"]} <= theirs
    assert interests["explicit"]
    assert bool(interests["group"]) == bool(interests["similar_users"])


def test_probes_metrics_and_documentation(http: httpx.Client, release: Release, shopper: str) -> None:
    assert http.get("/livez").json() == {"status": "alive"}
    ready = http.get("/readyz").json()
    assert ready["live_evidence"].pop("entries_read") >= 0  # of the events of other tests
    assert ready == {
        "status": "ready",
        "release_id": release.manifest.release_id,
        "store": "ok",
        "live_evidence": {"entries_behind": 0, "seconds_behind": 0.0, "truncated": False},
    }
    recommend(http, shopper)
    text = http.get("/metrics").text
    assert f'release_id="{release.manifest.release_id}"' in text
    assert 'isrf_request_seconds_count{method="GET",route="/recommend/{user_id:path}",status="200"}' in text
    assert 'isrf_stage_seconds_count{stage="model"}' in text
    assert "isrf_answers_total" in text
    assert http.get("/docs").status_code == 200
    schema = http.get("/openapi.json").json()
    answer = schema["paths"]["/recommend/{user_id}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer["$ref"].endswith("/Recommendations")
    refused = schema["paths"]["/recommend/{user_id}"]["get"]["responses"]["422"]["$ref"].rpartition("/")[2]
    assert list(schema["components"]["responses"][refused]["content"]) == ["application/problem+json"]


def test_answers_are_what_the_documentation_says(http: httpx.Client, shopper: str) -> None:
    from service.api.schemas import answers as schemas

    schemas.Recommendations.model_validate(recommend(http, shopper, explain=True))
    schemas.PopularItems.model_validate(http.get("/popular").json())
    schemas.UserAnswer.model_validate(user(http, shopper))
    schemas.Readiness.model_validate(http.get("/readyz").json())
    posted = http.post("/interactions", json={"events": [{}, {"user_id": "a", "item_id": "b"}]})
    schemas.InteractionsAnswer.model_validate(posted.json())


def test_the_log_is_json_without_anybodys_id(http: httpx.Client, service: ServiceProcess, shopper: str) -> None:
    mark = uuid.uuid4().hex
    http.get(f"/recommend/{shopper}-{mark}", headers={"X-Request-ID": "log-" + mark, "X-API-Key": "key-" + mark})
    http.post("/interactions", json={"events": [{"user_id": mark, "item_id": mark}]})
    lines = [json.loads(line) for line in service.log.splitlines()]
    (mine,) = [line for line in lines if line.get("request_id") == "log-" + mark]
    assert (mine["event"], mine["route"], mine["status"]) == ("request", "/recommend/{user_id:path}", 200)
    assert service.log.count(mark) == 1, "the request id alone"


def test_a_parameter_that_nobody_knows_is_refused(http: httpx.Client) -> None:
    for path, query, code in (
        ("/popular", "include-seen=true", "request.unknown_parameter"),
        ("/popular", "=null", "request.unknown_parameter"),
        ("/popular", "n=1&n=2", "request.repeated_parameter"),
        ("/users/ann", "n=1", "request.unknown_parameter"),
    ):
        answer = http.get(f"{path}?{query}")
        assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert http.post("/recommend?n=1", json={"history": []}).json()["code"] == "request.unknown_parameter"
    assert http.get("/popular?exclude=a&exclude=b").status_code == 200


def test_an_event_follows_the_releases_history(service: ServiceProcess, http: httpx.Client, release: Release) -> None:
    items = [item.item_id for item in release.catalogue.items[:3]]
    known = [user_id for user_id in release.users.ids if len(release.users.tail(user_id)) > 3][-2:]
    posted = [{"user_id": user_id, "item_id": items[0]} for user_id in (*known, "a newcomer")]
    assert http.post("/interactions", json={"events": posted[::2]}).json()["accepted"] == 2
    lines = "\n".join(map(json.dumps, [posted[1], posted[1] | {"item_id": items[1]}]))
    assert http.post("/import/events", content=lines).json()["accepted"] == 2
    with closing(sqlite3.connect(service.folder / "state" / JOURNAL_FILE)) as db:
        stored = [read_event(row[0]) for row in db.execute("SELECT payload FROM journal ORDER BY seq")]
    found = [(one.user_id, one.item_id, list(one.followed)) for one in stored[-4:]]
    tails = {user_id: [entry.item_id for entry in release.users.tail(user_id)] for user_id in known}

    def without(item_id: str, followed: Sequence[str]) -> list[str]:
        return [other for other in followed if other != item_id][:FOLLOWED_ITEMS]

    first, last = known
    assert sorted(found[:2]) == sorted(
        [(first, items[0], without(items[0], tails[first])), ("a newcomer", items[0], [])]
    )
    second = without(items[1], [items[0], *without(items[0], tails[last])])
    assert found[2:] == [(last, items[0], without(items[0], tails[last])), (last, items[1], second)]
