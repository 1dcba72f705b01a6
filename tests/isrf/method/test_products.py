"""A product is counted as one on the side that is asked: its variants have one row, offline and live."""

import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from isrf.method.evidence import CountedLists, ItemLists, SparseLists, num_takers
from isrf.method.interest import IntArray
from isrf.method.kinds.together import DAY_S, basket_lists
from isrf.method.pair_counts import count_cooccurrence, count_transitions
from isrf.method.recommend.live.event_chains import FEW_ITEMS
from isrf.method.recommend.live.live_counts import ROW_EVENTS, LiveCounts
from isrf.method.recommend.live.live_events import LiveEvent
from isrf.method.recommend.live.live_lists import BaseCounts, LiveLists
from isrf.method.recommend.product_groups import ProductGroups, ProductLists, Products
from tests.slowness import slowness

NUM_ITEMS = 8
FIRST = np.array([0, 1, 0, 3, 1, 5, 0, 7])
"""Items 0, 2 and 6 are variants of one product, 1 and 4 of another."""
SHUFFLED = st.lists(
    st.permutations(range(NUM_ITEMS)).flatmap(lambda row: st.integers(1, NUM_ITEMS).map(lambda n: row[:n]))
)


def events_of(histories: Sequence[Sequence[int]]) -> tuple[IntArray, IntArray]:
    users = [user for user, history in enumerate(histories) for _ in history]
    return np.array(users, np.int64), np.array([item for history in histories for item in history], np.int64)


def dense(lists: ItemLists, num_items: int = NUM_ITEMS) -> NDArray[np.float64]:
    found = np.zeros((num_items, num_items))
    for row in range(num_items):
        entries = lists.entries(row)
        found[row, entries.indices] = entries.weights
    return found


