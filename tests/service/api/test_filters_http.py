"""`filter=` over HTTP: on every list, on later pages, with the shop's attributes; wrong conditions are problems."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.app import create_app
from service.settings import Settings
from tests.service.releases import seal

FEW = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SHOPPER = "ann"


def attributes(row: int) -> dict[str, Any]:
    return {
        "stock": row % 7,
        "colour": ["red", "blue", None][row % 3],
        "organic": row % 2 == 0,
        "tags": ["sale"] if row % 5 == 0 else [],
        "released": f"2026-0{row % 9 + 1}-01",
    }


@dataclass(frozen=True)
class Shop:
    http: TestClient
    items: list[dict[str, Any]]

    def __repr__(self) -> str:
        return "the shop"

    def ids(self, path: str, **params: Any) -> list[str]:
        answer = self.http.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return [item["item_id"] for item in answer.json()["items"]]

    def where(self, holds: Callable[[dict[str, Any]], bool]) -> set[str]:
        return {item["item_id"] for item in self.items if holds(item)}


@pytest.fixture(scope="module")
def shop(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    releases = tmp_path_factory.mktemp("releases")
    folder = releases / "with-attributes"
    shutil.copytree((tiny_release / "current").resolve(), folder)
    (releases / "current").symlink_to(folder.name)
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    for row, item in enumerate(items):
        item["metadata"] = {**(item.get("metadata") or {}), **attributes(row)}
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    seal(folder)
    chosen = Settings(releases_dir=releases, state_dir=tmp_path_factory.mktemp("state"), deadline_s=60)
    with TestClient(create_app(chosen)) as http:
        event = {"user_id": SHOPPER, "item_id": items[0]["item_id"], "event": "view"}
        http.post("/interactions", json={"events": [event]})
        yield Shop(http, items)


def stock(item: dict[str, Any]) -> int:
    return int(item["metadata"]["stock"])


CONDITIONS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "stock > 3": lambda item: stock(item) > 3,
    "stock > 3 AND organic": lambda item: stock(item) > 3 and item["metadata"]["organic"],
    "colour = 'red' OR organic": lambda item: item["metadata"]["colour"] == "red" or item["metadata"]["organic"],
    "'sale' IN tags": lambda item: bool(item["metadata"]["tags"]),
    "NOT colour = 'red'": lambda item: item["metadata"]["colour"] == "blue",
    "released >= '2026-07-01'": lambda item: item["metadata"]["released"] >= "2026-07-01",
    "price BETWEEN 5 AND 40": lambda item: item.get("price") is not None and 5 <= item["price"] <= 40,
    "stock > 99": lambda item: False,
    "NOT user.bought": lambda item: True,
}


@FEW
@given(
    condition=st.sampled_from(sorted(CONDITIONS)),
    n=st.sampled_from([1, 10, 200]),
    diversity=st.sampled_from([0.0, 0.5]),
    user=st.sampled_from([SHOPPER, "nobody"]),
)
def test_no_list_has_a_wrong_item_or_too_few(shop: Shop, condition: str, n: int, diversity: float, user: str) -> None:
    right = shop.where(CONDITIONS[condition])
    first = shop.items[0]["item_id"]
    params: dict[str, Any] = {"filter": condition, "n": n, "diversity": diversity}
    both = {name: value for name, value in params.items() if name != "n"}
    calls = [
        (shop.http.get("/popular", params=params), right),
        (shop.http.get(f"/recommend/{user}", params=params), right),
        (shop.http.get(f"/similar/{first}", params=params), right - {first}),
        (shop.http.post("/recommend", json={**params, "history": [first]}), right - {first}),
        (
            shop.http.post("/rank", json={**both, "candidates": [item["item_id"] for item in shop.items]}),
            right,
        ),
    ]
    many = shop.http.post("/recommend", json={**params, "users": [user, SHOPPER]}).json()["answers"]
    bodies = [(answer.json(), allowed) for answer, allowed in calls] + [(answer, right) for answer in many]
    for body, allowed in bodies:
        found = {item["item_id"] for item in body["items"]}
        assert found <= allowed
        if body is not bodies[4][0]:
            assert len(found) == min(n, len(allowed))
            codes = {warning["code"] for warning in body["warnings"]}
            assert ("fewer_items" in codes) == (len(found) < n)


def test_later_pages_keep_the_filter(shop: Shop) -> None:
    params: dict[str, Any] = {"filter": "stock > 3", "n": 5}
    first = shop.http.get(f"/recommend/{SHOPPER}", params=params).json()
    page = {"recommendation_id": first["meta"]["recommendation_id"], "offset": 5, "n": 5}
    later = shop.http.get(f"/recommend/{SHOPPER}", params=page).json()
    assert len(later["items"]) == 5
    assert {item["item_id"] for item in later["items"]} <= shop.where(lambda item: stock(item) > 3)
    gone = later["items"][0]["item_id"]
    shop.http.put(f"/items/{gone}", json={"metadata": {"stock": 0}})
    again = shop.http.get(f"/recommend/{SHOPPER}", params={**page, "filter": "stock > 3"}).json()
    assert gone not in {item["item_id"] for item in again["items"]}
    other = shop.http.get(f"/recommend/{SHOPPER}", params={**page, "filter": "stock > 4"})
    assert (other.status_code, other.json()["code"]) == (422, "recommendation.other_parameters")
    shop.http.put(f"/items/{gone}", json={"metadata": {"stock": 5}})


def test_a_changed_attribute_counts_at_once(shop: Shop) -> None:
    item_id = shop.items[1]["item_id"]
    assert item_id not in shop.ids("/popular", filter="colour = 'gold'")
    put = shop.http.put(f"/items/{item_id}", json={"metadata": {"colour": "gold", "origin": "Jena"}}).json()
    assert (put["item"]["metadata"]["colour"], put["item"]["metadata"]["stock"]) == ("gold", 1)
    assert shop.ids("/popular", filter="colour = 'gold'") == [item_id]
    assert shop.ids("/popular", filter="origin = 'Jena' AND stock = 1") == [item_id]
    assert shop.http.get(f"/items/{item_id}").json()["item"]["metadata"]["origin"] == "Jena"
    line = next(json.loads(line) for line in shop.http.get("/export/items").text.splitlines() if f'"{item_id}"' in line)
    assert (line["colour"], line["origin"]) == ("gold", "Jena")
    shop.http.put(f"/items/{item_id}", json={"metadata": {"colour": "blue"}})
    assert shop.ids("/popular", filter="colour = 'gold'") == []


def test_a_bought_item_is_known_to_the_condition(shop: Shop) -> None:
    bought = shop.items[3]["item_id"]
    shop.http.post("/interactions", json={"events": [{"user_id": "bo", "item_id": bought, "event": "purchase"}]})
    assert shop.ids("/recommend/bo", filter="user.bought", include_seen=True) == [bought]
    assert bought not in shop.ids("/recommend/bo", filter="NOT user.bought", include_seen=True, n=200)
    assert shop.ids("/popular", filter="user.bought") == []


def test_the_call_brings_its_context(shop: Shop) -> None:
    right = shop.where(lambda item: item["metadata"]["colour"] == "red")
    condition = "colour = context.theme OR context.theme = 'all'"
    params: dict[str, Any] = {"filter": condition, "n": 200}
    assert set(shop.ids("/popular", **params, **{"context.theme": "red"})) == right
    assert len(shop.ids("/popular", **params, **{"context.theme": "all"})) == len(shop.items)
    body = {**params, "context": {"theme": "red"}, "history": [shop.items[0]["item_id"]]}
    answer = shop.http.post("/recommend", json=body).json()
    assert {item["item_id"] for item in answer["items"]} == right - {shop.items[0]["item_id"]}
    for missing in (shop.http.get("/popular", params=params), shop.http.get("/popular?context.a=1", params=params)):
        problem = missing.json()
        assert (missing.status_code, problem["code"]) == (422, "condition.invalid")
        assert problem["detail"] == "the condition, at character 10: the call brings no context.theme."
        assert problem["fix"] == 'Send context.theme=VALUE, or in a body "context": {"theme": "VALUE"}.'
    twice = shop.http.get("/popular?context.a=1&context.a=2")
    assert (twice.status_code, twice.json()["code"]) == (422, "request.repeated_parameter")
    long = shop.http.get("/popular", params={"context.a": "x" * 300})
    assert (long.status_code, long.json()["code"]) == (422, "request.invalid")
    assert shop.http.get("/users/ann", params={"context.a": "1"}).status_code == 422


def test_a_placements_filter_has_no_context(shop: Shop) -> None:
    def refused(condition: str) -> dict[str, Any]:
        answer = shop.http.put("/placements/home", json={"kind": "popular", "filter": condition})
        problem: dict[str, Any] = answer.json()
        assert (answer.status_code, problem["code"]) == (422, "condition.invalid")
        return problem

    problem = refused("colour = context.theme")
    message = "filter: the condition, at character 10: this call has no context, so there is no context.theme."
    assert problem["detail"] == message
    assert "context belongs to a call that asks for a list" in problem["fix"]
    for unknown in ("contxt.theme = 'red'", "theme = 'red'", "nothing_like_it_at_all > 1"):
        problem = refused(unknown)
        assert "there is no attribute" in problem["detail"]
        assert "context." not in problem["fix"]


def test_several_categories_and_none_of_others(shop: Shop) -> None:
    names = sorted({name for item in shop.items for name in item.get("categories") or ()})
    first, second = names[0], names[-1]

    def has(item: dict[str, Any], *wanted: str) -> bool:
        return bool({*wanted} & {*(item.get("categories") or ())})

    either = shop.where(lambda item: has(item, first, second))
    assert set(shop.ids("/popular", category=[first, second], n=200)) == either
    assert set(shop.ids("/popular", exclude_category=first, n=200)) == shop.where(lambda item: not has(item, first))
    body = {"history": [], "category": [first, second], "exclude_category": [second], "n": 200}
    answer = shop.http.post("/recommend", json=body).json()
    expected = shop.where(lambda item: has(item, first, second) and not has(item, second))
    assert {item["item_id"] for item in answer["items"]} == expected


WRONG = [
    "prise < 3",
    "price = 'x'",
    "price < (SELECT 1)",
    "count(*) > 1",
    "((((((((((((((price < 1))))))))))))))",
    "title ~ '('",
    r"title ~ '\pL{100}x'",
    " OR ".join(["price < 1"] * 60),
    "x" * 3000,
    "price < 1;",
    "",
]


@pytest.mark.parametrize("condition", WRONG)
def test_a_wrong_condition_is_a_problem_on_every_list(shop: Shop, condition: str) -> None:
    first = shop.items[0]["item_id"]
    paths = ("/popular", "/recommend/x", f"/similar/{first}")
    answers = [
        *(shop.http.get(path, params={"filter": condition}) for path in paths),
        shop.http.post("/recommend", json={"filter": condition, "history": [first]}),
        shop.http.post("/recommend", json={"filter": condition, "users": ["x"]}),
        shop.http.post("/rank", json={"filter": condition, "candidates": [first]}),
    ]
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (422, "condition.invalid")
        assert answer.json()["fix"]


def test_an_answer_is_cached_for_its_condition(shop: Shop) -> None:
    def asked(condition: str) -> list[str]:
        return shop.ids(f"/recommend/{SHOPPER}", filter=condition, n=20)

    assert asked("organic") == asked("organic")
    assert not set(asked("organic")) & set(asked("NOT organic"))


def test_now_moves_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    condition = "released > now"
    assert shop.ids(f"/recommend/{SHOPPER}", filter=condition, n=200) == shop.ids("/popular", filter=condition) == []
    earlier = 1_767_225_600.0  # 2026-01-01
    monkeypatch.setattr(time, "time", lambda: earlier)
    found = shop.ids(f"/recommend/{SHOPPER}", filter=condition, n=200)
    assert set(found) == shop.where(lambda item: item["metadata"]["released"] > "2026-01-01")


def test_changed_attributes_outlive_the_process(tiny_release: Path, tmp_path: Path) -> None:
    chosen = Settings(releases_dir=tiny_release, state_dir=tmp_path, deadline_s=60)
    with TestClient(create_app(chosen)) as http:
        item_id = http.get("/popular", params={"n": 1}).json()["items"][0]["item_id"]
        http.put(f"/items/{item_id}", json={"metadata": {"shelf": "A-7", "stock": 2}})
        http.put("/items/new-one", json={"title": "Wireless Headphones", "metadata": {"shelf": "A-7", "stock": 4}})
    with TestClient(create_app(chosen)) as http:
        shelf: dict[str, Any] = {"filter": "shelf = 'A-7' AND stock > 1", "n": 200}
        assert {item["item_id"] for item in http.get("/popular", params=shelf).json()["items"]} == {item_id, "new-one"}
        assert http.get("/items/new-one").json()["item"]["metadata"] == {"shelf": "A-7", "stock": 4}
