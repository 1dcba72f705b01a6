"""No statistic of a release is decided by one account, however often it comes."""

import json
import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.progress import Progress

from isrf.method.evidence import SparseLists
from isrf.method.order import COUNTED_AT_LEAST, MAX_TARGETS_PER_USER, most_counted
from isrf.nn.lightgcn import Interactions, LightGCN, LightGCNSettings
from isrf.nn.lightgcn_training import _samples
from offline.commands.audit.accounts import audit_accounts
from offline.commands.audit.run import audit
from offline.commands.audit.shop import load_shop
from offline.commands.publish import publish
from offline.config import EvidenceConfig, build_config
from offline.context import StageContext
from offline.runtime.evidence import TimedEvents, count_events
from offline.runtime.live_base import count_live_base
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
    for line in ("popularity", "evidence: transition", "evidence: cooccurrence", "evidence: user_items", "goldens"):
        assert found[line].verdict == "ok", found[line]


def test_the_audit_names_an_account_that_is_no_person(stages: dict[str, Path]) -> None:
    ingested = load_shop(stages["ingest"])
    found = audit_accounts(ingested)
    assert found.verdict == "warning"
    assert found.figures == {"most_counted": COUNTED_AT_LEAST, "accounts": {"loud": VIEWS - 2}, "sessions": 0}
    assert '"loud" (2,998 events, 96.2% of all)' in found.text


def test_of_an_account_that_took_everything_only_the_latest_events_count() -> None:
    rng = np.random.default_rng(0)
    loud = rng.permutation(VIEWS)
    users = np.concatenate([np.zeros(VIEWS, np.int64), [1, 1]])
    items = np.concatenate([loud, [0, 1]])
    events = TimedEvents(users, items, np.arange(VIEWS + 2.0), np.ones(VIEWS + 2))
    content = SparseLists(np.zeros(VIEWS + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
    config = EvidenceConfig()
    counted = count_events(events, content, num_users=2, config=config, first_variants=None)
    latest = loud[-COUNTED_AT_LEAST:]
    expected = np.bincount(np.concatenate([latest, [0, 1]]), minlength=VIEWS)
    np.testing.assert_array_equal(counted.popularity, expected)
    assert np.flatnonzero(counted.totals["transition"]).tolist() == sorted({*latest[:-1].tolist(), 0})
    live = count_live_base(counted, events, config=config)
    assert live is not None
    assert np.flatnonzero(live.recent).tolist() == np.flatnonzero(expected).tolist()


@pytest.mark.parametrize(("events", "most"), [(0, 200), (20_000, 200), (50_000, 500), (1_000_000, 1000)])
def test_how_much_of_one_account_counts_grows_with_the_shop_within_bounds(events: int, most: int) -> None:
    assert most_counted(events) == most


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
    assert sorted(per_user.tolist()) == [3] * 30 + [COUNTED_AT_LEAST]
    loud = int(per_user.argmax())
    latest = sequences.items[sequences.start[loud] : sequences.start[loud + 1]][-COUNTED_AT_LEAST:]
    np.testing.assert_array_equal(samples.target[samples.users == loud], latest)
