"""Boosts, pins and caps over small orders: by hand, and for any order, pins and caps."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isrf.method.ranking.rules import (
    Arranged,
    Cap,
    Move,
    PlacedPin,
    ScoreBoost,
    arrange,
    boost_moves,
    log_factors,
    moves_of,
    ranked,
    score_keys,
    settle_pins,
)

BRANDS = {0: ("a",), 1: ("a",), 2: ("b",), 3: ("a",), 4: ("b",)}


def mask(*rows: int, size: int = 5) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    found = np.zeros(size, dtype=np.bool_)
    found[list(rows)] = True
    return found


def test_a_boost_adds_the_logarithm_of_its_factor() -> None:
    boosts = [ScoreBoost(1, mask(2), np.log(4)), ScoreBoost(2, mask(0, 2), np.log(0.5))]
    assert log_factors(boosts, 3 + 2).tolist() == pytest.approx([np.log(0.5), 0, np.log(2), 0, 0])
    keys = score_keys(np.array([4.0, 2.0, 0.0]), logarithmic=False)
    assert np.exp(keys).tolist() == pytest.approx([4, 2, 1])
    assert ranked(keys + np.log([1, 1, 3])).tolist() == [0, 2, 1]
    assert score_keys(np.zeros(2), logarithmic=False).tolist() == [0, 0]


def test_each_boost_tells_its_own_moves() -> None:
    rows, keys = np.array([0, 1, 2]), np.log([4.0, 2.0, 1.0])
    boosts = [ScoreBoost(1, mask(2), np.log(3)), ScoreBoost(7, mask(0, 2), np.log(0.25))]
    # 4 2 1 → 4 2 3: item 2 rises by one; → 1 2 .75: item 0 falls behind 1, item 2 behind both
    assert boost_moves(rows, keys, boosts) == {2: [Move(1, 1), Move(7, -1)], 0: [Move(7, -1)]}


def test_two_pins_at_one_place_are_settled_in_order() -> None:
    pins = [PlacedPin(1, 2, 7), PlacedPin(2, 2, 8), PlacedPin(3, 3, 9), PlacedPin(4, 1, 7), PlacedPin(5, 60, 5)]
    settled, moved = settle_pins(pins, 50)
    assert settled == [PlacedPin(1, 2, 7), PlacedPin(2, 3, 8), PlacedPin(3, 4, 9)]
    assert moved == settled[1:]


def test_caps_hold_in_every_page() -> None:
    found = arrange([0, 1, 2, 3, 4], caps=[Cap(1, 1, BRANDS)], page=2, length=5)
    # 0 a, 2 b | 1 a, 4 b | 3 a
    assert found.rows == [0, 2, 1, 4, 3]
    assert found.unmet == []
    assert moves_of([0, 1, 2, 3, 4], found, found, ()) == {1: [Move(1, -1)], 3: [Move(1, -1)]}


def test_a_cap_that_cannot_be_met_ends_the_list() -> None:
    found = arrange([0, 1, 2, 3, 4], caps=[Cap(3, 1, BRANDS)], page=3, length=5)
    assert (found.rows, found.unmet) == ([0, 2], [3])


def test_a_cap_goes_before_a_pin() -> None:
    pins = [PlacedPin(1, 1, 3), PlacedPin(2, 2, 1)]
    found = arrange([0, 1, 2, 3, 4], pins=pins, caps=[Cap(3, 1, BRANDS)], page=2, length=4)
    assert found.rows == [3, 2, 1, 4], "the refused pin's item comes where the cap lets it"
    assert found.refused == [pins[1]]


def test_a_pin_behind_the_end_stands_last() -> None:
    assert arrange([0, 1], pins=[PlacedPin(1, 9, 0)], page=10, length=10).rows == [1, 0]
    assert arrange([0, 1], pins=[PlacedPin(1, 9, 0)], page=2, length=10).rows == [1, 0], "though on a later page"
    assert arrange([0, 1], pins=[PlacedPin(1, 1, 4)], page=3, length=3).rows == [4, 0, 1], "an item beside the order"


def test_a_pins_move_is_told() -> None:
    order, pins = [0, 1, 2], [PlacedPin(4, 1, 2), PlacedPin(5, 2, 4)]
    without, found = arrange(order, page=5, length=5), arrange(order, pins=pins, page=5, length=5)
    assert moves_of(order, found, without, pins) == {2: [Move(4, 2)], 4: [Move(5, None)]}


SIZE = 12


@settings(max_examples=300)
@given(
    order=st.lists(st.integers(0, SIZE - 1), unique=True),
    pinned=st.lists(st.tuples(st.integers(1, 15), st.integers(0, SIZE - 1)), max_size=5),
    brands=st.lists(st.sampled_from(["a", "b", "c", None]), min_size=SIZE, max_size=SIZE),
    tags=st.lists(st.lists(st.sampled_from("xyz"), unique=True), min_size=SIZE, max_size=SIZE),
    most=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    page=st.integers(1, 6),
    length=st.integers(1, 15),
)
def test_any_list_is_full_capped_and_pinned(
    order: list[int],
    pinned: list[tuple[int, int]],
    brands: list[str | None],
    tags: list[list[str]],
    most: tuple[int, int],
    page: int,
    length: int,
) -> None:
    page = min(page, length)
    by_brand = {row: (brand,) for row, brand in enumerate(brands) if brand is not None}
    caps = [Cap(1, most[0], by_brand), Cap(2, most[1], dict(enumerate(tags)))]
    pins, _ = settle_pins([PlacedPin(3 + at, *pin) for at, pin in enumerate(pinned)], length)
    found = arrange(order, pins=pins, caps=caps, page=page, length=length)
    known = set(order) | {pin.row for pin in pins}

    def fits(rows: list[int]) -> bool:
        return all(
            amount <= cap.most
            for cap in caps
            for amount in Counter(value for row in rows for value in cap.values.get(row, ())).values()
        )

    assert len(found.rows) == len(set(found.rows)) <= length
    assert set(found.rows) <= known
    pages = [found.rows[at : at + page] for at in range(0, len(found.rows), page)]
    assert all(map(fits, pages))
    left = known - set(found.rows)
    if len(found.rows) < length and left:
        last = found.rows[len(found.rows) // page * page :]
        assert not any(fits([*last, row]) for row in left), "an item that fits was left out"
        assert found.unmet
    whole = len(found.rows) if len(found.rows) == length else len(found.rows) // page * page
    for pin in pins:
        if pin.place <= whole and pin not in found.refused:
            at = found.rows.index(pin.row) + 1
            # Where no other item was left for a page, a pin of a later page filled it.
            assert at == pin.place or (at - 1) // page < (pin.place - 1) // page
    plain = arrange(order, page=page, length=length)
    assert plain == Arranged(rows=order[:length])
