"""A release of a shop with variants counts products, from its training events alone, and serves them."""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from rich.progress import Progress

from isrf.contract.manifest import FIRST_VARIANTS_FILE
from isrf.method.evidence import lists_from_arrays
from isrf.runtime.bundle.reader import read_bundle
from isrf.runtime.limits.time_limit import TimeLimit
from offline.commands.audit import audit
from offline.commands.publish import publish
from service.app import create_app
from service.release.opening import open_folder
from service.settings import Settings
from tests.shops import Event, run_stages, write_shop

NUM_PRODUCTS, NUM_USERS = 20, 60
COLOURS = ("red", "blue", "green")


def items(*, grouped: bool) -> list[dict[str, Any]]:
    return [
        {
            "item_id": f"{product}-{colour}",
            "title": f"Product {product} {colour}",
            "categories": [f"Kind {product % 4}"],
            **({"group_id": f"product {product}"} if grouped and product % 5 else {}),
        }
        for product in range(NUM_PRODUCTS)
        for colour in COLOURS
    ]


def events() -> list[Event]:
    rng = random.Random(3)
    taken = [rng.sample(range(NUM_PRODUCTS), 7) for _ in range(NUM_USERS)]
    return [
        (f"user {user:02}", f"{product}-{rng.choice(COLOURS)}", 1000 * user + place)
        for user, products in enumerate(taken)
        for place, product in enumerate(products)
    ]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("variants")


@pytest.fixture(scope="module")
def data(root: Path) -> Path:
    return write_shop(root / "data", events(), items(grouped=True))


@pytest.fixture(scope="module")
def release(root: Path, data: Path) -> Path:
    return publish(run_stages("export", data, root / "releases")["export"], root / "releases")


def test_the_bundle_says_which_items_are_variants(release: Path) -> None:
    opened = open_folder(release)
    products = opened.recommender.tables.products
    assert products is not None
    assert products.groups.first.tolist() == opened.catalogue.groups.first.tolist()
    rows = dict(zip(opened.catalogue.rows(["7-red", "7-blue", "7-green"]), COLOURS, strict=True))
    assert sorted(rows) == opened.catalogue.groups.members(min(rows)).tolist()
    assert opened.catalogue.groups.members(opened.catalogue.rows(["5-red"])[0]).size == 1, "5 has no group"


def test_variants_have_one_row_without_their_product(release: Path) -> None:
    arrays = read_bundle(release, (), TimeLimit()).arrays
    first = arrays[FIRST_VARIANTS_FILE]
    assert (first < np.arange(len(first))).sum() == 32, "16 products of three variants"
    for name in ("transition", "cooccurrence"):
        lists = lists_from_arrays(name, arrays)
        for row in range(len(first)):
            entries, of_first = lists.entries(row), lists.entries(int(first[row]))
            assert entries.indices.tobytes() == of_first.indices.tobytes()
            assert entries.weights.tobytes() == of_first.weights.tobytes()
            assert not (first[entries.indices] == first[row]).any()


def test_products_are_counted_from_the_training_events_alone(data: Path, release: Path) -> None:
    with Progress(disable=True) as progress:
        found = {finding.line: finding.verdict for finding in audit(data, release, progress)}
    for line in ("popularity", "evidence: transition", "evidence: cooccurrence", "evidence: live counts' base"):
        assert found[line] == "ok"
    assert "leak" not in found.values()


def test_groups_of_one_item_change_no_byte(root: Path, data: Path, release: Path) -> None:
    alone = [{**item, "group_id": item["item_id"]} for item in items(grouped=False)]
    plain = [
        run_stages("evaluate", write_shop(root / name, events(), rows), root / f"{name} releases")["evaluate"]
        for name, rows in (("plain", items(grouped=False)), ("alone", alone))
    ]
    names = sorted(path.relative_to(plain[0]) for path in plain[0].rglob("*.npy"))
    assert len(names) > 10
    assert not any(name.name == Path(FIRST_VARIANTS_FILE).name for name in names)
    assert [(plain[0] / name).read_bytes() for name in names] == [(plain[1] / name).read_bytes() for name in names]


@pytest.fixture(scope="module")
def http(release: Path, root: Path) -> Iterator[TestClient]:
    chosen = Settings(releases_dir=release.parent, state_dir=root / "state", deadline_s=60, live_poll_s=0.05)
    with TestClient(create_app(chosen)) as client:
        yield client


def seen_together(http: TestClient, *item_ids: str) -> None:
    """Four new users look at one item after the other."""
    for user in range(4):
        for item_id in item_ids:
            event = {"user_id": f"{item_ids} {user}", "item_id": item_id, "event": "view"}
            assert http.post("/interactions", json={"events": [event]}).status_code == 200


def reasons(http: TestClient, history: list[str], item_id: str) -> dict[str, list[str]]:
    """The items of the history that lead to an item, by channel."""
    body = {"history": history, "n": 100, "explain": True}
    listed = http.post("/recommend", json=body).json()["items"]
    found = next(item for item in listed if item["item_id"] == item_id)
    return {
        reason["channel"]: [path["item_id"] for path in reason["paths"]]
        for reason in found["reasons"]
        if reason["channel"] in ("transition", "cooccurrence")
    }


def test_a_new_variant_leads_where_its_product_leads(http: TestClient, release: Path) -> None:
    opened = open_folder(release)
    row = opened.catalogue.rows(["7-red"])[0]
    follower = opened.catalogue.item_id(int(opened.recommender.tables.item_lists["transition"].entries(row).indices[0]))
    put = {"title": "Product 7 yellow", "group_id": "product 7"}
    assert http.put("/items/7-yellow", json=put).status_code == 200
    assert reasons(http, ["7-yellow"], follower)["transition"] == ["7-yellow"]
    assert http.put("/items/7-yellow", json={"group_id": None}).status_code == 200
    assert "transition" not in reasons(http, ["7-yellow"], follower)


def test_events_on_a_variant_count_for_all(http: TestClient, release: Path) -> None:
    listed = open_folder(release)
    row, other = listed.catalogue.rows(["8-red", "5-red"])
    assert other not in listed.recommender.tables.item_lists["transition"].entries(row).indices
    assert "transition" not in reasons(http, ["8-red"], "5-red")
    seen_together(http, "8-green", "5-red")
    for _ in range(100):
        found = reasons(http, ["8-red"], "5-red")
        if "transition" in found:
            break
        time.sleep(0.1)
    assert found["transition"] == ["8-red"]
    assert "5-blue" not in [item["item_id"] for item in http.get("/popular", params={"n": 1}).json()["items"]]


def settled(http: TestClient, path: str) -> dict[str, Any]:
    """The answer once two calls get the same one, so that it comes from the cache."""
    answers: list[dict[str, Any]] = [http.get(path).json()]
    while len(answers) < 100:
        time.sleep(0.1)
        answers.append(http.get(path).json())
        if answers[-1]["meta"]["recommendation_id"] == answers[-2]["meta"]["recommendation_id"]:
            return answers[-1]
    raise AssertionError("no answer was cached")


def test_cached_answers_follow_events_on_other_variants(http: TestClient) -> None:
    for item in ("9-red", "1-red"):
        http.post("/interactions", json={"events": [{"user_id": "cached", "item_id": item, "event": "view"}]})
    path = "/recommend/cached?n=60&include_seen=true"
    first = settled(http, path)["meta"]["recommendation_id"]
    seen_together(http, "2-green", "6-green")
    assert settled(http, path)["meta"]["recommendation_id"] == first, "other products do not matter"
    seen_together(http, "1-green", "5-green")
    assert settled(http, path)["meta"]["recommendation_id"] != first
