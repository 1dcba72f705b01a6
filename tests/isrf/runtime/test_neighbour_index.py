"""Nearest users in either precision, among some of them, and with others behind them (cells: `test_cells`)."""

import numpy as np
import pytest
from numpy.typing import NDArray

from isrf.runtime.neighbour_index import NeighbourIndex, Precision, joined


def test_selected_neighbours_are_the_nearest_of_those_present() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(1003, 16)).astype(np.float32)
    queries = rng.normal(size=(5, 16)).astype(np.float32)
    present = rng.random(1003) < 0.4
    cosine, users = NeighbourIndex(features).among(present)(queries, 50)
    products = np.where(present, queries @ features.T, -np.inf)
    np.testing.assert_array_equal(users, np.argsort(-products, axis=1, kind="stable")[:, :50])
    np.testing.assert_allclose(cosine, np.sort(products, axis=1)[:, ::-1][:, :50], rtol=1e-5)
    few = np.zeros(1003, dtype=np.bool_)
    few[[3, 8]] = True
    assert {*NeighbourIndex(features).among(few)(queries, 50)[1][0]} == {3, 8, -1}


@pytest.mark.parametrize("width", [24, 19])  # a multiple of what one instruction reads, and none
def test_users_in_half_precision_are_found_as_their_stored_values_say(width: int) -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(400, width)).astype(np.float16)
    features[7] = 0
    queries = rng.normal(size=(5, width)).astype(np.float32)
    cosine, users = NeighbourIndex(features, precision="float16")(queries, 401)
    products = queries @ features.astype(np.float32).T
    np.testing.assert_array_equal(users[:, :400], np.argsort(-products, axis=1, kind="stable"))
    np.testing.assert_allclose(cosine[:, :400], -np.sort(-products, axis=1), rtol=1e-4, atol=1e-5)
    assert (users[:, 400] == -1).all()


def test_base_and_delta_together_are_one_index() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(300, 8)).astype(np.float32)
    queries = rng.normal(size=(4, 8)).astype(np.float32)
    both = joined(NeighbourIndex(features[:260]), NeighbourIndex(features[260:]), 260)(queries, 100)
    whole = NeighbourIndex(features)(queries, 100)
    np.testing.assert_array_equal(both[1], whole[1])
    np.testing.assert_array_equal(both[0], whole[0])
    assert -1 in joined(NeighbourIndex(features[:3]), NeighbourIndex(features[3:5]), 3)(queries, 9)[1]


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_stored_features_give_the_same_neighbours_in_both_precisions(precision: Precision) -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(500, 32))
    features: NDArray[np.float16] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    queries = features[::50].astype(np.float32)
    cosine, users = NeighbourIndex(features, precision=precision)(queries, 20)
    products = queries @ features.astype(np.float32).T
    np.testing.assert_array_equal(users, np.argsort(-products, axis=1, kind="stable")[:, :20])
    np.testing.assert_allclose(cosine, -np.sort(-products, axis=1)[:, :20], rtol=1e-5)


def test_full_precision_keeps_what_half_precision_rounds_away() -> None:
    features = np.array([[1.0, 0.0], [1.0 + 1e-4, 0.0]], dtype=np.float32)
    query = np.array([[1.0, 0.0]], dtype=np.float32)
    assert NeighbourIndex(features)(query, 2)[1].tolist() == [[1, 0]]
    cosine = NeighbourIndex(features, precision="float16")(query, 2)[0]
    assert cosine[0, 0] == cosine[0, 1] == 1.0
