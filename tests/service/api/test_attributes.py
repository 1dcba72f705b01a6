"""GET /attributes tells what conditions may name; what it shows can be written into one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.api.schemas.answers import AttributesAnswer
from service.app import create_app
from service.settings import Settings


@pytest.fixture(scope="module")
def http(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    chosen = Settings(releases_dir=tiny_release, state_dir=tmp_path_factory.mktemp("attributes"), deadline_s=60)
    with TestClient(create_app(chosen)) as client:
        yield client


def attributes(http: TestClient, **query: Any) -> dict[str, dict[str, Any]]:
    answer = http.get("/attributes", params=query)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    AttributesAnswer.model_validate(body)
    return {one["name"]: one for one in body["attributes"]}


def test_examples_are_values_of_conditions(http: TestClient) -> None:
    found = attributes(http)
    assert list(found)[:5] == ["item_id", "title", "brand", "categories", "price"]
    brand, category = found["brand"]["examples"][0], found["categories"]["examples"][0]
    for condition in (f"brand = '{brand}'", f"'{category}' IN categories", f"price <= {found['price']['examples'][0]}"):
        assert http.get("/popular", params={"filter": condition, "n": 1}).json()["items"], condition


def test_an_attribute_of_a_changed_item_is_told(http: TestClient) -> None:
    assert "colour" not in attributes(http)
    item_id = http.get("/popular", params={"n": 1}).json()["items"][0]["item_id"]
    assert http.put(f"/items/{item_id}", json={"metadata": {"colour": "red"}}).status_code == 200
    assert attributes(http)["colour"] == {"name": "colour", "type": "text", "items": 1, "examples": ["red"]}


def test_there_are_at_most_as_many_examples_as_asked(http: TestClient) -> None:
    assert [len(one["examples"]) for one in attributes(http, limit=1).values()].count(1) > 3
    assert all(one["examples"] == [] for one in attributes(http, limit=0).values())
    for limit in (-1, 201, "x"):
        assert http.get("/attributes", params={"limit": limit}).status_code == 422
