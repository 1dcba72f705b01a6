"""Given candidates in their order, many users at once, and items like an item."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient

from isrf.method.evidence import SparseLists
from isrf.method.kinds.similar import likeness
from service.api.schemas import answers as schemas
from service.app import create_app
from service.settings import Settings
from tests.service.told import Answered


@pytest.fixture(scope="module")
def http(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with TestClient(
        create_app(Settings(releases_dir=tiny_release, state_dir=tmp_path_factory.mktemp("state"), deadline_s=60))
    ) as http:
        yield http


@pytest.fixture(scope="module")
def items(tiny_release: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tiny_release / "current" / "items.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def users(tiny_release: Path) -> list[str]:
    return pl.read_parquet(tiny_release / "current" / "users.parquet")["user_id"].to_list()


def ids(body: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in body["items"]]


def good(answer: Answered) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_all_candidates_come_back_in_order(http: TestClient, items: list[dict[str, Any]], users: list[str]) -> None:
    every = [item["item_id"] for item in items]
    for asked in ({"user_id": users[5]}, {"history": every[:3]}):
        body = good(http.post("/rank", json={"candidates": every, **asked}))
        assert sorted(ids(body)) == sorted(every)
        assert [item["rank"] for item in body["items"]] == list(range(1, len(every) + 1))
        scores = [item["score"] for item in body["items"]]
        assert scores == sorted(scores, reverse=True)
        assert "popular" not in {item["source"] for item in body["items"]}, "none is there to fill up"
        assert body["warnings"] == []
        first = good(http.post("/rank", json={"candidates": every[::-1], "n": 7, **asked}))
        assert ids(first) == ids(body)[:7], "whatever order they were sent in"
        schemas.Recommendations.model_validate(body)


def test_what_was_seen_stays(http: TestClient, users: list[str]) -> None:
    history = good(http.get(f"/users/{users[5]}"))["history"]
    body = good(http.post("/rank", json={"candidates": history, "user_id": users[5]}))
    assert sorted(ids(body)) == sorted(set(history))
    assert body["meta"]["source"] == "sequence"
    assert body["meta"]["user_version"] == "0"


def test_unknown_candidates_are_named(http: TestClient, items: list[dict[str, Any]], users: list[str]) -> None:
    known = [item["item_id"] for item in items[:4]]
    body = good(http.post("/rank", json={"candidates": ["gone", *known, "gone", "a/b"], "user_id": users[0]}))
    assert sorted(ids(body)) == sorted(known)
    (warning,) = body["warnings"]
    assert (warning["code"], warning["item_ids"]) == ("unknown_candidates", ["gone", "a/b"])
    nothing = good(http.post("/rank", json={"candidates": ["gone"], "user_id": users[0]}))
    assert (nothing["items"], nothing["warnings"][0]["item_ids"]) == ([], ["gone"])


def test_nobody_known_gets_candidates_by_popularity(http: TestClient) -> None:
    popular = ids(good(http.get("/recommend/nobody?n=20")))
    for asked in ({}, {"user_id": "nobody"}, {"history": ["gone"]}):
        body = good(http.post("/rank", json={"candidates": popular[::-1], **asked}))
        assert (ids(body), body["meta"]["source"]) == (popular, "popular")


def test_an_order_is_explained(http: TestClient, items: list[dict[str, Any]], users: list[str]) -> None:
    body = good(
        http.post(
            "/rank",
            json={"candidates": [item["item_id"] for item in items[::40]], "user_id": users[9], "explain": True},
        )
    )
    assert all(item["reasons"] for item in body["items"])


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"candidates": []},
        {"candidates": ["x"] * 1001},
        {"candidates": ["x"], "n": 0},
        {"candidates": ["\x01"]},
        {"candidates": ["x"], "users": []},
    ],
)
def test_candidates_that_cannot_be_read_are_a_problem(http: TestClient, bad: dict[str, Any]) -> None:
    assert http.post("/rank", json=bad).status_code == 422


def test_many_users_are_answered_as_each_alone(http: TestClient, users: list[str]) -> None:
    asked = [*users[:250], "nobody", "日本語/?", users[3], users[3]]
    query: dict[str, Any] = {"n": 7, "category": None, "diversity": 0.2}
    body = good(http.post("/recommend", json={"users": asked, **query}))
    schemas.ManyRecommendations.model_validate(body)
    assert [one["user_id"] for one in body["answers"]] == asked
    for user, together in list(zip(asked, body["answers"], strict=True))[::9]:
        alone = good(http.get(f"/recommend/{quote(user, safe='')}", params={"n": 7, "diversity": 0.2}))
        for answer in (alone, together):
            answer["meta"].pop("request_id")
        assert together == alone


@pytest.mark.parametrize("bad", [[], ["x"] * 257, [""], ["\x02"], "x", [1.5]])
def test_users_that_cannot_be_are_a_problem(http: TestClient, bad: Any) -> None:
    assert http.post("/recommend", json={"users": bad}).status_code == 422


def test_similar_items_are_like_it(http: TestClient, items: list[dict[str, Any]]) -> None:
    same = []
    for item in items[::50]:
        body = good(http.get(f"/similar/{quote(item['item_id'], safe='')}", params={"n": 10, "explain": True}))
        schemas.SimilarItems.model_validate(body)
        assert (body["item_id"], body["meta"]["source"]) == (item["item_id"], "similar")
        assert item["item_id"] not in ids(body)
        assert len(set(ids(body))) == 10
        assert {one["source"] for one in body["items"]} <= {"cooccurrence", "content", "dense"}
        starts = {path["item_id"] for one in body["items"] for reason in one["reasons"] for path in reason["paths"]}
        assert starts == {item["item_id"]}
        of = {other["item_id"]: other["categories"] for other in items}
        same.append(np.mean([of[one] == item["categories"] for one in ids(body)]))
    assert np.mean(same) > 0.5


def test_there_is_nothing_like_an_unknown_item(http: TestClient) -> None:
    for path, status, code in (
        ("/similar/gone", 404, "request.unknown_item"),
        ("/similar/", 422, "request.invalid_item_id"),
        ("/similar/%FF", 422, "request.invalid_item_id"),
    ):
        answer = http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_likeness_by_hand() -> None:
    """Item 3 is cold: in no list, with a vector; item 4 has nothing at all."""
    nothing = SparseLists(np.zeros(6, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
    together = SparseLists(np.array([0, 1, 1, 1, 1, 1]), np.array([2], np.int32), np.array([1.0], np.float32))
    vectors = np.array([[1, 0], [0, 2], [-1, 0], [3, 0.1], [0, 0]], dtype=np.float32)
    like = likeness(0, {"cooccurrence": together, "content": nothing}, vectors)
    assert np.argsort(-like.scores).tolist() == [0, 3, 1, 4, 2]
    assert [like.source(row) for row in (2, 3)] == ["cooccurrence", "dense"]
    # cosines 1, 0, −1, 0.9994, 0: their mean is 0.19989
    assert like.scores[2] == pytest.approx(np.log(1 / 1e-3 + 1) + 10 * (-1 - 0.19989), abs=1e-2)
    assert like.scores[4] == pytest.approx(10 * -0.19989, abs=1e-2)
    alone = likeness(4, {"cooccurrence": together, "content": nothing}, vectors)
    assert np.isfinite(alone.scores).all()
