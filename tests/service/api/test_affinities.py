"""What a user's history has in common is ranked with its evidence, and counts from the next event on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.recommend.affinities import affinities, recency_of
from service.release.catalogue import ItemLine
from service.settings import Settings


@pytest.fixture(scope="module")
def http(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    chosen = Settings(releases_dir=tiny_release, state_dir=tmp_path_factory.mktemp("state"), deadline_s=60)
    with TestClient(create_app(chosen)) as client:
        yield client


def test_newer_events_weigh_more() -> None:
    history = [
        ItemLine(item_id="a", brand="Aero", categories=["Shoes"]),
        ItemLine(item_id="a", brand="Aero", categories=["Shoes"]),
        ItemLine(item_id="b", brand="Bo", categories=["Tents", "Shoes", "Tents"]),
    ]
    found = affinities(history, recency=0.5, limit=9)  # weights 0.25, 0.5 and 1
    assert found == {
        "brand": [
            {"value": "Bo", "weight": 0.5714, "events": 1, "items": 1},
            {"value": "Aero", "weight": 0.4286, "events": 2, "items": 1},
        ],
        "categories": [
            {"value": "Shoes", "weight": 1.0, "events": 3, "items": 2},
            {"value": "Tents", "weight": 0.5714, "events": 1, "items": 1},
        ],
    }
    assert affinities(history, recency=0.5, limit=1)["brand"] == found["brand"][:1]
    assert affinities([], recency=0.5, limit=9) == {}


def test_the_shops_own_attributes_are_ranked_where_they_hold_texts() -> None:
    history = [
        ItemLine(item_id="a", own_json=b'{"color": "red", "tags": ["sale", "sale", 3, ""], "stock": 4}'),
        ItemLine(item_id="b", brand="Bo", own_json=b'{"color": "", "tags": "sale", "stock": {"eu": 1}}'),
    ]
    found = affinities(history, recency=0.5, limit=9, names=["color", "tags", "stock", "nowhere"])
    assert found == {
        "color": [{"value": "red", "weight": 0.3333, "events": 1, "items": 1}],
        "tags": [{"value": "sale", "weight": 1.0, "events": 2, "items": 2}],
    }


def test_the_release_says_how_fast_interest_fades() -> None:
    assert recency_of({"graph": {"recency": 0.5}}) == 0.5
    assert recency_of({}) == 0.7


def test_an_event_moves_the_next_answer(http: TestClient) -> None:
    assert http.get("/users/new-one/affinities").json()["affinities"] == {}
    item = http.get("/popular").json()["items"][0]["item_id"]
    shown = http.get(f"/items/{item}").json()["item"]
    event = {"user_id": "new-one", "item_id": item, "event": "view"}
    assert http.post("/interactions", json={"events": [event]}).json()["accepted"] == 1
    body = http.get("/users/new-one/affinities").json()
    assert body["events"] == 1
    assert body["affinities"]["brand"] == [{"value": shown["brand"], "weight": 1.0, "events": 1, "items": 1}]
    assert {entry["value"] for entry in body["affinities"]["categories"]} == set(shown["categories"])
    assert body["warnings"] == []


def test_a_call_names_the_attributes(http: TestClient) -> None:
    change = {"metadata": {"color": ["blue", "white"], "size": 4}}
    item = http.get("/popular").json()["items"][1]["item_id"]
    assert http.put(f"/items/{item}", json=change).status_code == 200
    assert http.post("/interactions", json={"events": [{"user_id": "painter", "item_id": item}]}).status_code == 200
    found = http.get("/users/painter/affinities?attribute=color&attribute=color&attribute=size").json()["affinities"]
    assert {name: [entry["value"] for entry in entries] for name, entries in found.items()} == {
        "color": ["blue", "white"]
    }
    for wrong in ("attribute=", "attribute=" + "x" * 513, "&".join(["attribute=a"] * 21)):
        assert http.get(f"/users/painter/affinities?{wrong}").status_code == 422


def test_an_unknown_user_is_told_of(http: TestClient) -> None:
    body = http.get("/users/nobody-knows/affinities").json()
    assert (body["events"], body["affinities"]) == (0, {})
    assert [warning["code"] for warning in body["warnings"]] == ["unknown_user"]


def test_the_users_own_page_stays(http: TestClient) -> None:
    assert http.get("/users/new-one").json()["user_id"] == "new-one"
    assert http.get("/users/a/b/affinities").json()["user_id"] == "a/b"
    assert http.get("/users/new-one/affinities?limit=0").status_code == 422
