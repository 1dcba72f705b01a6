"""Cached answers of placements stay within their bytes and their seconds."""

from typing import Any

import pytest

from isrf.method.recommend.request import RankedItem
from service.recommend.placements.placed_answers import PlacedAnswers, PlacedKey, estimated_bytes
from service.recommend.placements.placed_query import PlacedQuery
from service.recommend.query_models import Answer


def answer(num_items: int, **more: Any) -> Answer:
    items = [RankedItem(row, 1.0, "dense") for row in range(num_items)]
    return Answer(
        items=items,
        places=range(1, num_items + 1),
        recommendation_id="r",
        num_listed=num_items,
        release_id="r-1",
        source="for-user",
        **more,
    )


def key(user_id: str, **more: Any) -> PlacedKey:
    return PlacedKey(PlacedQuery(user_id=user_id, **more), ("home", 1))


def test_the_cache_is_bounded_by_bytes() -> None:
    answers = PlacedAnswers(max_bytes=100_000)
    size = estimated_bytes(key("user-0").asked, answer(10))
    for number in range(1000):
        answers.keep(key(f"user-{number:03}"), answer(10), made_s=0, given_s=60)
    kept = [number for number in range(1000) if answers.get(key(f"user-{number:03}"), 1) is not None]
    assert answers.num_bytes <= 100_000
    assert kept == list(range(1000 - len(kept), 1000)), "the latest ones"
    assert 10 < len(kept) <= 100_000 // size


@pytest.mark.parametrize(
    "larger",
    [
        (key("u"), answer(200)),
        (key("u", session=("x" * 500,) * 1000), answer(10)),
        (key("u", given=("x" * 500,) * 100), answer(10)),
        (key("u"), answer(10, reasons=[[{"text": "x" * 1000}]] * 10)),
        (key("u"), answer(10, moves=[[{"rule": 1, "kind": "boost", "moved": 3}] * 50] * 10)),
    ],
)
def test_everything_that_grows_counts(larger: tuple[PlacedKey, Answer]) -> None:
    plain = estimated_bytes(key("u").asked, answer(10))
    assert estimated_bytes(larger[0].asked, larger[1]) > 2 * plain


def test_an_answer_larger_than_the_cache_is_left_out() -> None:
    answers = PlacedAnswers(max_bytes=4000)
    answers.keep(key("u"), answer(200), made_s=0, given_s=60)
    assert (answers.get(key("u"), 1), answers.num_bytes) == (None, 0)


@pytest.mark.parametrize(("now_s", "is_given"), [(100, True), (159.9, True), (160, False), (99, False)])
def test_an_answer_is_given_for_its_seconds(now_s: float, is_given: bool) -> None:
    answers = PlacedAnswers()
    answers.keep(key("u"), answer(3), made_s=100, given_s=60)
    assert (answers.get(key("u"), now_s) is not None) is is_given


def test_a_users_answers_are_forgotten() -> None:
    answers = PlacedAnswers()
    for user in ("ann", "bob"):
        answers.keep(key(user), answer(3), made_s=0, given_s=60)
    answers.forget("ann")
    assert answers.get(key("ann"), 1) is None
    assert answers.get(key("bob"), 1) is not None
