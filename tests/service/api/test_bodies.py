"""What a body may be: ids as strings or integers on every route, and faults named where they are."""

import gzip
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.service.told import Answered


@pytest.fixture(scope="module")
def http(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    chosen = Settings(releases_dir=tiny_release, state_dir=tmp_path_factory.mktemp("state"), deadline_s=60, demo=True)
    with TestClient(create_app(chosen)) as http:
        assert http.put("/items/7", json={"title": "Wireless headphones", "price": 7.0}).status_code == 200
        yield http


def good(answer: Answered) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def lines(*records: Any) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def post_lines(http: TestClient, path: str, *records: Any) -> dict[str, Any]:
    return good(http.post(path, content=lines(*records), headers={"Content-Type": "application/x-ndjson"}))


def ids(body: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in body["items"]]


def test_an_integer_is_its_decimal_text_in_every_field_that_is_an_id(http: TestClient) -> None:
    user = int(uuid.uuid4().hex[:12], 16)
    (result,) = good(http.post("/interactions", json={"events": [{"user_id": user, "item_id": 7, "event_id": user}]}))[
        "results"
    ]
    assert (result["status"], result["event_id"]) == ("accepted", str(user))
    assert good(http.get(f"/users/{user}"))["history"] == ["7"]
    for body in ({"history": [7]}, {"history": [], "user_id": user}):
        assert "7" not in ids(good(http.post("/recommend", json={**body, "n": 200})))
    (one, other) = good(http.post("/recommend", json={"users": [user, str(user)]}))["answers"]
    assert (one["user_id"], one["items"]) == (str(user), other["items"])
    popular = ids(good(http.get("/popular?n=1")))
    assert "7" not in ids(good(http.post("/recommend", json={"history": popular, "exclude": [7], "n": 200})))
    assert ids(good(http.post("/rank", json={"candidates": [7], "user_id": user}))) == ["7"]
    assert good(http.post("/rank", json={"candidates": [7], "history": [7]}))["warnings"] == []
    assert [card["item_id"] for card in good(http.post("/demo/items", json={"item_ids": [7]}))["items"]] == ["7"]
    assert post_lines(http, "/import/items", {"item_id": 7, "price": 8})["accepted"] == 1
    assert good(http.get("/items/7"))["item"]["price"] == 8
    event = {"user_id": user, "item_id": 7, "event": "view", "timestamp": 5}
    assert post_lines(http, "/import/events", event, {**event, "user_id": str(user)}) | {"meta": 0} == {
        "lines": 2, "accepted": 1, "duplicates": 1, "refused": 0, "reasons": {}, "problems": [], "problems_left_out": 0,
        "warnings": [], "meta": 0,
    }  # fmt: skip
    state = {"user_id": user + 1, "history": [{"item_id": 7, "timestamp": 9}], "bought": {"7": 9}}
    assert post_lines(http, "/import/users", state)["accepted"] == 1
    assert good(http.get(f"/users/{user + 1}"))["history"] == ["7"]


@pytest.mark.parametrize("wrong", [True, 7.0, 7.5, None, [7], {"id": 7}, 2**64, 10**400])
def test_what_is_neither_text_nor_a_whole_number_is_no_id(http: TestClient, wrong: Any) -> None:
    ok = "7"
    for path, body in (
        ("/recommend", {"history": [ok, wrong]}),
        ("/recommend", {"history": [ok], "user_id": wrong}),
        ("/recommend", {"history": [ok], "exclude": [wrong]}),
        ("/recommend", {"users": [ok, wrong]}),
        ("/rank", {"candidates": [ok, wrong]}),
        ("/rank", {"candidates": [ok], "history": [wrong]}),
        ("/rank", {"candidates": [ok], "user_id": wrong}),
        ("/demo/items", {"item_ids": [wrong]}),
    ):
        if wrong is None and "user_id" in body:
            continue  # null is no user
        answer = http.post(path, json=body)
        assert answer.status_code == 422, (path, body, answer.text[:300])
    for field in ("user_id", "item_id", "event_id"):
        if wrong is None and field == "event_id":
            continue
        event = {"user_id": ok, "item_id": ok, field: wrong}
        (result,) = good(http.post("/interactions", json={"events": [event]}))["results"]
        assert (result["status"], result["reason"]) == ("refused", "invalid_event")
        assert post_lines(http, "/import/events", event)["refused"] == 1
    assert post_lines(http, "/import/items", {"item_id": wrong, "price": 1})["refused"] == 1
    assert post_lines(http, "/import/users", {"user_id": wrong})["refused"] == 1
    assert (
        post_lines(http, "/import/users", {"user_id": ok, "history": [{"item_id": wrong, "timestamp": 1}]})["refused"]
        == 1
    )


@pytest.mark.parametrize("bad", ["x\n", "\n", "a\nb", "a\rb", "a\x00", "\x85", "", "x" * 513])
def test_a_control_character_is_refused_in_every_id_of_a_body_and_a_query(http: TestClient, bad: str) -> None:
    for path, body in (
        ("/recommend", {"history": [bad]}),
        ("/recommend", {"history": [], "user_id": bad}),
        ("/recommend", {"history": [], "exclude": [bad]}),
        ("/recommend", {"users": [bad]}),
        ("/rank", {"candidates": [bad]}),
        ("/rank", {"candidates": ["7"], "history": [bad]}),
        ("/rank", {"candidates": ["7"], "user_id": bad}),
        ("/demo/items", {"item_ids": [bad]}),
    ):
        answer = http.post(path, json=body)
        assert answer.status_code == 422, answer.text
        assert answer.json()["code"] in {"request.invalid_user_id", "request.invalid_item_id"}
    for field in ("user_id", "item_id", "event_id"):
        event = {"user_id": "u", "item_id": "7", field: bad}
        (result,) = good(http.post("/interactions", json={"events": [event]}))["results"]
        assert result["reason"] == f"invalid_{field}"
    if bad:
        for path, name in (("/popular", "exclude"), ("/recommend/ann", "exclude"), ("/recommend/ann", "session")):
            answer = http.get(path, params={name: bad})
            assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid_item_id")


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"users": ["a"], "n": 0}, ["body.n"]),
        ({"users": ["a"], "offset": 3}, ["body.offset"]),
        ({"users": ["a"], "more": 1}, ["body.more"]),
        ({"users": "a"}, ["body.users"]),
        ({"users": []}, ["body.users"]),
        ({"users": ["a", 1.5]}, ["body.users.1"]),
        ({"users": ["a"], "SessionRequest": 1}, ["body.SessionRequest"]),
        ({"history": ["a"], "n": 201, "diversity": 2}, ["body.n", "body.diversity"]),
        ({"history": "a"}, ["body.history"]),
        ({"history": None}, ["body.history"]),
        ({"history": [], "more": {}}, ["body.more"]),
        ({"history": [], "users": ["a"]}, ["body"]),
        ({"n": 5}, ["body"]),
        ({}, ["body"]),
        ([], ["body"]),
        ("text", ["body"]),
        (7, ["body"]),
    ],
)
def test_only_the_meant_branch_of_a_body_is_complained_of(http: TestClient, body: Any, where: list[str]) -> None:
    answer = http.post("/recommend", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid")
    assert [one["where"] for one in answer.json()["errors"]] == where
    if where == ["body"]:
        assert "`history`" in answer.json()["detail"]
        assert "`users`" in answer.json()["detail"]
    else:
        assert "Request" not in answer.json()["detail"].replace("body.SessionRequest:", "")


@pytest.mark.parametrize("wrong", ["x", True, [1], {}])
def test_a_wrong_moment_is_one_fault(http: TestClient, wrong: Any) -> None:
    event = {"user_id": "u", "item_id": "7", "timestamp": wrong}
    (result,) = good(http.post("/interactions", json={"events": [event]}))["results"]
    assert result["detail"] == "timestamp: Input should be a valid number"
    told = []
    for state in (
        {"user_id": "u", "history": [{"item_id": "7", "timestamp": wrong}]},
        {"user_id": "u", "bought": {"7": wrong}},
    ):
        (problem,) = post_lines(http, "/import/users", state)["problems"]
        told.append(problem["detail"])
    assert told == ["history.0.timestamp: Input should be a valid number", "bought: '7' has no number of seconds"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/recommend", '{"users": ["ann"], "n": 1, "n": 2}'),
        ("POST", "/recommend", '{"history": ["a:b"], "history": []}'),
        ("POST", "/recommend", '{"history": [], "users": ["ann"], "users": ["bob"]}'),
        ("POST", "/rank", '{"candidates": ["7"], "user_id": "ann", "user_id": "bob"}'),
        ("POST", "/interactions", '{"events": [{"user_id": "ann", "item_id": "7", "item_id": "8"}]}'),
        ("POST", "/interactions", '{"events": [], "events": [{"user_id": "ann", "item_id": "7"}]}'),
        ("POST", "/demo/items", '{"item_ids": ["7"], "item_ids": []}'),
        ("PUT", "/items/7", '{"title": "a: b", "metadata": {"x": [{"y": 1, "y": 2}]}}'),
    ],
)
def test_a_name_that_stands_twice_is_refused_in_every_body(http: TestClient, method: str, path: str, body: str) -> None:
    answer = http.request(method, path, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "request.duplicate_name")
    assert "stands twice" in answer.json()["detail"]


