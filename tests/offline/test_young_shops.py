"""A shop that opened yesterday gets a release that serves what its data can tell, and says what it leaves out."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from isrf.contract.errors import DataError
from isrf.method.ranking.fusion import DEFAULT_FUSION
from offline.commands.publish import publish
from offline.commands.train import train
from offline.config import RunConfig, build_config
from offline.runtime.left_out import MIN_HELD_OUT, MIN_TARGETS, channels_left_out, parts_left_out
from offline.sizes import fit_to_shop
from service.app import create_app
from service.settings import Settings
from tests.shops import TINY, Event, run_stages, write_shop

SIZED_BY_THE_SHOP = ("search.", "semantic_ids.", "graph.max_neighbours", "train.num_direct", "train.batch")
CONFIG = build_config("demo", None, tuple(one for one in TINY if not one.startswith(SIZED_BY_THE_SHOP)))
LEARNED = {"interaction-graph", "sequence-model", "fusion-weights", "ranker", "evaluation"}
BY_COUNTING = {"content", "cooccurrence", "transition", "popular"}
KINDS = ("Oak chair", "Clay cup", "Tin lamp", "Wool rug")


def shop(folder: Path, events: Sequence[Event], num_items: int) -> Path:
    catalogue = [
        {"item_id": f"i{row}", "title": f"{KINDS[row % 4]} {row}", "categories": [KINDS[row % 4].split()[1]]}
        for row in range(num_items)
    ]
    return write_shop(folder, events, catalogue)


def released(folder: Path, data: Path, config: RunConfig = CONFIG) -> dict[str, Any]:
    """Trains and publishes; the manifest."""
    release = publish(run_stages("export", data, folder / "releases", config)["export"], folder / "releases")
    manifest: dict[str, Any] = json.loads((release / "manifest.json").read_text())
    return manifest


def service(folder: Path) -> TestClient:
    chosen = Settings(releases_dir=folder / "releases", state_dir=folder / "state", deadline_s=60)
    return TestClient(create_app(chosen), base_url="http://localhost")


def answer(http: TestClient, method: str, path: str, **more: Any) -> list[dict[str, Any]]:
    found = http.request(method, path, **more)
    assert found.status_code == 200, found.text
    items: list[dict[str, Any]] = found.json()["items"]
    assert items
    assert len({item["item_id"] for item in items}) == len(items)
    return items


def ids(items: Sequence[dict[str, Any]]) -> list[str]:
    return [item["item_id"] for item in items]


def test_three_items_and_three_users_with_an_event_each(tmp_path: Path) -> None:
    data = shop(tmp_path / "shop", [("u0", "i0", 1), ("u1", "i1", 2), ("u2", "i1", 3)], 3)
    manifest = released(tmp_path, data)
    assert set(manifest["left_out"]) == LEARNED
    assert "test" not in manifest["evaluation"]
    assert manifest["config"]["search"]["num_beams"] == 3
    with service(tmp_path) as http:
        assert ids(answer(http, "GET", "/popular"))[0] == "i1"
        assert sorted(ids(answer(http, "GET", "/recommend/u0"))) == ["i1", "i2"]
        assert ids(answer(http, "GET", "/recommend/nobody"))[0] == "i1"
        items = answer(http, "POST", "/recommend", json={"history": ["i2"]})
        assert {item["source"] for item in items} <= BY_COUNTING


def test_five_items_and_four_users(tmp_path: Path) -> None:
    taken = [("u0", "i0"), ("u0", "i3"), ("u1", "i0"), ("u1", "i3"), ("u2", "i1"), ("u2", "i2"), ("u3", "i4")]
    manifest = released(tmp_path, shop(tmp_path / "shop", [(u, i, t) for t, (u, i) in enumerate(taken)], 5))
    assert set(manifest["left_out"]) == LEARNED
    with service(tmp_path) as http:
        first = answer(http, "POST", "/recommend", json={"history": ["i0"]})[0]
        assert (first["item_id"], first["source"]) == ("i3", first["source"])
        assert first["source"] in BY_COUNTING
        assert answer(http, "POST", "/recommend", json={"history": ["i1"]})[0]["item_id"] == "i2"
        assert sorted(ids(answer(http, "GET", "/recommend/u3"))) == ["i0", "i1", "i2", "i3"]


def baskets() -> list[Event]:
    """40 users of three items each, of which the first two go together: i0 with i1, i2 with i3."""
    return [
        (f"u{user}", f"i{item}", 100 * user + place)
        for user in range(40)
        for place, item in enumerate((user % 20 * 2, user % 20 * 2 + 1, (user % 20 * 2 + 12) % 40))
    ]


def test_nobody_with_four_events(tmp_path: Path) -> None:
    manifest = released(tmp_path, shop(tmp_path / "shop", baskets(), 40))
    assert set(manifest["left_out"]) == LEARNED
    weights = manifest["fusion"]["weights"]
    assert [name for name, weight in weights.items() if not weight] == ["generative", "dense", "explicit", "group"]
    with service(tmp_path) as http:
        for row in range(0, 40, 8):
            items = answer(http, "POST", "/recommend", json={"history": [f"i{row}"], "n": 10})
            assert f"i{row + 1}" in ids(items)[:2]
            assert {item["source"] for item in items} <= BY_COUNTING
        beside = ids(answer(http, "GET", "/similar/i0", params={"n": 10}))
        assert sum(int(item[1:]) % 4 == 0 for item in beside) >= 9, "other chairs, and what was taken with this one"
        answered = http.put("/items/new", json={"title": "Tin lamp 99", "categories": ["lamp"]})
        assert answered.status_code == 200, answered.text
        beside = ids(answer(http, "GET", "/similar/new", params={"n": 5}))
        assert {int(item[1:]) % 4 for item in beside} == {2}, "a new lamp is read by its text"


def test_a_young_shop_is_trained_on_everything_with_no_order_to_judge_by(tmp_path: Path) -> None:
    data = shop(tmp_path / "shop", [("u0", "i0", 1), ("u1", "i1", 2), ("u2", "i1", 3)], 3)
    release = train(data, tmp_path / "releases", CONFIG.model_copy(update={"fit": "all"}))
    manifest = json.loads((release / "manifest.json").read_text())
    assert manifest["fit"] == "all"
    assert set(manifest["left_out"]) == LEARNED - {"evaluation"}
    assert manifest["fusion"]["weights"]["dense"] == 0


@pytest.mark.parametrize(
    ("num_items", "events", "code", "words"),
    [
        (1, [("u0", "i0", 1), ("u1", "i0", 2), ("u2", "i0", 3)], "data.too_few_items", "1 usable item"),
        (3, [("u0", "i0", 1), ("u1", "i1", 2)], "data.too_few_users", "2 of 2 users have training events"),
        (3, [("u0", "i0", 1), ("u0", "i1", 2)], "data.too_few_users", "1 of 1 users have training events"),
    ],
)
def test_a_shop_without_a_second_item_or_a_third_user_is_refused(
    tmp_path: Path, num_items: int, events: list[Event], code: str, words: str
) -> None:
    with pytest.raises(DataError) as refused:
        run_stages("export", shop(tmp_path / "shop", events, num_items), tmp_path / "r", CONFIG)
    assert (refused.value.code, words in refused.value.message) == (code, True), refused.value.message
    assert "at least 2 items" in refused.value.fix or "at least 3 users" in refused.value.fix


def report(*, targets: int, longest: int, held_out: int) -> dict[str, Any]:
    return {"learning": {"targets": targets, "longest": longest}, "counts": {"valid": held_out}}


def test_a_part_is_left_out_below_its_least_data() -> None:
    enough = report(targets=MIN_TARGETS, longest=4, held_out=MIN_HELD_OUT)
    assert parts_left_out(enough, CONFIG) == {}
    few_targets = report(targets=MIN_TARGETS - 1, longest=4, held_out=MIN_HELD_OUT)
    assert set(parts_left_out(few_targets, CONFIG)) == {"interaction-graph", "sequence-model"}
    few_judges = report(targets=MIN_TARGETS, longest=4, held_out=MIN_HELD_OUT - 1)
    assert set(parts_left_out(few_judges, CONFIG)) == {"fusion-weights", "ranker"}
    assert set(parts_left_out(report(targets=900, longest=3, held_out=0), CONFIG)) == LEARNED
    everything = CONFIG.model_copy(update={"fit": "all", "fusion": DEFAULT_FUSION})
    assert parts_left_out(report(targets=MIN_TARGETS, longest=4, held_out=0), everything) == {}
    assert channels_left_out(["interaction-graph", "ranker"]) == ("explicit", "group")


def test_sizes_fall_with_the_shop() -> None:
    config = build_config("demo")
    fitted, said = fit_to_shop(config, {"items": 3, "users": 3}, num_targets=10)
    assert (fitted.semantic_ids.levels, fitted.semantic_ids.codebook_size) == (2, 3)
    assert (fitted.search.num_beams, fitted.train.batch_size, fitted.graph.max_neighbours) == (3, 16, 2)
    assert "semantic_ids.levels: 2 instead of 4, for 3 items" in said
    for items, levels in ((2, 1), (4, 2), (5, 3), (8, 3), (9, 4), (100, 4)):
        assert fit_to_shop(config, {"items": items, "users": 9}).config.semantic_ids.levels == levels
