"""The demo shop hides a category that a shopper's group likes and the shopper never touched: the group finds it."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from isrf.method.ranking.fusion import CHANNELS, channel_order
from isrf.method.recommend.request import RankingRequest
from offline.commands.demo_shop.generate import generate
from offline.runtime.release import open_release

TOP = 10


@pytest.fixture(scope="module")
def found(demo_release: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Share of top-10 places that the planted category takes, by channel; "fused"; and "chance"."""
    planted = {one.user_id: one for one in generate(tmp_path_factory.mktemp("again") / "d", seed=0, num_shoppers=600)}
    folder = demo_release / "current"
    recommender = open_release(folder).recommender
    category = [json.loads(line)["categories"][-1] for line in (folder / "items.jsonl").read_text().splitlines()]
    users = pl.read_parquet(folder / "users.parquet")["user_id"].to_list()
    lists = recommender.tables.user_items
    shares: dict[str, list[float]] = {name: [] for name in (*CHANNELS, "fused", "chance")}
    for row, user in enumerate(users):
        history = lists.indices[lists.row(row)].tolist()
        untouched = planted[user].untouched_category
        if not history or any(category[item] == untouched for item in history):
            continue
        allowed = np.ones(len(category), dtype=np.bool_)
        allowed[history] = False
        request = RankingRequest(history=history, n=TOP, allowed=allowed)
        interests = recommender.read([history], [row])
        ranked = recommender.rank([request], interests)[0]
        evidence = recommender.evidence(history, interests.neighbours, 0)
        output = recommender.search([request], interests)
        candidates = recommender.candidates(request, output, evidence, 0)
        tops = {name: channel_order(candidates, column)[:TOP].tolist() for column, name in enumerate(CHANNELS)}
        tops["fused"] = [item.item_index for item in ranked.items]
        for name, items in tops.items():
            shares[name].append(sum(category[item] == untouched for item in items) / TOP)
        shares["chance"].append(category.count(untouched) / len(category))
    assert len(shares["fused"]) > 400
    return {name: float(np.mean(values)) for name, values in shares.items()}


def test_the_group_finds_what_the_shoppers_own_items_cannot_say(found: dict[str, float]) -> None:
    assert found["group"] > 2 * found["chance"]
    assert found["group"] > 2 * found["content"]


def test_the_planted_interest_reaches_what_is_recommended(found: dict[str, float]) -> None:
    assert found["fused"] > 2 * found["chance"]
