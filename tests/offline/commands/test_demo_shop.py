"""The demo shop: the contract's format, equal bytes from equal seeds, and the planted structure it promises."""

import csv
import json
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from isrf.contract.errors import DataError
from offline.commands.demo_shop.generate import generate, write_truth
from offline.commands.demo_shop.groups import ACCESSORIES, GROUPS
from offline.commands.demo_shop.shoppers import PlantedInterest
from offline.commands.demo_shop.vocabulary import read_departments


class Shop:
    def __init__(self, folder: Path) -> None:
        self.planted: tuple[PlantedInterest, ...] = generate(folder, seed=0)
        self.folder = folder
        self.items = [json.loads(line) for line in (folder / "items.jsonl").read_text("utf-8").splitlines()]
        self.leaf = {item["item_id"]: item["categories"][-1] for item in self.items}
        with (folder / "interactions.csv").open(encoding="utf-8", newline="") as file:
            self.rows = list(csv.DictReader(file))
        self.histories: dict[str, list[str]] = defaultdict(list)
        for row in self.rows:  # the file is in time order
            self.histories[row["user_id"]].append(row["item_id"])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("demo") / "shop")


def test_equal_seeds_give_equal_bytes_and_others_do_not(shop: Shop, tmp_path: Path) -> None:
    assert generate(tmp_path / "again", seed=0) == shop.planted
    assert generate(tmp_path / "other", seed=1) != shop.planted
    for name in ("items.jsonl", "interactions.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (shop.folder / name).read_bytes()
        assert (tmp_path / "other" / name).read_bytes() != (shop.folder / name).read_bytes()


def test_about_600_products_with_distinct_titles_in_six_departments(shop: Shop) -> None:
    assert 550 <= len(shop.items) <= 650
    assert len({item["title"] for item in shop.items}) == len(shop.items) == len(shop.leaf)
    assert len({item["categories"][0] for item in shop.items}) == 6
    for item in shop.items:
        assert item["title"].startswith(item["brand"])
        assert item["description"].endswith(".")
        assert 1 < item["price"] < 1000
        assert "{" not in item["title"]
        assert not any(character.isdigit() for character in item["brand"])


def test_shoppers_have_5_to_20_events_at_distinct_seconds_within_about_a_year(shop: Shop) -> None:
    assert len(shop.histories) == 2000
    lengths = Counter(len(history) for history in shop.histories.values())
    assert min(lengths) == 5
    assert max(lengths) == 20
    times = [int(row["timestamp"]) for row in shop.rows]
    assert times == sorted(set(times))
    assert 300 * 86_400 < times[-1] - times[0] < 366 * 86_400
    assert all(len(set(history)) == len(history) for history in shop.histories.values())


def test_purchases_prevail_and_every_last_event_is_one(shop: Shop) -> None:
    kinds = Counter(row["event"] for row in shop.rows)
    assert set(kinds) == {"purchase", "view", "cart"}
    assert kinds["purchase"] > 0.75 * len(shop.rows)
    assert {row["event"] for row in {row["user_id"]: row for row in shop.rows}.values()} == {"purchase"}


def test_groups_join_known_leaves_of_several_departments() -> None:
    department = {leaf.name: shelf.name for shelf in read_departments() for leaf in shelf.leaves}
    for group in GROUPS:
        assert len({department[leaf] for leaf in group.leaves}) >= 2, group
    assert set(ACCESSORIES) | set(ACCESSORIES.values()) <= set(department)
    assert {leaf for group in GROUPS for leaf in group.leaves} == set(department)


def test_the_planted_category_is_untouched_before_the_last_event(shop: Shop) -> None:
    for truth in shop.planted:
        *before, last = (shop.leaf[item] for item in shop.histories[truth.user_id])
        assert truth.untouched_category not in before
        assert (last == truth.untouched_category) == truth.last_event_in_it
    share = sum(truth.last_event_in_it for truth in shop.planted) / len(shop.planted)
    assert 0.35 < share < 0.45


def test_the_group_points_to_the_planted_category_and_the_own_history_does_not(shop: Shop) -> None:
    """Among the categories new to a shopper, what the group's other members bought most finds the planted one."""
    bought: dict[str, Counter[str]] = defaultdict(Counter)
    everywhere: Counter[str] = Counter()
    for truth in shop.planted:
        leaves = Counter(shop.leaf[item] for item in shop.histories[truth.user_id][:-2])
        bought[truth.group].update(leaves)
        everywhere.update(leaves)

    def finds(counts: Counter[str], truth: PlantedInterest) -> bool:
        known = {shop.leaf[item] for item in shop.histories[truth.user_id][:-1]}
        new = [leaf for leaf, _ in counts.most_common() if leaf not in known]
        return truth.untouched_category in new[:2]

    chosen = [truth for truth in shop.planted if truth.last_event_in_it]
    by_group = sum(finds(bought[truth.group], truth) for truth in chosen) / len(chosen)
    by_popularity = sum(finds(everywhere, truth) for truth in chosen) / len(chosen)
    assert by_group > 0.8
    assert by_popularity < 0.3


def test_accessories_follow_their_main_products(shop: Shop) -> None:
    followed = Counter[bool]()
    for history in shop.histories.values():
        leaves = [shop.leaf[item] for item in history]
        for before, after in pairwise(leaves):
            if before in ACCESSORIES:
                followed[ACCESSORIES[before] == after] += 1
    assert followed[True] / followed.total() > 0.25  # chance is 1 in 36


def test_the_truth_is_written_only_when_asked(shop: Shop, tmp_path: Path) -> None:
    names = sorted(path.name for path in shop.folder.iterdir())
    assert names == ["README.txt", "interactions.csv", "items.jsonl"]
    text = "".join((shop.folder / name).read_text("utf-8") for name in names)
    assert not any(group.name in text for group in GROUPS)
    write_truth(tmp_path / "truth.json", shop.planted)
    written = json.loads((tmp_path / "truth.json").read_text("utf-8"))
    assert [PlantedInterest(**record) for record in written] == list(shop.planted)


def test_generating_again_is_fine_but_a_shops_own_data_is_never_overwritten(tmp_path: Path) -> None:
    generate(tmp_path / "demo", seed=0, num_shoppers=10)
    generate(tmp_path / "demo", seed=3, num_shoppers=10)
    own = tmp_path / "own"
    own.mkdir()
    (own / "interactions.csv").write_text("user_id,item_id,timestamp\n")
    with pytest.raises(DataError) as caught:
        generate(own, seed=0, num_shoppers=10)
    assert caught.value.code == "data.not_the_demo_shop"
    assert (own / "interactions.csv").read_text() == "user_id,item_id,timestamp\n"
