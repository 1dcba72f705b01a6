"""Stage `graph` on a small shop of known structure: what it writes, what it may know, how it fails."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from rich.progress import Progress

from isrf.contract.errors import StageError
from isrf.contract.manifest import GroupSearch
from isrf.method.interest import (
    InterestTables,
    group_interest,
    pad_histories,
    read_history,
    select_neighbours,
    unit_rows,
)
from offline.config import build_config
from offline.context import StageContext
from offline.stages.graph.features import fit_feature_map, mean_item_text
from offline.stages.graph.similar import NearestUsers, calibrate_search, join_similar_users, nearest_users, propagate
from offline.stages.graph.stage import run

NUM_BLOCKS, BLOCK, USERS_PER_BLOCK = 4, 6, 30
NUM_ITEMS, NUM_USERS = NUM_BLOCKS * BLOCK + 1, NUM_BLOCKS * USERS_PER_BLOCK + 1
EMPTY_USER, COLD_ITEM = NUM_USERS - 1, NUM_ITEMS - 1
FAST = ("graph.dim=8", "graph.epochs=6", "graph.batch_size=128", "graph.max_neighbours=20")


def shop_histories() -> list[list[int]]:
    """Users who take four of the six items of one block; one last user without training events."""
    rng = np.random.default_rng(3)
    blocks = [(rng.permutation(BLOCK)[:4] + block * BLOCK).tolist() for block in range(NUM_BLOCKS) for _ in range(30)]
    return [*blocks, []]


def write_shop(folder: Path, histories: list[list[int]]) -> None:
    """`train.parquet` and the vectors; held-out events do not even exist here."""
    for name in ("ingest", "embed", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    users = [user for user, history in enumerate(histories) for _ in history]
    pl.DataFrame(
        {"user_index": users, "item_index": [item for history in histories for item in history]},
        schema={"user_index": pl.Int32, "item_index": pl.Int32},
    ).with_columns(weight=pl.lit(1.0)).write_parquet(folder / "ingest" / "train.parquet")
    rng = np.random.default_rng(4)
    block_text = rng.normal(size=(NUM_BLOCKS, 5))
    centres = block_text[np.minimum(np.arange(NUM_ITEMS) // BLOCK, NUM_BLOCKS - 1)]
    item_text = unit_rows((centres + 0.3 * rng.normal(size=centres.shape)).astype(np.float32))
    user_text = np.array([item_text[h].mean(axis=0) if h else np.zeros(5) for h in histories])
    np.save(folder / "embed" / "item_text.npy", item_text)
    np.save(folder / "embed" / "user_text.npy", unit_rows(user_text.astype(np.float32)))


def run_stage(folder: Path, *assignments: str, out: str = "out") -> Path:
    (folder / out).mkdir()
    with Progress(disable=True) as progress:
        run(
            StageContext(
                data=folder / "absent",
                inputs={"ingest": folder / "ingest", "embed": folder / "embed"},
                out=folder / out,
                scratch=folder / "scratch",
                config=build_config("demo", None, (*FAST, *assignments)),
                progress=progress,
            )
        )
    return folder / out


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    write_shop(folder, shop_histories())
    run_stage(folder)
    return folder


def load(shop: Path, name: str) -> NDArray[np.float32]:
    array: NDArray[np.float32] = np.load(shop / "out" / f"{name}.npy")
    return array


def tables(shop: Path) -> InterestTables:
    config = build_config("demo", None, FAST).graph
    item_text = np.load(shop / "embed" / "item_text.npy")
    return InterestTables(
        item_text, load(shop, "item_layers"), load(shop, "feature_map"), config.recency, config.text_share
    )


def test_it_writes_what_the_stage_table_says(shop: Path) -> None:
    written = {
        name: (array.dtype.str, array.shape)
        for name in ("item_layers", "item_embeddings", "feature_map", "user_features", "group_layers")
        if (array := load(shop, name)) is not None
    }
    assert written == {
        "item_layers": ("<f4", (NUM_ITEMS, 8)),
        "item_embeddings": ("<f4", (NUM_ITEMS, 8)),
        "feature_map": ("<f4", (5, 5)),
        "user_features": ("<f2", (NUM_USERS, 13)),
        "group_layers": ("<f2", (NUM_USERS, 8)),
    }
    search = GroupSearch.model_validate_json((shop / "out" / "group_search.json").read_text())
    assert search.background_cosine < search.nearest_cosine <= 1.01
    report = json.loads((shop / "out" / "report.json").read_text())
    assert report["similar_user_graph"]["users"] == NUM_USERS - 1
    assert report["similar_user_graph"]["users_without_training_events"] == 1
    assert 0 <= report["similar_user_graph"]["weak_share"] < 1
    assert report["interaction_graph"]["items_without_training_interactions"] == 1


def test_rows_are_unit_or_zero(shop: Path) -> None:
    lengths = np.linalg.norm(load(shop, "user_features").astype(np.float32), axis=1)
    np.testing.assert_allclose(lengths[:EMPTY_USER], 1, atol=2e-3)
    assert lengths[EMPTY_USER] == 0
    assert not load(shop, "group_layers")[EMPTY_USER].any()
    assert not load(shop, "item_embeddings")[COLD_ITEM].any()
    assert load(shop, "item_layers")[COLD_ITEM].any()


def test_a_history_finds_users_of_its_block_and_their_interest(shop: Path) -> None:
    search = GroupSearch.model_validate_json((shop / "out" / "group_search.json").read_text())
    histories = [[block * BLOCK, block * BLOCK + 1] for block in range(NUM_BLOCKS)]
    interest = read_history(tables(shop), *pad_histories(histories, 50))
    features: NDArray[np.float16] = np.load(shop / "out" / "user_features.npy")
    nearest = nearest_users(interest.feature, features, 21)
    own = np.full(NUM_BLOCKS, -1, dtype=np.int64)
    found = select_neighbours(search, nearest.cosine, nearest.users, own)
    assert not found.weak.any()
    for block in range(NUM_BLOCKS):
        users = found.users[block][found.users[block] >= 0]
        assert (users // USERS_PER_BLOCK == block).all()
    scores = group_interest(found, load(shop, "group_layers")) @ load(shop, "item_embeddings").T
    assert (scores[:, :COLD_ITEM].argmax(axis=1) // BLOCK == np.arange(NUM_BLOCKS)).all()


def test_group_layers_hold_no_edge_back_to_the_user_itself(shop: Path, tmp_path: Path) -> None:
    """A user's own vector must not come back to it through its neighbours: rows are the neighbours' own layer 0."""
    explicit = read_history(tables(shop), *pad_histories(shop_histories(), 50)).explicit
    rows = load(shop, "group_layers").astype(np.float32)
    np.testing.assert_allclose(unit_rows(rows), explicit, atol=2e-3)


def test_the_graph_reads_as_many_items_of_a_history_as_a_request_will(shop: Path) -> None:
    out = run_stage(shop, "model.interest_length=1", out="last_item")
    layers = unit_rows(np.load(out / "item_layers.npy"))
    last = np.array([history[-1] for history in shop_histories()[:EMPTY_USER]])
    rows = unit_rows(np.load(out / "user_features.npy")[:EMPTY_USER, 5:].astype(np.float32))
    np.testing.assert_allclose(rows, layers[last], atol=2e-3)
    losses = [json.loads((shop / name / "report.json").read_text())["lightgcn_losses"] for name in ("out", out.name)]
    assert losses[0] != losses[1], "LightGCN trains on prefixes of that length too"


def test_two_runs_are_equal_byte_for_byte(shop: Path) -> None:
    again = run_stage(shop, out="again")
    for path in sorted((shop / "out").iterdir()):
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_the_threshold_that_leaves_everybody_weak_is_an_error(shop: Path) -> None:
    with pytest.raises(StageError) as caught:
        run_stage(shop, "graph.similarity_threshold=50", out="weak")
    assert caught.value.code == "graph.all_weak"
    assert "graph.similarity_threshold" in caught.value.fix


def test_where_no_threshold_could_help_users_stay_without_neighbours() -> None:
    search = GroupSearch(threshold=0.7, background_cosine=0.5, nearest_cosine=0.9, max_neighbours=3, min_neighbours=2)
    nearest = NearestUsers(np.array([[1, 0.4], [1, 0.4]], dtype=np.float32), np.array([[0, 1], [1, 0]]))
    graph = join_similar_users(search, nearest)
    assert (graph.degree.tolist(), graph.weak.tolist()) == ([0, 0], [True, True])
    np.testing.assert_array_equal(propagate(graph, np.eye(2, dtype=np.float32), 1), np.eye(2))  # own layer 0


def test_users_who_all_took_the_same_are_all_similar(tmp_path: Path) -> None:
    write_shop(tmp_path, [[0, 1, 2]] * 12)
    out = run_stage(tmp_path)
    report = json.loads((out / "report.json").read_text())["similar_user_graph"]
    assert (report["weak_share"], report["degree_quantiles"]["0"]) == (0.0, 11.0)
    assert np.load(out / "group_layers.npy").any(axis=1).all()


@pytest.mark.parametrize(
    ("histories", "code"),
    [([[]] * 3, "graph.no_interactions"), ([[0, 1, 2], [], []], "graph.too_few_users")],
)
def test_too_little_to_build_a_graph_from_is_an_error(tmp_path: Path, histories: list[list[int]], code: str) -> None:
    write_shop(tmp_path, histories)
    with pytest.raises(StageError) as caught:
        run_stage(tmp_path)
    assert caught.value.code == code


def test_it_needs_no_text_at_all(tmp_path: Path) -> None:
    write_shop(tmp_path, shop_histories())
    for name, rows in (("item_text", NUM_ITEMS), ("user_text", NUM_USERS)):
        np.save(tmp_path / "embed" / f"{name}.npy", np.zeros((rows, 5), dtype=np.float32))
    out = run_stage(tmp_path)
    np.testing.assert_array_equal(np.load(out / "feature_map.npy"), np.eye(5, dtype=np.float32))
    assert json.loads((out / "report.json").read_text())["similar_user_graph"]["weak_share"] < 1


def test_the_feature_map_recovers_a_linear_relation() -> None:
    rng = np.random.default_rng(5)
    truth = np.linalg.qr(rng.normal(size=(6, 6)))[0].astype(np.float32)
    item_text = unit_rows(rng.normal(size=(40, 6)).astype(np.float32))
    histories = [rng.integers(0, 40, size=3).tolist() for _ in range(500)]
    means = mean_item_text(item_text, histories, recency=0.9, length=50)
    learned = fit_feature_map(means, unit_rows(means @ truth))
    np.testing.assert_allclose(learned, truth, atol=0.02)


@pytest.mark.parametrize("alike", [2, 5])
def test_where_most_users_are_like_nobody_nearest_is_not_below_random(alike: int) -> None:
    features = np.eye(9, dtype=np.float32)
    features[:alike] = features[0]  # a median of 0 for two of nine, and a mean above it
    cosine = features @ features.T
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :4].astype(np.int64)
    nearest = NearestUsers(np.take_along_axis(cosine, order, axis=1), order)
    config = build_config("demo", None, FAST).graph
    search = calibrate_search(features, features.astype(np.float16), nearest, config=config, seed=0)
    assert 0 < search.background_cosine <= search.nearest_cosine
    assert (search.nearest_cosine == search.background_cosine) == (alike == 2)
