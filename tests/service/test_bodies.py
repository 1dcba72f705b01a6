"""What a body may be: ids as strings or integers on every route, and faults named where they are."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings


@pytest.fixture(scope="module")
def http(demo_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    chosen = Settings(releases_dir=demo_release, state_dir=tmp_path_factory.mktemp("state"), deadline_s=60, demo=True)
    with TestClient(create_app(chosen)) as http:
        assert http.put("/items/7", json={"title": "Wireless headphones", "price": 7.0}).status_code == 200
        yield http


def good(answer: httpx.Response) -> dict[str, Any]:
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
        "meta": 0,
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
    for state in (
        {"user_id": "u", "history": [{"item_id": "7", "timestamp": wrong}]},
        {"user_id": "u", "bought": {"7": wrong}},
    ):
        (problem,) = post_lines(http, "/import/users", state)["problems"]
        assert problem["detail"].endswith("Input should be a valid number")
        assert "float" not in problem["detail"]
        assert "int." not in problem["detail"]
