"""One function reads a history; it sees neither the target nor the query's own user."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isrf.contract.manifest import GroupSearch
from isrf.method.interest import (
    InterestTables,
    Neighbours,
    calibrate,
    group_interest,
    pad_histories,
    read_history,
    select_neighbours,
    unit_rows,
)

SEARCH = GroupSearch(threshold=0.7, background_cosine=0.2, nearest_cosine=0.7, max_neighbours=3, min_neighbours=2)


def tables(num_items: int = 12, text_dim: int = 4, dim: int = 3, *, recency: float = 0.5) -> InterestTables:
    rng = np.random.default_rng(0)
    return InterestTables(
        item_text=unit_rows(rng.normal(size=(num_items, text_dim)).astype(np.float32)),
        item_layers=rng.normal(size=(num_items, dim)).astype(np.float32),
        feature_map=rng.normal(size=(text_dim, text_dim)).astype(np.float32),
        recency=recency,
        text_share=0.25,
    )


def test_the_explicit_vector_is_the_recency_weighted_sum_at_length_one() -> None:
    t = tables()
    read = read_history(t, *pad_histories([[4, 7, 2]], 5))
    by_hand = t.item_layers[2] + 0.5 * t.item_layers[7] + 0.25 * t.item_layers[4]
    np.testing.assert_allclose(read.explicit[0], by_hand / np.linalg.norm(by_hand), rtol=1e-5)


def test_the_feature_holds_both_parts_in_their_shares() -> None:
    t = tables()
    read = read_history(t, *pad_histories([[4, 7, 2]], 5))
    semantic, graph = read.feature[0, :4], read.feature[0, 4:]
    assert np.sum(semantic**2) == pytest.approx(0.25, abs=1e-5)
    assert np.sum(graph**2) == pytest.approx(0.75, abs=1e-5)
    np.testing.assert_allclose(graph / np.linalg.norm(graph), read.explicit[0], rtol=1e-5)


def test_an_empty_history_says_nothing() -> None:
    read = read_history(tables(), *pad_histories([[], [1]], 5))
    assert not read.explicit[0].any()
    assert not read.feature[0].any()
    assert np.linalg.norm(read.feature[1]) == pytest.approx(1.0, abs=1e-5)


@given(st.lists(st.lists(st.integers(0, 11), max_size=9), min_size=1, max_size=5))
def test_a_history_reads_the_same_alone_and_in_company(histories: list[list[int]]) -> None:
    t = tables()
    together = read_history(t, *pad_histories(histories, 6))
    for row, history in enumerate(histories):
        alone = read_history(t, *pad_histories([history], 6))
        np.testing.assert_allclose(together.feature[row], alone.feature[0], atol=1e-6)


def test_only_the_most_recent_items_are_kept_most_recent_first() -> None:
    rows, mask = pad_histories([[1, 2, 3, 4], [5]], 3)
    assert rows.tolist() == [[4, 3, 2], [5, 0, 0]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]


def test_calibration_puts_random_pairs_at_zero_and_typical_nearest_pairs_at_one() -> None:
    cosine = np.array([[0.2, 0.7, 0.55]], dtype=np.float32)
    np.testing.assert_allclose(calibrate(SEARCH, cosine), [[0.0, 1.0, 0.7]], atol=1e-6)


def test_where_random_pairs_are_as_near_as_nearest_ones_all_of_them_are_similar() -> None:
    search = SEARCH.model_copy(update={"background_cosine": 0.9, "nearest_cosine": 0.9000001})
    cosine = np.array([[0.95, 0.9, 0.8999999, 0.5]], dtype=np.float32)
    assert calibrate(search, cosine).tolist() == [[1.0, 1.0, 1.0, 0.0]]
    found = select_neighbours(search, cosine, np.array([[5, 6, 7, 8]]), own=np.array([5]))
    assert (found.users.tolist(), found.weak.tolist()) == ([[6, 7, -1]], [False])


@pytest.mark.parametrize("nearest", [0.6, -0.2])
def test_who_has_no_feature_is_like_nobody_even_where_random_pairs_lie_below_zero(nearest: float) -> None:
    search = SEARCH.model_copy(update={"background_cosine": -0.2, "nearest_cosine": nearest})
    cosine = np.array([[0.6, 0.0, -0.1], [0.0, 0.0, 0.0]], dtype=np.float32)
    found = select_neighbours(search, cosine, np.array([[1, 2, 3], [1, 2, 3]]), own=np.array([-1, -1]))
    assert found.weak.tolist() == [False, True]
    assert 2 not in found.users[0]
    assert found.users[1].tolist() == [-1, -1, -1]


def test_neighbours_are_near_enough_capped_and_never_oneself() -> None:
    cosine = np.array([[1.0, 0.9, 0.8, 0.7, 0.6, 0.3]], dtype=np.float32)
    users = np.array([[3, 8, 9, 1, 2, 4]])
    found = select_neighbours(SEARCH, cosine, users, own=np.array([8]))
    assert found.users.tolist() == [[3, 9, 1]]
    assert not found.weak[0]
    np.testing.assert_allclose(found.similarity[0], [1.6, 1.2, 1.0], rtol=1e-5)


def test_where_nobody_is_near_the_nearest_few_are_taken_and_marked_weak() -> None:
    cosine = np.array([[0.5, 0.4, 0.3, 0.1]], dtype=np.float32)
    found = select_neighbours(SEARCH, cosine, np.array([[5, 6, 7, 8]]), own=np.array([5]))
    assert found.users.tolist() == [[6, 7, -1]]
    assert found.weak[0]


def test_the_own_row_does_not_make_a_query_strong() -> None:
    cosine = np.array([[1.0, 0.3, 0.25]], dtype=np.float32)
    found = select_neighbours(SEARCH, cosine, np.array([[5, 6, 7]]), own=np.array([5]))
    assert found.weak[0]
    assert found.users.tolist() == [[6, 7, -1]]


def test_the_group_vector_is_the_sum_of_the_neighbours_layers_at_length_one() -> None:
    layers = np.array([[1.0, 0.0], [0.0, 2.0], [9.0, 9.0]], dtype=np.float16)
    neighbours = Neighbours(
        users=np.array([[0, 1, -1], [-1, -1, -1]]),
        similarity=np.array([[1.0, 0.8, 0.0], [0.0, 0.0, 0.0]], dtype=np.float32),
        weak=np.array([False, True]),
    )
    group = group_interest(neighbours, layers)
    np.testing.assert_allclose(group[0], np.array([1.0, 2.0]) / np.sqrt(5.0), rtol=1e-4)
    assert not group[1].any()
