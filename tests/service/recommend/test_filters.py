"""Never an item that a filter, a purchase or a dislike forbids, and n of the others while there are n."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.app import create_app
from service.settings import Settings

FEW = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True)
class Shop:
    """What the release's files say, and the service in this process."""

    http: TestClient
    items: list[dict[str, Any]]
    histories: dict[str, list[str]]
    """Bought items by user; every event of the histories excludes its item, or is left out here."""

    def __repr__(self) -> str:
        return "the shop"


@pytest.fixture(scope="module")
def shop(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tiny_release / "current"
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    users = pl.read_parquet(folder / "users.parquet").with_row_index("user_index").cast({"user_index": pl.Int32})
    told = pl.read_parquet(folder / "histories.parquet").join(users, on="user_index")
    bought = {
        row["user_id"]: [
            item
            for item, kind in zip(row["item_ids"], row["events"], strict=True)
            if (kind or "").lower() in {"", "purchase"}
        ]
        + row["disliked_item_ids"]
        for row in told.iter_rows(named=True)
    }
    chosen = Settings(releases_dir=tiny_release, state_dir=tmp_path_factory.mktemp("state"), deadline_s=60)
    with TestClient(create_app(chosen)) as http:
        yield Shop(http, items, bought)


CATEGORIES = ("Headphones", "Tents", "Outdoor & Camping", "no such category")
PRICES = st.none() | st.sampled_from([0.0, 5.0, 19.99, 40.0, 1e6])


@FEW
@given(
    who=st.integers(-3, 119),
    n=st.sampled_from([1, 10, 37, 200]),
    category=st.none() | st.sampled_from(CATEGORIES) | st.integers(0, 119),
    prices=st.tuples(PRICES, PRICES),
    exclude=st.sets(st.integers(0, 119), max_size=60) | st.just(set(range(0, 120, 2))),
    diversity=st.sampled_from([0.0, 0.0, 0.3, 1.0]),
)
def test_nothing_forbidden_and_never_too_few(
    shop: Shop,
    who: int,
    n: int,
    category: str | int | None,
    prices: tuple[float | None, float | None],
    exclude: set[int],
    diversity: float,
) -> None:
    users = sorted(shop.histories)
    user = users[who % len(users)] if who >= 0 else None
    if isinstance(category, int):
        category = (shop.items[category % len(shop.items)].get("categories") or ["none"])[-1]
    excluded = {shop.items[row % len(shop.items)]["item_id"] for row in exclude}
    limits = {"min_price": prices[0], "max_price": prices[1], "category": category, "diversity": diversity, "n": n}
    asked = {name: value for name, value in limits.items() if value is not None}

    def left(forbidden: set[str]) -> set[str]:
        return {
            item["item_id"]
            for item in shop.items
            if item["item_id"] not in forbidden
            and (category is None or category in item.get("categories", ()))
            and (prices[0] is None or (item.get("price") is not None and item["price"] >= prices[0]))
            and (prices[1] is None or (item.get("price") is not None and item["price"] <= prices[1]))
        }

    history = shop.histories[user] if user else [shop.items[0]["item_id"]]
    query = {**asked, "exclude": sorted(excluded)}
    answers = [
        (shop.http.get("/popular", params=query), left(excluded)),
        (shop.http.get(f"/recommend/{user or 'nobody'}", params=query), left(excluded | set(history if user else ()))),
        (
            shop.http.post("/recommend", json={**asked, "exclude": sorted(excluded), "history": history}),
            left(excluded | set(history)),
        ),
        (
            shop.http.get(f"/recommend/{user or 'nobody'}", params={**asked, "include_seen": True}),
            left(set()),
        ),
        (shop.http.get(f"/similar/{history[0]}", params=query), left(excluded | {history[0]})),
    ]
    for answer, allowed in answers:
        assert answer.status_code == 200, answer.text
        body = answer.json()
        found = [item["item_id"] for item in body["items"]]
        assert set(found) <= allowed
        assert len(found) == len(set(found)) == min(n, len(allowed))
        codes = {warning["code"] for warning in body["warnings"]}
        assert ("fewer_items" in codes) == (len(found) < n)
        assert ("unknown_category" in codes) == (category == "no such category" or category == "none")


def test_diversity_is_less_of_the_same(shop: Shop) -> None:
    user = sorted(shop.histories)[3]
    plain = shop.http.get(f"/recommend/{user}").json()["items"]
    assert shop.http.get(f"/recommend/{user}", params={"diversity": 0}).json()["items"] == plain
    spread = shop.http.get(f"/recommend/{user}", params={"diversity": 0.8}).json()["items"]
    categories = {item["item_id"]: tuple(item["categories"]) for item in shop.items}
    assert spread[0] == plain[0]

    def kinds(items: list[dict[str, Any]]) -> int:
        return len({categories[item["item_id"]] for item in items})

    assert kinds(spread) > kinds(plain)


@pytest.mark.parametrize("bad", [{"min_price": -1}, {"max_price": "nan"}, {"diversity": 1.1}, {"diversity": "x"}])
def test_an_impossible_filter_is_a_problem(shop: Shop, bad: dict[str, Any]) -> None:
    for path in ("/popular", "/recommend/ann"):
        answer = shop.http.get(path, params=bad)
        assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid")
