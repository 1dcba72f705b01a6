"""What a release counts of the demo shop, with weights and without, and of a stream of live events."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from isrf.method.evidence import SparseLists
from isrf.method.recommend.live.recent_popularity import decayed_counts, newcomer_shares
from offline.config import EvidenceConfig, build_config
from offline.runtime.evidence import Counted, TimedEvents, count_events, lists_as_arrays
from offline.runtime.live_base import choose_half_life, count_live_base, live_arrays
from tests.shops import run_stages

CONFIG = EvidenceConfig()
DAY = 86_400.0
ONES = ("events.weights.purchase=1", "events.weights.view=1", "events.weights.cart=1.0")
LIGHT_VIEWS = ("events.weights.view=0.01",)


class Shop:
    """The demo shop, read with some weights."""

    def __init__(self, data: Path, folder: Path, *assignments: str) -> None:
        ingest = run_stages("ingest", data, folder, build_config("demo", None, assignments))["ingest"]
        self.train = pl.read_parquet(ingest / "train.parquet")
        self.num_items = pl.read_parquet(ingest / "items.parquet").height
        self.num_users = pl.read_parquet(ingest / "users.parquet").height
        self.events = TimedEvents.of(self.train)

    def counted(self) -> Counted:
        nothing = SparseLists(np.zeros(self.num_items + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
        return count_events(self.events, nothing, num_users=self.num_users, config=CONFIG, first_variants=None)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        counted = self.counted()
        base = count_live_base(counted, self.events, config=CONFIG)
        assert base is not None
        return {"popularity": counted.popularity, **lists_as_arrays(counted.lists), **live_arrays(base)}


@pytest.fixture(scope="module")
def plain(demo_shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(demo_shop, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def light(demo_shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(demo_shop, tmp_path_factory.mktemp("light"), *LIGHT_VIEWS)


def test_weights_of_1_change_no_byte(demo_shop: Path, plain: Shop, tmp_path: Path) -> None:
    ones = Shop(demo_shop, tmp_path, *ONES)
    assert ones.train.equals(plain.train)
    before, after = plain.arrays(), ones.arrays()
    assert {name: array.tobytes() for name, array in before.items()} == {
        name: array.tobytes() for name, array in after.items()
    }


def pairs_by_kind(train: pl.DataFrame) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Pairs of an item and a later one of the same user: those where all later events were views, and none was."""
    after: dict[tuple[int, int], set[bool]] = {}
    for (_,), events in train.group_by(["user_index"], maintain_order=True):
        rows, views = events["item_index"].to_list(), (events["event"] == "view").to_list()
        for place, item in enumerate(rows):
            for other, viewed in zip(rows[place + 1 :], views[place + 1 :], strict=True):
                after.setdefault((item, other), set()).add(viewed)
    return {pair for pair, kinds in after.items() if kinds == {True}}, {
        pair for pair, kinds in after.items() if kinds == {False}
    }


@pytest.mark.parametrize("channel", ["transition", "cooccurrence"])
def test_a_pair_of_views_loses_its_place_to_a_pair_of_purchases(plain: Shop, light: Shop, channel: str) -> None:
    before, after = (shop.counted().lists[channel] for shop in (plain, light))
    viewed, bought = pairs_by_kind(plain.train)
    overtaken = 0
    for item in range(plain.num_items):
        was, now = before.indices[before.row(item)].tolist(), after.indices[after.row(item)].tolist()
        for other in was:
            if (item, other) in viewed and (channel == "transition" or (other, item) not in bought):
                worse = [one for one in was[was.index(other) + 1 :] if (item, one) in bought and one in now]
                place = now.index(other) if other in now else len(now)
                overtaken += sum(now.index(one) < place for one in worse)
    assert overtaken > 20, "purchases that stood behind a view and stand before it now"


def test_an_item_that_was_only_viewed_is_less_popular(plain: Shop, light: Shop) -> None:
    before, after = plain.counted().popularity, light.counted().popularity
    buys = plain.train.filter(pl.col("event") != "view")
    taken = np.bincount(buys["item_index"].to_numpy(), minlength=plain.num_items) > 0
    viewed = np.bincount(plain.train["item_index"].to_numpy(), minlength=plain.num_items) > 0
    only_viewed = viewed & ~taken
    assert only_viewed.any()
    np.testing.assert_allclose(after[only_viewed], before[only_viewed] * 0.01, rtol=1e-5)
    assert (after <= before).all()
    recent = [shop.arrays()["evidence/recent.npy"] for shop in (plain, light)]
    assert recent[1].sum() < recent[0].sum()


# --- popularity of recent events, by hand ---------------------------------------------------------------------------


def test_a_user_s_recent_event_is_the_one_that_weighs_most_by_now() -> None:
    users, items = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 0])
    times = np.array([0.0, 2 * DAY, 0.0, 2 * DAY])
    weights = np.array([1.0, 0.1, 1.0, 0.5])
    found = decayed_counts(users, items, times, weights=weights, num_items=1, half_life_s=DAY)
    # User 0: 1 · 2^-2 against 0.1; user 1: 1 · 2^-2 against 0.5.
    assert found.tolist() == pytest.approx([0.25 + 0.5])
    shares = newcomer_shares(np.array([0, 1, 0, 1]))
    found = decayed_counts(users, items, times, weights=weights, shares=shares, num_items=1, half_life_s=DAY)
    assert found.tolist() == pytest.approx([0.25 + 0.5 / 2])


def test_equal_weights_count_by_the_last_event() -> None:
    users, items, times = np.zeros(3, np.int64), np.zeros(3, np.int64), np.array([0.0, DAY, DAY])
    shares = np.array([1.0, 0.5, 0.25])
    for weights in (None, np.ones(3)):
        found = decayed_counts(users, items, times, weights=weights, shares=shares, num_items=1, half_life_s=DAY)
        assert found.tolist() == [0.25]


def test_the_half_life_is_the_one_that_ranks_heavy_events_best() -> None:
    # Bought items are those of long ago (item 0), viewed ones those of the hour before.
    random = np.random.default_rng(1)
    times = np.sort(random.random(2000)) * 100 * DAY
    bought = random.random(2000) < 0.5
    items = np.where(bought, 0, 1 + (times // (DAY / 4)).astype(np.int64))
    kinds = np.where(bought, 1.0, 0.0), np.where(bought, 0.0, 1.0)
    by_purchase, by_view = (choose_half_life(items, times, weights) for weights in kinds)
    assert by_view < by_purchase
    assert choose_half_life(items, times, np.zeros(2000)) == 128 * DAY
