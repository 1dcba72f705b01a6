"""What one user takes on one day goes together; what is alike steps down."""

import math

import numpy as np
import pytest

from isrf.method.evidence import SparseLists
from isrf.method.interest import FloatArray
from isrf.method.kinds.together import CHOSEN, DAY_S, MOST_TOGETHER, basket_lists, complements

NO_LIST = SparseLists(np.zeros(4, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
FLAT: FloatArray = np.full(3, 0.1, np.float32)


def lists_of(*events: tuple[int, int, float]) -> dict[tuple[int, int], float]:
    """(user, item, day) events of three users → the weight of each pair of six items."""
    ordered = sorted(events, key=lambda event: event[0])
    users = [user for user, _, _ in ordered]
    indptr = np.searchsorted(users, np.arange(4)).astype(np.int64)
    items = np.array([item for _, item, _ in ordered], np.int32)
    lists = basket_lists(indptr, items, np.array([day * DAY_S for _, _, day in ordered]), num_items=6)
    return {
        (row, int(item)): round(float(weight), 6)
        for row in range(6)
        for item, weight in zip(*lists.entries(row), strict=True)
    }


def test_a_basket_is_one_users_day() -> None:
    # Items 0 and 1 are in one basket; 2 is another day's, 3 another user's.
    found = lists_of((0, 0, 1.0), (0, 1, 1.5), (0, 2, 2.0), (1, 3, 1.0))
    assert found == {(0, 1): 0.5, (1, 0): 0.5}, "1/log2(2 + 2), in one basket each"


def test_frequent_items_weigh_less() -> None:
    found = lists_of((0, 0, 1.0), (0, 1, 1.0), (1, 0, 1.0), (2, 0, 1.0), (2, 0, 1.2), (2, 2, 1.0))
    assert found[0, 1] == pytest.approx(0.5 / math.sqrt(3 * 1), abs=1e-6)
    assert found[2, 0] == found[0, 2] == pytest.approx(0.5 / math.sqrt(3), abs=1e-6)


def test_untimed_events_and_huge_baskets_tell_nothing() -> None:
    assert lists_of((0, 0, math.nan), (0, 1, math.nan)) == {}
    huge = np.arange(MOST_TOGETHER + 1, dtype=np.int32)
    indptr = np.array([0, len(huge)], np.int64)
    assert not len(basket_lists(indptr, huge, np.zeros(len(huge)), num_items=len(huge)).indices)


def test_no_events_make_empty_lists() -> None:
    empty = basket_lists(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0), num_items=3)
    assert empty.indptr.tolist() == [0, 0, 0, 0]


def test_the_score_is_its_formula() -> None:
    beside = SparseLists(np.array([0, 2, 2, 2]), np.array([1, 2], np.int32), np.array([0.75, 0.25], np.float32))
    vectors = np.eye(3, dtype=np.float32)
    found = complements(
        [0],
        {"cooccurrence": beside, "transition": NO_LIST},
        baskets=NO_LIST,
        vectors=vectors,
        popularity=FLAT,
    )
    assert found.found.tolist() == [False, True, True]
    rest = math.log(CHOSEN.basket_epsilon) + CHOSEN.transition * math.log(CHOSEN.transition_epsilon)
    rest += CHOSEN.popularity * math.log(0.1 + CHOSEN.popularity_epsilon)
    assert found.scores[1] == pytest.approx(math.log(0.75 + CHOSEN.cooccurrence_epsilon) + rest, abs=1e-5)


def test_alike_items_step_down() -> None:
    beside = SparseLists(np.array([0, 2, 2, 2]), np.array([1, 2], np.int32), np.array([0.5, 0.5], np.float32))
    vectors = np.array([[1, 0], [1, 0.1], [0, 1]], np.float32)
    found = complements(
        [0], {"cooccurrence": beside, "transition": NO_LIST}, baskets=NO_LIST, vectors=vectors, popularity=FLAT
    )
    assert found.alike.tolist() == [True, True, False]
    assert found.scores[2] - found.scores[1] == pytest.approx(CHOSEN.alike_penalty, abs=1e-5)


def test_a_carts_lists_are_added_up() -> None:
    beside = SparseLists(np.array([0, 1, 2, 2]), np.array([2, 2], np.int32), np.array([0.4, 0.2], np.float32))
    vectors = np.eye(3, dtype=np.float32)

    def score(given: list[int]) -> float:
        found = complements(
            given, {"cooccurrence": beside, "transition": NO_LIST}, baskets=NO_LIST, vectors=vectors, popularity=FLAT
        )
        return float(found.scores[2])

    assert score([1]) < score([0, 1]) < score([0]), "the mean of 0.4 and 0.2 lies between them"
