"""No statistic of a release is decided by one account, however often it comes."""

import json
import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.progress import Progress

from isrf.method.order import MAX_TARGETS_PER_USER
from isrf.nn.lightgcn import Interactions, LightGCN, LightGCNSettings
from isrf.nn.lightgcn_training import _samples
from offline.commands.audit.run import audit
from offline.commands.publish import publish
from offline.config import build_config
from offline.context import StageContext
from offline.stages.train.samples import read_sequences, training_samples
from offline.stages.train.stage import load_interests
from tests.shops import TINY, Event, run_stages, write_shop

ITEMS = [{"item_id": f"i{k}", "title": f"{'red' if k % 2 else 'blue'} thing {k % 7}"} for k in range(30)]
VIEWS = 3000


def events() -> list[Event]:
    """30 shoppers of 6 items each, everybody's third is i5; one account looks at i29 thousands of times."""
    rng = random.Random(3)
    found = []
    for user in range(30):
        items = rng.sample([k for k in range(29) if k != 5], 6)
        items[2] = 5
        found += [(f"u{user}", f"i{item}", 100 * place + user) for place, item in enumerate(items)]
    return found + [("loud", "i29" if k % 50 else "i3", k) for k in range(VIEWS)]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("loud")
    data = write_shop(root / "data", events(), ITEMS)
    stages = run_stages("export", data, root / "releases")
    return stages | {"data": data, "release": publish(stages["export"], root / "releases")}


def test_popularity_counts_users(stages: dict[str, Path]) -> None:
    popularity = np.load(stages["release"] / "popularity.npy")
    ids = pl.read_parquet(stages["ingest"] / "items.parquet")["item_id"].to_list()
    taken = dict(zip(ids, popularity.tolist(), strict=True))
    assert (taken["i5"], taken["i29"]) == (30, 1)
    assert max(taken, key=lambda item: taken[item]) == "i5"


def test_the_audit_counts_as_the_release_does(stages: dict[str, Path]) -> None:
    with Progress(disable=True) as progress:
        found = {one.line: one for one in audit(stages["data"], stages["release"], progress)}
    for line in ("popularity", "evidence: transition", "evidence: cooccurrence", "evidence: user_items"):
        assert found[line].verdict == "ok", found[line]


def test_an_item_has_an_edge_for_each_user(stages: dict[str, Path]) -> None:
    graph = json.loads((stages["graph"] / "report.json").read_text())["interaction_graph"]
    train = pl.read_parquet(stages["ingest"] / "train.parquet")
    assert graph["interactions"] == train.select("user_index", "item_index").n_unique() < 200
    assert graph["item_degree_quantiles"]["100"] == 30


def test_no_user_is_most_of_what_the_graph_learns_from() -> None:
    rng = np.random.default_rng(0)
    users = np.concatenate([np.zeros(VIEWS, np.int64), [1, 1, 2, 2]])
    items = np.concatenate([rng.permutation(VIEWS), [0, 1, 0, 1]])
    settings = LightGCNSettings(dim=4, recency=0.7, epochs=1, batch_size=8, learning_rate=0.1, weight_decay=0.0)
    model = LightGCN(Interactions(users, items), np.ones((VIEWS, 2), dtype=np.float32), settings=settings)
    samples = _samples(Interactions(users, items), model, 0.7, prefix_length=5)
    assert np.bincount(users[samples.stop]).tolist() == [MAX_TARGETS_PER_USER, 1, 1]


def test_an_account_is_not_most_of_what_is_trained_on(stages: dict[str, Path], tmp_path: Path) -> None:
    inputs = {name: stages[name] for name in ("ingest", "embed", "graph", "semantic-ids")}
    config = build_config("demo", None, TINY)
    with Progress(disable=True) as progress:
        ctx = StageContext(
            data=stages["data"], inputs=inputs, out=tmp_path, scratch=tmp_path, config=config, progress=progress
        )
        interests = load_interests(ctx)
    sequences = read_sequences(stages["ingest"], len(interests.group_layers))
    assert np.diff(sequences.start).max() == VIEWS - 2
    samples = training_samples(sequences, interests, history_length=6, interest_length=8)
    per_user = np.bincount(samples.users)
    assert sorted(per_user.tolist()) == [3] * 30 + [MAX_TARGETS_PER_USER]
    loud = int(per_user.argmax())
    latest = sequences.items[sequences.start[loud] : sequences.start[loud + 1]][-MAX_TARGETS_PER_USER:]
    np.testing.assert_array_equal(samples.target[samples.users == loud], latest)
