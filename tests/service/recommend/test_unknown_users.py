"""An answer for a user_id that nobody knows says so, however it was made."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.service.told import Answered


@pytest.fixture(scope="module")
def http(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    chosen = Settings(releases_dir=tiny_release, state_dir=tmp_path_factory.mktemp("state"), deadline_s=60)
    with TestClient(create_app(chosen)) as http:
        yield http


@pytest.fixture(scope="module")
def users(tiny_release: Path) -> list[str]:
    return pl.read_parquet(tiny_release / "current" / "users.parquet")["user_id"].to_list()


@pytest.fixture
def nobody() -> str:
    return "nobody-" + uuid.uuid4().hex


def codes(answer: Answered | dict[str, Any]) -> list[str]:
    body = answer if isinstance(answer, dict) else answer.json()
    return [warning["code"] for warning in body["warnings"]]


def item_of(http: TestClient) -> str:
    item_id: str = http.get("/popular?n=1").json()["items"][0]["item_id"]
    return item_id


def test_every_answer_for_nobody_says_so(http: TestClient, users: list[str], nobody: str) -> None:
    item = item_of(http)
    for _ in range(3):  # made, from the cache, and around the framework
        assert codes(http.get(f"/recommend/{nobody}")) == ["unknown_user"]
        assert codes(http.get(f"/recommend/{nobody}?n=3&explain=true")) == ["unknown_user"]
        assert codes(http.get(f"/recommend/{users[0]}")) == []
        many = http.post("/recommend", json={"users": [users[0], nobody, users[1], nobody]}).json()["answers"]
        assert [codes(answer) for answer in many] == [[], ["unknown_user"], [], ["unknown_user"]]
    assert codes(http.get(f"/recommend/{nobody}?session={item}")) == ["unknown_user"]
    assert codes(http.post("/recommend", json={"history": [item], "user_id": nobody})) == ["unknown_user"]
    assert codes(http.post("/rank", json={"candidates": [item], "user_id": nobody})) == ["unknown_user"]
    first = http.get(f"/recommend/{nobody}").json()["meta"]
    page = {"recommendation_id": first["recommendation_id"], "offset": first["next_offset"]}
    assert codes(http.get(f"/recommend/{nobody}", params=page)) == ["unknown_user"]
    # Who names no user is told nothing of one.
    assert codes(http.post("/recommend", json={"history": [item]})) == []
    assert codes(http.post("/rank", json={"candidates": [item]})) == []
    assert codes(http.get("/popular")) == []


def test_an_id_beside_a_known_one_is_another(http: TestClient, users: list[str]) -> None:
    for other in (f"{users[0]}/", f"{users[0]} ", users[0].upper(), f"{users[0]}%2F"):
        assert codes(http.get(f"/recommend/{other}")) == ["unknown_user"], other
    assert codes(http.get(f"/recommend/{users[0]}")) == []


@pytest.mark.parametrize("event", ["purchase", "view", "dislike", "remove"])
def test_one_event_makes_a_user_known_and_an_erasure_unknown(http: TestClient, nobody: str, event: str) -> None:
    item = item_of(http)
    assert codes(http.get(f"/recommend/{nobody}")) == ["unknown_user"]
    posted = {"events": [{"user_id": nobody, "item_id": item, "event": event}]}
    assert http.post("/interactions", json=posted).json()["accepted"] == 1
    assert codes(http.get(f"/recommend/{nobody}")) == []
    assert http.get(f"/users/{nobody}").json()["known"] is True
    http.delete(f"/users/{nobody}")
    assert codes(http.get(f"/recommend/{nobody}")) == ["unknown_user"]
    assert http.get(f"/users/{nobody}").json()["known"] is False


def test_a_user_of_the_release_is_known_until_erased(http: TestClient, users: list[str]) -> None:
    for user in users[:40]:
        assert codes(http.get(f"/recommend/{user}")) == []
    http.delete(f"/users/{users[39]}")
    assert codes(http.get(f"/recommend/{users[39]}")) == ["unknown_user"]


def test_candidates_are_ranked_by_the_history_where_the_user_has_none(
    http: TestClient, users: list[str], nobody: str
) -> None:
    candidates = [item["item_id"] for item in http.get("/popular?n=50").json()["items"]]
    history = http.get(f"/users/{users[0]}").json()["history"]
    by_history = http.post("/rank", json={"candidates": candidates, "history": history}).json()
    for_nobody = http.post("/rank", json={"candidates": candidates, "history": history, "user_id": nobody}).json()
    assert for_nobody["items"] == by_history["items"]
    assert for_nobody["meta"]["source"] == by_history["meta"]["source"] == "session"
    own = http.post("/rank", json={"candidates": candidates, "user_id": users[1]}).json()
    assert (
        http.post("/rank", json={"candidates": candidates, "user_id": users[1], "history": history}).json()["items"]
        == own["items"]
    ), "who has a history of their own is ranked by it"


def popular_reasons(http: TestClient, path: str, **query: Any) -> tuple[dict[str, Any], set[str]]:
    """An answer's `meta`, and what its reasons of popularity say behind the rank."""
    body = http.get(path, params={"explain": True, "n": 5, **query}).json()
    texts = [one["text"] for item in body["items"] for one in item["reasons"] if one["channel"] == "popular"]
    assert len(texts) == 5
    return body["meta"], {text.partition(" by ")[2] for text in texts}


def test_a_later_page_gives_the_reasons_of_its_list(http: TestClient, nobody: str) -> None:
    http.put("/placements/best", json={"kind": "popular", "length": 5})
    for path, whom in ((f"/recommend/{nobody}", "new shoppers"), ("/placements/best/items", "shoppers")):
        meta, first = popular_reasons(http, path)
        if nobody in path:  # with a history of their own, they read on in the list from before
            event = {"user_id": nobody, "item_id": item_of(http), "event": "view"}
            assert http.post("/interactions", json={"events": [event]}).json()["accepted"] == 1
        page = {"recommendation_id": meta["recommendation_id"], "offset": meta["next_offset"]}
        _, second = popular_reasons(http, path, **page)
        assert first == second == {f"what {whom} took lately."}