HALF = '"\\ud800"'


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/recommend", f'{{"history": [], "category": {HALF}}}'),
        ("POST", "/recommend", f'{{"history": [], "recommendation_id": {HALF}}}'),
        ("POST", "/recommend", f'{{"history": [], {HALF}: 1}}'),
        ("POST", "/recommend", f'{{"users": ["ann"], "category": {HALF}}}'),
        ("POST", "/recommend", f'{{"users": [{HALF}]}}'),
        ("POST", "/rank", f'{{"candidates": [{HALF}]}}'),
        ("POST", "/rank", f'{{"candidates": ["7"], "user_id": {HALF}}}'),
        ("PUT", "/items/8", f'{{"title": {HALF}}}'),
        ("PUT", "/items/8", f'{{"metadata": {{"x": {HALF}}}}}'),
    ],
)
def test_half_of_a_surrogate_pair_is_refused_in_every_field(
    http: TestClient, method: str, path: str, body: str
) -> None:
    answer = http.request(method, path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["code"].startswith("request.invalid")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-32-be", "latin-1", "gzip"])
def test_a_body_that_is_not_utf_8_is_told_so(http: TestClient, encoding: str) -> None:
    text = '{"history": ["\u00fc"]}'
    body = gzip.compress(text.encode()) if encoding == "gzip" else text.encode(encoding)
    for method, path in (("POST", "/recommend"), ("POST", "/rank"), ("POST", "/interactions"), ("PUT", "/items/7")):
        answer = http.request(method, path, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (400, "request.malformed_json")
        assert "not JSON in UTF-8: its byte " in answer.json()["detail"]
        assert answer.json()["fix"] == "Send JSON in UTF-8; name gzip in Content-Encoding where you compress it."


def test_no_encoding_hides_how_deep_a_body_is(http: TestClient) -> None:
    deep = '{"history": ["\\""], "x": ' + "[" * 40 + "]" * 40 + "}"
    plain, wide = (
        http.post("/recommend", content=deep.encode(encoding), headers={"Content-Type": "application/json"}).json()
        for encoding in ("utf-8", "utf-16")
    )
    assert (plain["code"], wide["code"]) == ("request.too_complex", "request.malformed_json")


@pytest.mark.parametrize(("body", "where"), [("{'history': []}", 1), ('{"history": [', 13)])
def test_malformed_json_is_told_where_it_breaks(http: TestClient, body: str, where: int) -> None:
    answer = http.post("/recommend", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "request.malformed_json")
    assert f"at character {where}" in answer.json()["detail"]
    assert "UTF-8" in answer.json()["fix"]


def test_a_number_of_thousands_of_digits_is_refused_in_words(http: TestClient) -> None:
    body = '{"history": [], "n": ' + "9" * 5000 + "}"
    answer = http.post("/recommend", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "request.malformed_json")
    assert "digits" in answer.json()["detail"]


@pytest.mark.parametrize("wrong", [[1], "text", 7])
def test_what_is_no_object_is_told_in_the_words_of_json(http: TestClient, wrong: Any) -> None:
    told = [http.post(path, json=wrong).json()["detail"] for path in ("/rank", "/interactions")]
    told.append(http.put("/items/7", json=wrong).json()["detail"])
    assert told == ["body: Input should be a JSON object"] * 3
    (result,) = good(http.post("/interactions", json={"events": [wrong]}))["results"]
    assert result["detail"] == "the event: Input should be a JSON object"
    (problem,) = post_lines(http, "/import/users", {"user_id": "u", "history": [wrong]})["problems"]
    assert problem["detail"] == "history.0: Input should be a JSON object"


@pytest.mark.parametrize("field", ["n", "min_price", "max_price", "diversity", "offset"])
def test_true_is_no_number(http: TestClient, field: str) -> None:
    answer = http.post("/recommend", json={"history": [], field: True})
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid")
    assert answer.json()["detail"] == f"body.{field}: must be a number, not true or false"


@pytest.mark.parametrize("query", ["exclude=%ff", "session=a%ed%a0%80", "category=%c3", "n=1&%fe=1"])
def test_a_query_that_is_not_utf_8_is_refused(http: TestClient, query: str) -> None:
    answer = http.get(f"/recommend/ann?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid")
    assert answer.json()["detail"] == "the query is not valid UTF-8."
