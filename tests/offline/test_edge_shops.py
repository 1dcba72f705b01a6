"""Shops at the edge of the contract get a release that opens, or an error that says what to do."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from isrf.contract.errors import DataError
from isrf.method.recommend.request import RankingRequest
from offline.commands.publish import publish
from offline.config import build_config
from offline.pipeline import run_until
from offline.runtime.release import open_release
from offline.sizes import fit_to_shop
from service.release.opening import open_release as open_served
from tests.shops import TINY, Event, run_stages, write_shop

HOSTILE = ("a/b", "c#d", "e?f", "g%20h", "i j", "ü–ñ", "日本", "x&y=1", "..", "'; DROP")


def events(users: int, items: Sequence[str], length: int) -> list[Event]:
    rng = random.Random(0)
    return [(f"u{user}", item, t) for user in range(users) for t, item in enumerate(rng.sample(items, length))]


def serve(folder: Path, shop: Path, *settings: str) -> list[list[int]]:
    """Trains, publishes, opens, and asks for ten items per history; the lists."""
    releases, config = folder / "releases", build_config("demo", None, (*TINY, *settings))
    release = open_release(publish(run_stages("export", shop, releases, config)["export"], releases))
    recommender, num_items = release.recommender, release.manifest.counts.num_items
    histories = [[], [0], [1, 0]]
    allowed = np.ones(num_items, dtype=np.bool_)
    requests = [RankingRequest(history=history, n=10, allowed=allowed) for history in histories]
    answers = recommender.rank(requests, recommender.read(histories, [-1] * 3))
    lists = [[item.item_index for item in answer.items] for answer in answers]
    assert all(len(set(items)) == len(items) == min(10, num_items) for items in lists)
    return lists


def test_as_many_beams_as_items_and_more_wanted_than_there_are(tmp_path: Path) -> None:
    items = [f"i{row}" for row in range(4)]
    catalogue = [{"item_id": item, "title": f"Cup {item}"} for item in items]
    serve(tmp_path, write_shop(tmp_path / "shop", events(6, items, 4), catalogue), "search.num_beams=4")


def test_identical_items(tmp_path: Path) -> None:
    items = [f"i{row}" for row in range(120)]
    catalogue = [
        {"item_id": i, "title": "The same cup", "brand": "B", "categories": ["Cups"], "price": 3} for i in items
    ]
    serve(tmp_path, write_shop(tmp_path / "shop", events(50, items, 6), catalogue))


def test_items_of_which_nothing_but_the_id_is_known(tmp_path: Path) -> None:
    items = [f"i{row}" for row in range(30)]
    shop = write_shop(tmp_path / "shop", events(50, items, 6), [{"item_id": item} for item in items])
    serve(tmp_path, shop)


def test_hostile_ids_come_through_unchanged(tmp_path: Path) -> None:
    catalogue = [{"item_id": item, "title": f"Lamp {row % 3}"} for row, item in enumerate(HOSTILE)]
    taken = [(f"{HOSTILE[int(user[1:]) % 10]} {user}", item, t) for user, item, t in events(40, HOSTILE, 5)]
    serve(tmp_path, write_shop(tmp_path / "shop", taken, catalogue))
    lines = (tmp_path / "releases" / "current" / "items.jsonl").read_text().splitlines()
    assert {json.loads(line)["item_id"] for line in lines} == set(HOSTILE)


def test_items_without_interactions_can_be_recommended(tmp_path: Path) -> None:
    items = [f"i{row}" for row in range(12)]
    catalogue = [{"item_id": i, "title": f"Cup of {('oak', 'clay', 'tin')[row % 3]}"} for row, i in enumerate(items)]
    lists = serve(tmp_path, write_shop(tmp_path / "shop", events(30, items[:8], 5), catalogue))
    assert any(len(items) == 10 for items in lists)  # of eight that anyone took


@pytest.mark.parametrize(
    ("num_items", "lengths", "code"),
    [
        (1, [5, 5], "data.too_few_items"),
        (5, [3, 3], "data.too_few_users"),
        (5, [9], "data.too_few_users"),
    ],
)
def test_too_little_to_learn_from_is_refused_before_any_work(
    tmp_path: Path, num_items: int, lengths: list[int], code: str
) -> None:
    items = [f"i{row}" for row in range(num_items)]
    taken = [(f"u{user}", items[t % num_items], t) for user, length in enumerate(lengths) for t in range(length)]
    shop = write_shop(tmp_path / "shop", taken, [{"item_id": item, "title": "Cup"} for item in items])
    for last in ("export", "ingest"):
        with pytest.raises(DataError) as error:
            run_stages(last, shop, tmp_path / "r")
        assert error.value.code == code
        assert "2 items" in error.value.fix or "at least 3 users, or 2 if a user or a session has" in error.value.fix
        assert {path.name for path in (tmp_path / "r" / ".work").iterdir()} <= {"lock", "ingest"}


SIZED_BY_THE_SHOP = ("search.", "semantic_ids.", "graph.max_neighbours", "train.num_direct_negatives")
QUICK = tuple(setting for setting in TINY if not setting.startswith(SIZED_BY_THE_SHOP))


@pytest.mark.parametrize(
    ("num_items", "lengths"),
    [
        (2, [4, 3]),
        (3, [5, 4, 3]),
        (3, [4, 3, 2, 1]),
        (5, [8] * 20),
        (10, [4, 3, 1, 1, 1]),
        (19, [6] * 10),
        (20, [6] * 2),
    ],
    ids=str,
)
def test_a_small_shop_is_served_with_the_presets_own_settings(
    tmp_path: Path, num_items: int, lengths: list[int]
) -> None:
    """20 beams, 256 codes, 99 negatives and 100 neighbours are cut to what there is, and saved with the release."""
    rng = random.Random(7)
    items = [f"i{row}" for row in range(num_items)]
    taken = [(f"u{user}", rng.choice(items), t) for user, length in enumerate(lengths) for t in range(length)]
    catalogue = [{"item_id": i, "title": f"Cup of {('oak', 'clay', 'tin')[row % 3]}"} for row, i in enumerate(items)]
    shop, releases = write_shop(tmp_path / "shop", taken, catalogue), tmp_path / "releases"
    outputs = run_stages("export", shop, releases, build_config("demo", None, QUICK))
    folder = publish(outputs["export"], releases)
    config = json.loads((folder / "manifest.json").read_text())["config"]
    assert config["search"]["num_beams"] == config["search"]["num_dense"] or num_items >= 20
    assert config["search"]["num_beams"] == min(20, num_items)
    assert config["train"]["num_direct_negatives"] == max(num_items - 1, 1)
    assert config["graph"]["max_neighbours"] == len(lengths) - 1
    assert config["graph"]["min_neighbours"] <= config["graph"]["max_neighbours"]
    evaluation = json.loads((folder / "manifest.json").read_text())["evaluation"]["test"]
    assert 0 <= evaluation["fused"]["HR@10"] <= 1
    service = open_served(releases)
    histories = [[], [0], [1, 0]]
    allowed = service.catalogue.allowed()
    requests = [RankingRequest(history=history, n=200, allowed=allowed) for history in histories]
    answers = service.recommender.rank(requests, service.recommender.read(histories, [-1] * 3))
    for answer in answers:
        assert sorted(item.item_index for item in answer.items) == list(range(num_items))


def test_files_that_stand_in_themselves_twice_make_the_same_release(tmp_path: Path) -> None:
    items = [f"i{row}" for row in range(8)]
    catalogue = [{"item_id": item, "title": f"Cup {row % 3}"} for row, item in enumerate(items)]
    names = []
    for times in (1, 2):
        shop = write_shop(tmp_path / str(times), events(12, items, 5) * times, catalogue * times)
        releases = tmp_path / f"releases{times}"
        names.append(publish(run_stages("export", shop, releases)["export"], releases).name)
    assert names[0] == names[1], "a release's name is the hash of all that it holds"


def test_settings_cut_to_the_shop_are_said_once(tmp_path: Path) -> None:
    items = [f"i{row}" for row in range(4)]
    shop = write_shop(tmp_path / "shop", events(3, items, 4), [{"item_id": item, "title": "Cup"} for item in items])
    said: list[str] = []
    with Progress(disable=True) as progress:
        config = build_config("demo", None, QUICK)
        run_until("reason", data=shop, releases=tmp_path / "r", config=config, progress=progress, report=said.append)
    assert said.count("adjusted to the shop's size: search.num_beams: 4 instead of 20, for 4 items") == 1
    assert "adjusted to the shop's size: graph.max_neighbours: 2 instead of 100, for 3 users" in said


def test_a_shop_that_is_large_enough_keeps_its_settings() -> None:
    config = build_config("demo", None, TINY)
    assert fit_to_shop(config, {"items": 12, "users": 9}) == (config, [])


def test_in_a_shop_of_views_and_purchases_what_was_only_viewed_can_be_recommended(tmp_path: Path) -> None:
    """As in serving: the list leaves out what was bought, and the purchase that follows a view is a hit, not a miss."""
    rng = random.Random(1)
    rows = []
    for user in range(60):
        taken = rng.sample(range(user % 2 * 10, user % 2 * 10 + 10), 4)
        rows += [
            f"u{user},i{item},{step * 10 + place},{kind}"
            for step, item in enumerate(taken)
            for place, kind in enumerate(("view", "cart", "purchase"))
        ]
    shop = write_shop(tmp_path / "shop", [], [{"item_id": f"i{i}", "title": f"Cup {i // 10}"} for i in range(20)])
    (shop / "interactions.csv").write_text("user_id,item_id,timestamp,event\n" + "\n".join(rows) + "\n")
    outputs = run_stages("evaluate", shop, tmp_path / "releases")
    evaluation = json.loads((outputs["evaluate"] / "evaluation.json").read_text())
    assert "bought items excluded" in evaluation["protocol"]
    assert evaluation["test"]["fused"]["HR@10"] > 0.5
    assert evaluation["valid"]["fused"]["HR@10"] > 0.5