def by_product(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums the rows of variants, without columns of the product, scaled to 1."""
    same = FIRST[:, None] == FIRST[None, :]
    summed = np.where(same, 0.0, same.astype(np.float64) @ counts)
    scaled: NDArray[np.float64] = summed / np.maximum(summed.sum(axis=1, keepdims=True), 1e-12)
    return scaled


def counts_of(counted: CountedLists) -> NDArray[np.float64]:
    return dense(counted.lists) * counted.totals[:, None]


def transitions(histories: Sequence[Sequence[int]], first: IntArray | None = None) -> CountedLists:
    users, items = events_of(histories)
    return count_transitions(users, items, num_items=NUM_ITEMS, window=3, length=NUM_ITEMS, first_variants=first)


def test_a_variants_row_is_the_sum_of_all() -> None:
    # After variant 0 came 1; after variant 2 came 3 and, a step later, 0, a variant of itself.
    counted = transitions([[0, 1], [2, 3, 0]], FIRST)
    for variant in (0, 2, 6):
        entries = counted.lists.entries(variant)
        assert dict(zip(entries.indices.tolist(), entries.weights.tolist(), strict=True)) == {1: 0.5, 3: 0.5}
        assert counted.totals[variant] == 2.0
    # Columns stay the variants that people took: after 3 came 0, and neither 2 nor 6.
    assert counted.lists.entries(3).indices.tolist() == [0]


@settings(max_examples=50, deadline=None)
@given(SHUFFLED)
def test_lists_of_products_are_sums_of_lists_of_items(histories: list[list[int]]) -> None:
    users, items = events_of(histories)
    np.testing.assert_allclose(
        dense(transitions(histories, FIRST).lists), by_product(counts_of(transitions(histories))), atol=1e-6
    )
    each, both = (
        count_cooccurrence(users, items, num_items=NUM_ITEMS, length=NUM_ITEMS, first_variants=first)
        for first in (None, FIRST)
    )
    takers = np.maximum(num_takers(users, items, num_items=NUM_ITEMS), 1.0)
    np.testing.assert_allclose(dense(both.lists), by_product(counts_of(each) * np.sqrt(takers)[:, None]), atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(SHUFFLED)
def test_without_variants_no_byte_changes(histories: list[list[int]]) -> None:
    users, items = events_of(histories)
    alone = np.arange(NUM_ITEMS)
    times = np.zeros(len(items))
    indptr = np.searchsorted(users, np.arange(len(histories) + 1)).astype(np.int64)

    def all_arrays(first: IntArray | None) -> list[bytes]:
        counted = [transitions(histories, first)]
        counted.append(count_cooccurrence(users, items, num_items=NUM_ITEMS, length=3, first_variants=first))
        baskets = basket_lists(indptr, items.astype(np.int32), times, num_items=NUM_ITEMS, first_variants=first)
        arrays = [*baskets, *(array for one in counted for array in (*one.lists, one.totals))]
        return [array.tobytes() for array in arrays]

    assert all_arrays(None) == all_arrays(alone)


def test_baskets_are_of_products() -> None:
    # On one day: 0 with 1, 2 with 1, 0 with 2.
    _, items = events_of([[0, 1], [1, 2], [0, 2]])
    indptr = np.array([0, 2, 4, 6])
    lists = basket_lists(indptr, items.astype(np.int32), np.full(6, DAY_S), num_items=NUM_ITEMS, first_variants=FIRST)
    # Two baskets of the product with item 1; three baskets with the product, two with item 1.
    weight = 2 * 0.5 / np.sqrt(3 * 2)
    for variant in (0, 2, 6):
        assert dict(zip(*map(np.ndarray.tolist, lists.entries(variant)), strict=True)) == pytest.approx({1: weight})
    assert lists.entries(4).indices.tolist() == [0, 2]


def live_events(histories: Sequence[Sequence[int]]) -> list[LiveEvent]:
    return [
        LiveEvent(item, history[:place][::-1], 0.0, user, 1 + user * NUM_ITEMS + item)
        for user, history in enumerate(histories)
        for place, item in enumerate(history)
    ]


def counted_live(events: Sequence[LiveEvent], *, max_events: int = 1000) -> LiveCounts:
    live = LiveCounts(reference_s=0.0, half_life_s=DAY_S, window=3, max_events=max_events)
    for event in events:
        live.add(event)
    return live


@settings(max_examples=50, deadline=None)
@given(SHUFFLED, st.integers(0, 8), st.randoms())
def test_offline_and_live_give_one_estimate_on_every_replica(
    histories: list[list[int]], cut: int, random: st.DataObject
) -> None:
    before, after = histories[:cut], histories[cut:]
    products = Products.of_release(FIRST)
    counted = transitions(before, FIRST)
    users, items = events_of(before)
    takers = num_takers(users, items, num_items=NUM_ITEMS).astype(np.float32)
    base = BaseCounts(counted.lists, counted.totals, takers)
    events = live_events(after)
    one = LiveLists("transition", base, counted_live(events), products)
    expected = dense(transitions(histories, FIRST).lists)
    np.testing.assert_allclose(dense(one), expected, atol=1e-5)
    random.shuffle(events)  # type: ignore[attr-defined]
    other = LiveLists("transition", base, counted_live(events), products)
    for row in range(NUM_ITEMS):
        assert [part.tobytes() for part in one.entries(row)] == [part.tobytes() for part in other.entries(row)]
        assert one.version(row) == other.version(row) == one.version(int(FIRST[row]))
        assert [part.tobytes() for part in one.entries(row)] == [
            part.tobytes() for part in one.entries(int(FIRST[row]))
        ], "all variants have one row"


def test_live_pairs_of_a_product_are_normalised_as_the_release_s_are() -> None:
    before, after = [[0, 1], [3, 5]], [[2, 5], [6, 1], [7, 3]]
    users, items = events_of(before)
    counted = count_cooccurrence(users, items, num_items=NUM_ITEMS, length=NUM_ITEMS, first_variants=FIRST)
    takers = num_takers(users, items, num_items=NUM_ITEMS).astype(np.float32)
    live = counted_live(live_events(after))
    lists = LiveLists(
        "cooccurrence", BaseCounts(counted.lists, counted.totals, takers), live, Products.of_release(FIRST)
    )
    users, items = events_of(before + after)
    together = count_cooccurrence(users, items, num_items=NUM_ITEMS, length=NUM_ITEMS, first_variants=FIRST)
    np.testing.assert_allclose(dense(lists), dense(together.lists), atol=3e-3)


GROUPS = ["shirt", None, "shirt", "cup", None]
"""Of the items of a release."""


def products_of(group_ids: Sequence[str | None], takers: Sequence[float] = (1, 1, 1, 1, 1)) -> Products:
    return Products.of_catalogue(ProductGroups.of(group_ids), group_ids, GROUPS, np.array(takers, np.float32))


@pytest.mark.parametrize(
    ("group_ids", "rows"),
    [
        (GROUPS, [0, 1, 0, 3, 4]),
        ([*GROUPS, "shirt", "cup", "new", "new", None], [0, 1, 0, 3, 4, 0, 3, 7, 8, 9]),
        (["shirt", None, None, "cup", None], [0, 1, 0, 3, 4]),  # a removed group: what the release says of it stays
        (["shirt", None, "cup", "cup", None], [0, 1, 3, 3, 4]),  # a change of groups
        (["cup", None, "cup", "cup", None, "shirt"], [3, 1, 3, 3, 4, 0]),  # nobody is in the group any more
        (["shirt", "mug", "shirt", "cup", "mug", "mug"], [0, 1, 0, 3, 4, 1]),  # a group that the release lacks
    ],
)
def test_changed_groups_have_the_releases_evidence(group_ids: list[str | None], rows: list[int]) -> None:
    assert products_of(group_ids).release_rows.tolist() == rows


def test_a_new_item_of_an_unknown_product_has_its_most_taken_variants_evidence() -> None:
    group_ids = ["shirt", "mug", "shirt", "cup", "mug", "mug"]
    assert products_of(group_ids, (1, 1, 1, 1, 2)).release_rows[5] == 4


def test_a_new_variant_has_its_products_evidence_at_once() -> None:
    first = ProductGroups.of(GROUPS).first
    users, items = events_of([[0, 1], [2, 3], [3, 4]])
    counted = count_transitions(users, items, num_items=5, window=3, length=5, first_variants=first)
    group_ids = [*GROUPS, "shirt"]
    products, takers = products_of(group_ids), np.ones(5, np.float32)
    live = counted_live([LiveEvent(4, (5,), 0.0, 9, 1)])
    lists = LiveLists("transition", BaseCounts(counted.lists, counted.totals, takers), live, products)
    for variant in (0, 2, 5):
        entries = lists.entries(variant)
        assert dict(zip(*map(np.ndarray.tolist, entries), strict=True)) == pytest.approx({1: 1 / 3, 3: 1 / 3, 4: 1 / 3})
    assert lists.people(0, 4, apart_from=None) == 1
    alone = ProductLists(counted.lists.with_rows(1), products)
    assert alone.entries(5).indices.tolist() == counted.lists.entries(0).indices.tolist() == [1, 3]
    regrouped = products_of(["shirt", "shirt", "shirt", "cup", None, "shirt"])
    for found in (ProductLists(counted.lists.with_rows(1), regrouped), lists.with_products(regrouped)):
        assert 1 not in found.entries(5).indices, "item 1 is a variant now, and no complement"
        entries, lengths = found.gather(np.array([5, 3]))
        assert lengths.tolist() == [len(found.entries(5).indices), 1]


def test_items_beyond_the_groups_are_alone() -> None:
    groups = ProductGroups.of(GROUPS)
    assert groups.first_of(9) == 9
    assert groups.members(9).tolist() == [9]
    assert groups.are_variants(0, np.array([2, 3, 0, 9])).tolist() == [True, False, True, False]
    assert groups.are_variants(9, np.array([0, 9])).tolist() == [False, True]


@pytest.mark.parametrize("size", [2, FEW_ITEMS, FEW_ITEMS + 1, 60])
def test_a_products_live_row_is_the_sum_of_its_variants(size: int) -> None:
    rng = np.random.default_rng(size)
    histories = [rng.permutation(100)[:10].tolist() for _ in range(80)]
    live = counted_live(live_events(histories), max_events=500)
    groups = ProductGroups(np.where(np.arange(100) < size, 0, np.arange(100)))
    found = live.rows([0, 99, size - 1], groups)
    each = live.rows(range(100))
    for columns, counts in ("transition", "transition_counts"), ("together", "together_counts"):
        summed = np.zeros(100)
        for row in each[:size]:
            np.add.at(summed, getattr(row, columns), getattr(row, counts))
        summed[:size] = 0
        assert getattr(found[0], columns).tolist() == np.flatnonzero(summed).tolist()
        np.testing.assert_allclose(getattr(found[0], counts), summed[summed > 0])
    assert found[2] is found[0]
    assert found[1].transition.tolist() == each[99].transition.tolist()


def test_a_group_of_ten_thousand_costs_no_more_than_a_row() -> None:
    size = 10_000
    groups = ProductGroups(np.append(np.zeros(size, np.int64), np.arange(size, size + 50)))
    rng = np.random.default_rng(1)
    live = counted_live(
        [
            LiveEvent(int(item), (int(before),), 0.0, user, user + 1)
            for user, (item, before) in enumerate(
                zip(rng.integers(size, size + 50, 20_000), rng.integers(0, size, 20_000), strict=True)
            )
        ],
        max_events=15_000,
    )
    began = time.process_time()
    row = live.rows([17], groups)[0]
    assert time.process_time() - began < 0.2 * slowness()
    assert row.transition_counts.sum() == ROW_EVENTS, "the latest events that name a variant"


def test_lists_of_a_large_group_are_counted_once() -> None:
    histories = [[user % 500, 500 + user % 7] for user in range(2000)]
    users, items = events_of(histories)
    first = np.append(np.zeros(500, np.int64), np.arange(500, 507))
    counted = count_transitions(users, items, num_items=507, window=1, length=100, first_variants=first)
    assert counted.totals[:500].tolist() == [2000.0] * 500
    assert np.diff(counted.lists.indptr)[:500].tolist() == [7] * 500
    assert isinstance(counted.lists, SparseLists)
