"""Evidence channels say what the training sequences say, counted by hand."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from isrf.method.evidence import (
    NOTHING,
    CountedLists,
    Evidence,
    SparseLists,
    blocks_of_users,
    counted_lists,
    group_evidence,
    item_evidence,
    last_item_evidence,
    num_takers,
    user_item_lists,
)
from isrf.method.pair_counts import COOCCURRENCE_ITEMS, count_cooccurrence, count_transitions

USERS = np.array([0, 0, 0, 1, 1])
ITEMS = np.array([0, 1, 2, 0, 2])


def row(lists: SparseLists, index: int) -> dict[int, float]:
    part = lists.row(index)
    return dict(zip(lists.indices[part].tolist(), lists.weights[part].tolist(), strict=True))


def test_transitions_count_what_followed_nearer_steps_heavier() -> None:
    lists = count_transitions(USERS, ITEMS, num_items=4, window=2, length=10).lists
    # After item 0: item 1 one step later, item 2 two steps later (1/2) and one step later.
    assert row(lists, 0) == pytest.approx({2: 1.5 / 2.5, 1: 1.0 / 2.5})
    assert row(lists, 1) == pytest.approx({2: 1.0})
    assert row(lists, 2) == {}
    assert row(lists, 3) == {}


def test_a_transition_never_crosses_from_one_user_to_the_next() -> None:
    lists = count_transitions(np.array([0, 1]), np.array([0, 1]), num_items=2, window=3, length=10).lists
    assert len(lists.indices) == 0


def test_cooccurrence_is_symmetric_in_counts_and_normalised() -> None:
    lists = count_cooccurrence(USERS, ITEMS, num_items=3, length=10).lists
    long, short = 1 / np.log2(5), 1 / np.log2(4)
    with_two = (long + short) / np.sqrt(2 * 2)
    with_one = long / np.sqrt(2 * 1)
    assert row(lists, 0) == pytest.approx({2: with_two / (with_two + with_one), 1: with_one / (with_two + with_one)})


def test_cooccurrence_reads_the_latest_distinct_items_of_a_reseller() -> None:
    count = COOCCURRENCE_ITEMS
    # Item 0 stands first and again last: it counts as late. Item 1 is the one too many.
    items = np.array([*range(count + 1), 0])
    lists = count_cooccurrence(np.zeros(len(items), np.int64), items, num_items=count + 1, length=count).lists
    assert row(lists, 1) == {}
    assert set(row(lists, 0)) == set(range(2, count + 1))
    assert len(lists.indices) == count * (count - 1)


def test_lists_keep_the_heaviest_and_break_ties_by_row() -> None:
    lists = counted_lists(
        np.array([0, 0, 0, 0]), np.array([3, 1, 2, 2]), np.array([1.0, 1.0, 0.75, 0.75]), num_rows=2, length=2
    ).lists
    assert lists.indices.tolist() == [2, 1]
    assert lists.weights.tolist() == pytest.approx([0.6, 0.4])
    assert lists.indptr.tolist() == [0, 2, 2]


def test_an_items_channel_weighs_the_last_items_by_age() -> None:
    lists = count_transitions(USERS, ITEMS, num_items=4, window=1, length=10).lists
    found = item_evidence(lists, [1, 0], limit=10)
    # Last item 0 (age 0, weight 1): half to item 1, half to item 2. Before it item 1 (weight 0.7): all to item 2.
    assert found.items.tolist() == [1, 2]
    np.testing.assert_allclose(found.probability, [0.5 / 1.7, 1.2 / 1.7], rtol=1e-6)


@given(
    st.lists(st.lists(st.integers(0, 30), max_size=12, unique=True), min_size=1, max_size=4),
    st.integers(1, 12),
    st.data(),
)
def test_a_last_items_own_list_is_the_evidence_of_a_history_of_it_alone(
    rows: list[list[int]], limit: int, data: st.DataObject
) -> None:
    indptr = np.cumsum([0, *map(len, rows)])
    count = int(indptr[-1])
    weights = np.array(data.draw(st.lists(st.sampled_from([0.125, 0.25, 0.5]), min_size=count, max_size=count)))
    lists = SparseLists(
        indptr, np.array([item for one in rows for item in one], dtype=np.int32), weights.astype(np.float32)
    )
    for item in range(len(rows)):
        one, other = last_item_evidence(lists, item, limit=limit), item_evidence(lists, [item], limit=limit)
        assert as_mapping(one) == as_mapping(other)


def as_mapping(evidence: Evidence) -> dict[int, float]:
    assert len(set(evidence.items.tolist())) == len(evidence.items) == len(evidence.probability)
    return dict(zip(evidence.items.tolist(), evidence.probability.tolist(), strict=True))


def test_the_heaviest_are_kept_and_ties_go_to_the_lower_row() -> None:
    lists = SparseLists(
        np.array([0, 3, 6]),
        np.array([7, 2, 5, 9, 2, 4], dtype=np.int32),
        np.array([0.5, 0.25, 0.25, 0.5, 0.25, 0.25], dtype=np.float32),
    )
    found = item_evidence(lists, [1, 0], limit=2)
    # Of 7: 0.5; 2: 0.25 + 0.7 · 0.25; 9: 0.7 · 0.5; 5: 0.25; 4: 0.7 · 0.25.
    assert as_mapping(found) == pytest.approx({7: 0.5 / 1.7, 2: 0.425 / 1.7})
    equal = SparseLists(np.array([0, 3]), np.array([8, 3, 6], dtype=np.int32), np.full(3, 0.25, dtype=np.float32))
    assert sorted(as_mapping(item_evidence(equal, [0], limit=2))) == [3, 6]


def test_an_empty_history_has_no_evidence() -> None:
    lists = count_transitions(USERS, ITEMS, num_items=4, window=1, length=10).lists
    assert item_evidence(lists, [], limit=10) is NOTHING


def test_the_group_channel_weighs_neighbours_by_similarity_and_items_by_recency() -> None:
    lists = user_item_lists(USERS, ITEMS, num_users=3)
    np.testing.assert_allclose(lists.weights, [0.64, 0.8, 1.0, 0.8, 1.0], rtol=1e-6)
    found = group_evidence(lists, np.array([1, 0, -1]), np.array([1.0, 0.5, 0.0], dtype=np.float32), limit=10)
    weights = np.array([0.8 + 0.64 / 16, 0.8 / 16, 1.0 + 1.0 / 16])
    assert found.items.tolist() == [0, 1, 2]
    np.testing.assert_allclose(found.probability, weights / weights.sum(), rtol=1e-6)


def test_a_user_without_neighbours_has_no_group_evidence() -> None:
    lists = user_item_lists(USERS, ITEMS, num_users=3)
    assert group_evidence(lists, np.array([-1]), np.array([0.0], dtype=np.float32), limit=5) is NOTHING


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), max_size=40), st.integers(1, 4))
def test_every_list_is_a_distribution_of_bounded_length(pairs: list[tuple[int, int]], length: int) -> None:
    pairs.sort(key=lambda pair: pair[0])
    users = np.array([u for u, _ in pairs], dtype=np.int64)
    items = np.array([i for _, i in pairs], dtype=np.int64)
    for lists in (
        count_transitions(users, items, num_items=8, window=3, length=length).lists,
        count_cooccurrence(users, items, num_items=8, length=length).lists,
    ):
        sizes = np.diff(lists.indptr)
        assert len(sizes) == 8
        assert sizes.max(initial=0) <= length
        for item in range(8):
            weights = lists.weights[lists.row(item)]
            assert item not in lists.indices[lists.row(item)]
            assert len(weights) == 0 or weights.sum() == pytest.approx(1.0, abs=1e-5)


# --- one account ----------------------------------------------------------------------------------------------------

LOUD = np.concatenate([np.zeros(5000, np.int64), [1, 1, 2, 2, 3, 3]])
HEARD = np.concatenate([np.tile([0, 1], 2500), [0, 2, 0, 2, 1, 2]])
"""User 0 went to and fro between items 0 and 1, 5,000 times; three others took two items each."""


def test_an_account_counts_once_for_an_item() -> None:
    assert num_takers(LOUD, HEARD, num_items=4).tolist() == [3, 2, 3, 0]


def test_an_account_counts_once_for_a_pair_and_by_its_nearest_step() -> None:
    lists = count_transitions(LOUD, HEARD, num_items=4, window=3, length=10).lists
    assert row(lists, 0) == pytest.approx({2: 2 / 3, 1: 1 / 3})
    assert row(lists, 1) == pytest.approx({0: 1 / 2, 2: 1 / 2})
    apart = count_transitions(np.zeros(5, np.int64), np.array([0, 2, 1, 0, 1]), num_items=3, window=2, length=10).lists
    # After 0: 2 one step later, 1 two steps later and again one step later, which counts.
    assert row(apart, 0) == pytest.approx({1: 1 / 2, 2: 1 / 2})


def test_an_account_takes_no_item_away_from_those_it_goes_with() -> None:
    once = np.isin(np.arange(len(LOUD)), [0, 1]) | (LOUD > 0)
    loud = count_cooccurrence(LOUD, HEARD, num_items=4, length=10).lists
    quiet = count_cooccurrence(LOUD[once], HEARD[once], num_items=4, length=10).lists
    for ours, theirs in zip(loud, quiet, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_neighbour_s_item_weighs_by_when_it_was_taken_last() -> None:
    lists = user_item_lists(np.zeros(6, np.int64), np.array([3, 0, 1, 1, 0, 1]), num_users=1)
    assert lists.indices.tolist() == [3, 0, 1, 1, 0, 1], "the history as it was"
    np.testing.assert_allclose(lists.weights, [0.64, 0, 0, 0, 0.8, 1.0], rtol=1e-6)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), max_size=40, unique=True))
def test_where_nobody_repeats_users_are_events(pairs: list[tuple[int, int]]) -> None:
    pairs.sort(key=lambda pair: pair[0])
    users = np.array([u for u, _ in pairs], dtype=np.int64)
    items = np.array([i for _, i in pairs], dtype=np.int64)
    assert num_takers(users, items, num_items=8).tolist() == np.bincount(items, minlength=8).tolist()
    weights = user_item_lists(users, items, num_users=6).weights
    age = [sum(1 for other in users[at + 1 :] if other == user) for at, user in enumerate(users)]
    np.testing.assert_allclose(weights, [0.8**one for one in age], rtol=1e-6)


# --- weights --------------------------------------------------------------------------------------------------------


def test_an_account_counts_for_an_item_by_its_heaviest_event() -> None:
    users, items = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 0, 0, 2])
    found = num_takers(users, items, num_items=4, weights=np.array([1.0, 0.5, 0.1, 0.1, 0.0]))
    assert found.tolist() == [1.1, 0.5, 0.0, 0.0]


def test_a_transition_weighs_what_the_later_event_weighs() -> None:
    # Item 0, then 1 (viewed), then 2 (bought), then 1 again (bought); another looked at 0 and then at 2.
    users, items = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 1, 2, 1, 0, 2])
    weights = np.array([1.0, 0.1, 1.0, 1.0, 0.1, 0.1])
    counted = count_transitions(users, items, num_items=3, window=3, length=10, weights=weights)
    # After 0: 1 one step later for 0.1 and three later for 1/3; 2 two later for 1/2, and one later for 0.1.
    assert counted.totals.tolist() == pytest.approx([1 / 3 + 0.5 + 0.1, 1.0, 1.0])
    assert row(counted.lists, 0) == pytest.approx({2: 0.6 / (1 / 3 + 0.6), 1: (1 / 3) / (1 / 3 + 0.6)})


def test_a_pair_weighs_what_the_heaviest_event_after_the_other_item_weighs() -> None:
    # User 0 buys 0 and looks at 1 later; user 1 looks at 0 and buys 2 later; user 2 buys 0, looks at 2, buys 0 again.
    users, items = np.array([0, 0, 1, 1, 2, 2, 2]), np.array([0, 1, 0, 2, 0, 2, 0])
    weights = np.array([1.0, 0.1, 0.1, 1.0, 1.0, 0.1, 1.0])
    counted = count_cooccurrence(users, items, num_items=3, length=10, weights=weights)
    # Takers: 2.1 of item 0, 1.1 of item 2, and 0.1 of item 1, which counts as 1. All pairs are of two items: log2(4).
    with_1, with_2 = 0.1 / 2 / np.sqrt(2.1 * 1), (1.0 + 1.0) / 2 / np.sqrt(2.1 * 1.1)
    assert counted.totals.tolist() == pytest.approx([with_1 + with_2, with_1, with_2])
    assert row(counted.lists, 0) == pytest.approx({2: with_2 / (with_1 + with_2), 1: with_1 / (with_1 + with_2)})


def test_an_event_of_weight_0_adds_nothing_and_is_followed_as_any_other() -> None:
    users, items, weights = np.zeros(3, np.int64), np.array([0, 1, 2]), np.array([1.0, 0.0, 1.0])
    after = count_transitions(users, items, num_items=3, window=2, length=10, weights=weights)
    assert [row(after.lists, item) for item in range(3)] == [{2: 1.0}, {2: 1.0}, {}]
    assert after.totals.tolist() == [0.5, 1.0, 0.0], "item 2 stands two steps after item 0"
    together = count_cooccurrence(users, items, num_items=3, length=10, weights=weights)
    assert [set(row(together.lists, item)) for item in range(3)] == [{2}, {2}, {0, 1}]


HISTORIES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 6), st.sampled_from([0.0, 0.1, 0.4, 1.0, 3.0])), max_size=40
)


@given(HISTORIES)
def test_weights_of_1_change_nothing(events: list[tuple[int, int, float]]) -> None:
    events.sort(key=lambda event: event[0])
    users, items = (np.array([event[column] for event in events], dtype=np.int64) for column in (0, 1))
    found = [
        [
            num_takers(users, items, num_items=7, weights=weights),
            *flat(count_transitions(users, items, num_items=7, window=3, length=4, weights=weights)),
            *flat(count_cooccurrence(users, items, num_items=7, length=4, weights=weights)),
        ]
        for weights in (None, np.ones(len(events)))
    ]
    for one, other in zip(*found, strict=True):
        assert (one.dtype, one.tobytes()) == (other.dtype, other.tobytes())


@given(HISTORIES, st.integers(1, 4))
def test_pairs_are_those_that_somebody_finds_one_by_one(events: list[tuple[int, int, float]], window: int) -> None:
    events.sort(key=lambda event: event[0])
    users, items = (np.array([event[column] for event in events], dtype=np.int64) for column in (0, 1))
    weights = np.array([event[2] for event in events])
    after: dict[tuple[int, int, int], float] = {}
    together: dict[tuple[int, int, int], float] = {}
    for later, (user, item, weight) in enumerate(events):
        for earlier in range(later):
            other = events[earlier][1]
            if events[earlier][0] != user or other == item:
                continue
            for pair in ((user, item, other), (user, other, item)):
                together[pair] = max(together.get(pair, 0.0), weight)
            if later - earlier <= window:
                pair = user, other, item
                after[pair] = max(after.get(pair, 0.0), weight / (later - earlier))
    takers = np.maximum(num_takers(users, items, num_items=7, weights=weights), 1.0)
    num_items = {user: len({item for one, item, _ in events if one == user}) for user in range(4)}
    totals = np.zeros((2, 7))
    for (_, one, _), weight in after.items():
        totals[0, one] += weight
    for (user, one, other), weight in together.items():
        totals[1, one] += weight / np.log2(2 + num_items[user]) / np.sqrt(takers[one] * takers[other])
    found = (
        count_transitions(users, items, num_items=7, window=window, length=9, weights=weights),
        count_cooccurrence(users, items, num_items=7, length=9, weights=weights),
    )
    np.testing.assert_allclose([counted.totals for counted in found], totals, rtol=1e-6, atol=1e-7)


def flat(counted: CountedLists) -> list[NDArray[Any]]:
    return [*counted.lists, counted.totals]


@pytest.mark.parametrize("block_pairs", [1, 40])
@pytest.mark.parametrize("of_products", [False, True])
def test_the_number_of_blocks_changes_no_byte(block_pairs: int, of_products: bool) -> None:
    rng = np.random.default_rng(block_pairs)
    users, items = np.sort(rng.integers(0, 12, 300)), rng.integers(0, 25, 300)
    first = np.arange(25) // 2 * 2 if of_products else None
    for weights in (None, np.where(users % 3, 1.0, rng.choice([0.0, 0.1, 3.0], 300))):
        whole, parted = (
            [
                *flat(count_transitions(users, items, num_items=25, window=3, length=9, **settings)),
                *flat(count_cooccurrence(users, items, num_items=25, length=9, **settings)),
            ]
            for settings in (
                {"weights": weights, "first_variants": first},
                {"weights": weights, "first_variants": first, "block_pairs": block_pairs},
            )
        )
        for one, other in zip(whole, parted, strict=True):
            assert (one.dtype, one.tobytes()) == (other.dtype, other.tobytes())


def test_blocks_of_users_divide_nobody() -> None:
    users = np.array([0, 0, 0, 2, 3, 3, 7])
    assert [(block.start, block.stop) for block in blocks_of_users(users, 2)] == [(0, 3), (3, 6), (6, 7)]
    assert [(block.start, block.stop) for block in blocks_of_users(users[::-1], 2)] == [(0, 7)]
