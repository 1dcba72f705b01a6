"""Many users are divided into cells: nearly all whom a search among all finds are found, by both halves alike."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from isrf.method.interest import FloatArray, unit_rows
from isrf.method.recommend.request import RankingRequest
from isrf.runtime.neighbour_index import Cells, NeighbourIndex
from offline.commands.publish import publish
from offline.config import build_config
from offline.runtime import release as offline_release
from offline.stages.export_onnx.item_hnsw import low_recall
from offline.stages.graph import cells as graph_cells
from offline.stages.graph.cells import RECALL, divide
from service.release import opening as service_release
from tests.shops import TINY, run_stages

NUM_USERS, WIDTH, K = 6000, 24, 101


@pytest.fixture(scope="module")
def features() -> NDArray[np.float16]:
    """Users around 300 centres of uneven size, a few without a feature."""
    rng = np.random.default_rng(7)
    centres = rng.normal(size=(300, WIDTH))
    share = 1 / np.arange(1, 301) ** 0.8
    near = centres[rng.choice(300, size=NUM_USERS, p=share / share.sum())]
    rows = unit_rows((near + 0.5 * rng.normal(size=near.shape)).astype(np.float32))
    rows[::97] = 0
    return rows.astype(np.float16)


def queries_of(features: NDArray[np.float16]) -> FloatArray:
    """What the users would ask: near to what they are, and not the same."""
    rng = np.random.default_rng(8)
    noise = 0.05 * rng.normal(size=features.shape).astype(np.float32)
    known = np.any(features, axis=1, keepdims=True)
    return unit_rows((features + noise) * known).astype(np.float32)


@pytest.fixture(scope="module")
def cells(features: NDArray[np.float16]) -> Cells:
    return divide(queries_of(features), features, K, seed=0).cells


def recall(found: NDArray[np.int64], wanted: NDArray[np.int64]) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(found, wanted, strict=True)]))


def test_nearly_all_are_found_in_a_few_cells(features: NDArray[np.float16], cells: Cells) -> None:
    asked = queries_of(features)[1:3000:2]
    asked = asked[asked.any(axis=1)]
    _, wanted = NeighbourIndex(features)(asked, K)
    cosine, found = NeighbourIndex(features, cells)(asked, K)
    assert recall(found, wanted) >= 0.95
    products = np.einsum("qf,qkf->qk", asked, features.astype(np.float32)[found])
    np.testing.assert_allclose(cosine, products, atol=1e-5)
    assert (np.diff(cosine, axis=1) <= 0).all()
    assert cells.probes <= len(cells.centroids) // 2, "else the cells save nothing"


def test_one_cell_less_than_needed_would_not_do(features: NDArray[np.float16], cells: Cells) -> None:
    """The number of cells is chosen on the data: half as many find too few of the sample."""
    assert cells.probes > 1
    division = divide(queries_of(features), features, K, seed=0)
    assert division.recall >= RECALL
    asked = queries_of(features)[1::12]
    asked = asked[asked.any(axis=1)]
    _, wanted = NeighbourIndex(features)(asked, K)
    _, found = NeighbourIndex(features, cells._replace(probes=cells.probes // 2))(asked, K)
    assert recall(found, wanted) < RECALL + 0.005


def test_every_user_compared_is_the_exact_search(features: NDArray[np.float16], cells: Cells) -> None:
    asked = queries_of(features)[1:40]
    cosine, users = NeighbourIndex(features)(asked, K)
    in_cells, found = NeighbourIndex(features, cells).exact(asked, K)
    np.testing.assert_allclose(in_cells, cosine, atol=1e-5)
    assert recall(found, users) > 0.999


def test_who_is_gone_is_not_found_and_others_take_their_place(features: NDArray[np.float16], cells: Cells) -> None:
    asked = queries_of(features)[1:60]
    index = NeighbourIndex(features, cells)
    present = np.ones(NUM_USERS, dtype=np.bool_)
    present[np.unique(index(asked, 5)[1])] = False
    _, users = index.among(present)(asked, K)
    assert present[users].all()
    assert (users >= 0).all()
    few = np.zeros(NUM_USERS, dtype=np.bool_)
    few[[10, 4000]] = True  # in two cells that most queries do not look into
    assert {frozenset(row) for row in index.among(few)(asked, K)[1].tolist()} == {frozenset({10, 4000, -1})}


def test_equal_calls_divide_equally(features: NDArray[np.float16], cells: Cells) -> None:
    again = divide(queries_of(features), features, K, seed=0).cells
    np.testing.assert_array_equal(cells.centroids, again.centroids)
    np.testing.assert_array_equal(cells.cells, again.cells)
    assert cells.probes == again.probes
    other = divide(queries_of(features), features, K, seed=1).cells
    assert not np.array_equal(cells.centroids, other.centroids)


def test_a_search_that_finds_too_few_looks_into_more(
    features: NDArray[np.float16], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = queries_of(features)
    few = divide(asked, features, K, seed=0).cells.probes
    monkeypatch.setattr(graph_cells, "RECALL", 1.0)
    assert divide(asked, features, K, seed=0).cells.probes > few


def test_a_release_with_cells_and_hnsw_is_made_published_and_served(demo_shop: Path, tmp_path: Path) -> None:
    """From the shop's files to an answer, with the numbers of users and items from which they are made turned down."""
    large = ("graph.cells_from=100", "search.hnsw_from=10")
    config = build_config("demo", None, (*TINY, *large, "semantic_ids.codebook_size=16"))
    bundle = run_stages("export", demo_shop, tmp_path, config)["export"]
    folder = publish(bundle, tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {"user_cells.npy", "user_centroids.npy", "dense_hnsw.npy", "explicit_hnsw.npy"} <= set(manifest["files"])
    assert manifest["group_search"]["probes"] >= 1
    assert manifest["item_search"]["dense_ef"] >= 1
    recalls = json.loads(next((tmp_path / ".work" / "compile").glob("*/item_recall.json")).read_text())
    assert recalls.keys() == {"dense", "explicit"}
    ours, theirs = offline_release.open_release(folder), service_release.open_release(folder)
    history = [[1, 2, 3]]
    one, other = ours.recommender.read(history, [-1]), theirs.recommender.read(history, [-1])
    np.testing.assert_array_equal(one.neighbours.users, other.neighbours.users)
    assert (one.neighbours.users >= 0).any()
    request = [RankingRequest(history=history[0], n=10, allowed=np.ones(len(theirs.catalogue), dtype=np.bool_))]
    ours_first, theirs_first = (part.recommender.rank(request, one)[0] for part in (ours, theirs))
    assert [item.item_index for item in ours_first.items] == [item.item_index for item in theirs_first.items]
    assert len(ours_first.items) == 10
    report = json.loads(next((tmp_path / ".work" / "graph").glob("*/report.json")).read_text())
    assert report["similar_user_search"]["recall"] >= RECALL


def test_a_search_of_items_that_finds_too_few_is_reported() -> None:
    warning = low_recall("dense", 0.901, 70_000)
    assert "dense vectors finds 90.1% of the best 100 items" in warning
    assert warning.endswith("--set search.hnsw_from=70001")
    assert low_recall("dense", 0.98, 70_000) == ""
