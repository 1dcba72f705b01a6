"""Pins, caps and quotas over small orders: by hand, and for any order and rules."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from isrf.method.ranking.arrange import arrange
from isrf.method.ranking.placed_rules import Arranged, Cap, Move, PlacedPin, Quota, Shortfall, moves_of, settle_pins

BRANDS = {0: ("a",), 1: ("a",), 2: ("b",), 3: ("a",), 4: ("b",)}


def mask(*rows: int, size: int = 5) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    found = np.zeros(size, dtype=np.bool_)
    found[list(rows)] = True
    return found


def test_two_pins_at_one_place_are_settled_in_order() -> None:
    pins = [PlacedPin(1, 2, 7), PlacedPin(2, 2, 8), PlacedPin(3, 3, 9), PlacedPin(4, 1, 7), PlacedPin(5, 60, 5)]
    settled, moved = settle_pins(pins, 50)
    assert settled == [PlacedPin(1, 2, 7), PlacedPin(2, 3, 8), PlacedPin(3, 4, 9)]
    assert moved == settled[1:]


def test_caps_hold_in_every_page() -> None:
    found = arrange([0, 1, 2, 3, 4], caps=[cap(1, 1, BRANDS)], page=2, length=5)
    # 0 a, 2 b | 1 a, 4 b | 3 a
    assert found.rows == [0, 2, 1, 4, 3]
    assert found.unmet == []
    assert moves_of([0, 1, 2, 3, 4], found, without_quotas=found, without_pins=found, pins=()) == {
        1: [Move(1, -1)],
        3: [Move(1, -1)],
    }


def test_a_cap_that_cannot_be_met_ends_the_list() -> None:
    found = arrange([0, 1, 2, 3, 4], caps=[cap(3, 1, BRANDS)], page=3, length=5)
    assert (found.rows, found.unmet) == ([0, 2], [3])


def test_a_cap_goes_before_a_pin() -> None:
    pins = [PlacedPin(1, 1, 3), PlacedPin(2, 2, 1)]
    found = arrange([0, 1, 2, 3, 4], pins=pins, caps=[cap(3, 1, BRANDS)], page=2, length=4)
    assert found.rows == [3, 2, 1, 4], "the refused pin's item comes where the cap lets it"
    assert found.refused == [pins[1]]


def test_a_pin_behind_the_end_stands_last() -> None:
    assert arrange([0, 1], pins=[PlacedPin(1, 9, 0)], page=10, length=10).rows == [1, 0]
    assert arrange([0, 1], pins=[PlacedPin(1, 9, 0)], page=2, length=10).rows == [1, 0], "though on a later page"
    assert arrange([0, 1], pins=[PlacedPin(1, 1, 4)], page=3, length=3).rows == [4, 0, 1], "an item beside the order"


def test_a_pins_move_is_told() -> None:
    order, pins = [0, 1, 2], [PlacedPin(4, 1, 2), PlacedPin(5, 2, 4)]
    without, found = arrange(order, page=5, length=5), arrange(order, pins=pins, page=5, length=5)
    assert moves_of(order, found, without_quotas=found, without_pins=without, pins=pins) == {
        2: [Move(4, 2)],
        4: [Move(5, None)],
    }


def cap(rule: int, most: int, values: Mapping[int, Sequence[str]]) -> Cap:
    return Cap(rule, most, lambda rows: [values.get(row, ()) for row in rows])


def quota(rule: int, least: int, *rows: int, size: int = 12) -> Quota:
    return Quota(rule, least, mask(*rows, size=size))


def test_a_quota_brings_the_best_items_as_low_as_suffices() -> None:
    found = arrange(range(12), quotas=[quota(1, 2, 8, 9, 11)], page=4, length=8)
    assert found.rows == [0, 1, 8, 9, 2, 3, 4, 11], "what is replaced comes next"
    assert found.brought == {8: 1, 9: 1, 11: 1}
    assert found.short == [Shortfall(1, 4, 1)]
    without = arrange(range(12), page=4, length=8)
    moved = moves_of(range(12), found, without_quotas=without, without_pins=without, pins=())
    assert moved == {8: [Move(1, None)], 9: [Move(1, None)], 11: [Move(1, None)]}


def test_a_quota_that_holds_already_changes_nothing() -> None:
    assert arrange(range(12), quotas=[quota(1, 2, 0, 3, 9)], page=4, length=4).rows == [0, 1, 2, 3]
    assert arrange(range(12), quotas=[quota(1, 3, *range(12))], page=4, length=4).rows == [0, 1, 2, 3]


def test_a_quota_of_nothing_is_short() -> None:
    found = arrange(range(12), quotas=[quota(1, 2)], page=4, length=4)
    assert (found.rows, found.short) == ([0, 1, 2, 3], [Shortfall(1, 0, 0)])


def test_a_quota_greater_than_the_page_takes_the_page() -> None:
    found = arrange(range(12), quotas=[quota(1, 9, 3, 5, 7, 9, 11)], page=4, length=4)
    assert (found.rows, found.short) == ([3, 5, 7, 9], [Shortfall(1, 0, 4)])


def test_two_quotas_share_their_items() -> None:
    both = [quota(1, 1, 5, 6), quota(2, 1, 6, 7)]
    assert arrange(range(12), quotas=both, page=3, length=3).rows == [0, 1, 6], "6 counts for both"
    apart = [quota(1, 1, 5), quota(2, 1, 7)]
    assert arrange(range(12), quotas=apart, page=3, length=3).rows == [0, 5, 7]
    assert arrange(range(12), quotas=both, page=1, length=1).rows == [6], "one item for both, where one place is left"


def test_a_quota_breaks_neither_pin_nor_cap() -> None:
    pins = [PlacedPin(1, 3, 0)]
    assert arrange(range(12), pins=pins, quotas=[quota(2, 3, 9, 10, 11)], page=3, length=3).rows == [9, 10, 0]
    brands = {1: ("a",), 9: ("a",), 10: ("b",)}
    found = arrange(range(12), caps=[cap(1, 1, brands)], quotas=[quota(2, 1, 9)], page=3, length=3)
    assert found.rows == [0, 2, 9], "it replaces the item that the cap counts, not the lowest one"
    held = arrange(
        range(12), pins=[PlacedPin(3, 1, 1)], caps=[cap(1, 1, brands)], quotas=[quota(2, 1, 9)], page=3, length=3
    )
    assert (held.rows, held.short) == ([1, 0, 2], [Shortfall(2, 0, 0)])
    later = arrange(range(12), pins=[PlacedPin(3, 4, 9)], quotas=[quota(2, 1, 9)], page=3, length=6)
    assert (later.rows, later.short) == ([0, 1, 2, 9, 3, 4], [Shortfall(2, 0, 0)]), "a pin of a later page stays there"


SIZE = 12


@settings(max_examples=300)
@given(
    order=st.lists(st.integers(0, SIZE - 1), unique=True),
    pinned=st.lists(st.tuples(st.integers(1, 15), st.integers(0, SIZE - 1)), max_size=5),
    brands=st.lists(st.sampled_from(["a", "b", "c", None]), min_size=SIZE, max_size=SIZE),
    tags=st.lists(st.lists(st.sampled_from("xyz"), unique=True), min_size=SIZE, max_size=SIZE),
    most=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    wanted=st.lists(st.tuples(st.integers(1, 5), st.sets(st.integers(0, SIZE - 1))), max_size=3),
    page=st.integers(1, 6),
    length=st.integers(1, 15),
)
def test_any_list_is_full_capped_and_pinned(
    order: list[int],
    pinned: list[tuple[int, int]],
    brands: list[str | None],
    tags: list[list[str]],
    most: tuple[int, int],
    wanted: list[tuple[int, set[int]]],
    page: int,
    length: int,
) -> None:
    page = min(page, length)
    by_brand = {row: (brand,) for row, brand in enumerate(brands) if brand is not None}
    caps = [cap(1, most[0], by_brand), cap(2, most[1], dict(enumerate(tags)))]
    pins, _ = settle_pins([PlacedPin(3 + at, *pin) for at, pin in enumerate(pinned)], length)
    quotas = [quota(20 + at, least, *rows, size=SIZE) for at, (least, rows) in enumerate(wanted)]
    found = arrange(order, pins=pins, caps=caps, quotas=quotas, page=page, length=length)
    assert found == arrange(order, pins=pins, caps=caps, quotas=quotas, page=page, length=length)
    known = set(order) | {pin.row for pin in pins}

    def fits(rows: list[int]) -> bool:
        return all(
            amount <= one.most
            for one in caps
            for amount in Counter(value for values in one.values(rows) for value in values).values()
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
    assert found.short == [
        Shortfall(one.rule, at * page, int(one.mask[rows].sum()))
        for at, rows in enumerate(pages or [[]])
        for one in quotas
        if one.mask[rows].sum() < one.least
    ]
    unruled = arrange(order, pins=pins, caps=caps, page=page, length=length)
    assert len(found.rows) >= min(len(unruled.rows), page), "a quota costs no item of the first page"
    for row, rule in found.brought.items():
        assert quotas[rule - 20].mask[row]
    if not by_brand and not any(tags) and len(quotas) == 1:
        by_quota = quotas[0]
        for short in found.short:
            before = {*found.rows[: short.begin + page], *(pin.row for pin in pins)}
            here = [row for row in found.rows[short.begin : short.begin + page] if row not in {pin.row for pin in pins}]
            assert all(by_quota.mask[row] for row in here) or not any(by_quota.mask[row] for row in known - before)
    plain = arrange(order, page=page, length=length)
    assert plain == Arranged(rows=order[:length])
