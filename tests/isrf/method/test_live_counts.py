"""Live counts say what accepted events say, counted by hand."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isrf.contract.event_log import NUM_BUCKETS
from isrf.method.evidence import SparseLists
from isrf.method.pair_counts import count_cooccurrence, count_transitions
from isrf.method.recommend.live.live_counts import ROW_EVENTS, LiveCounts, LiveRow
from isrf.method.recommend.live.live_events import UNIT_WEIGHT, LiveEvent, whole_weight
from isrf.method.recommend.live.live_lists import BaseCounts, LiveLists
from isrf.method.recommend.live.recent_popularity import RecentPopularity

DAY = 86_400.0


def event(item: int, followed: Sequence[int], timestamp: float, user_hash: int) -> LiveEvent:
    return LiveEvent(item, followed, timestamp, user_hash, hash((item, timestamp, user_hash)))


def counts(*events: LiveEvent, max_events: int = 100, half_life_s: float = DAY, window: int = 3) -> LiveCounts:
    live = LiveCounts(reference_s=0.0, half_life_s=half_life_s, window=window, max_events=max_events)
    for one in events:
        live.add(one)
    return live


def transitions(row: LiveRow) -> dict[int, float]:
    return dict(zip(row.transition.tolist(), row.transition_counts.tolist(), strict=True))


def together(row: LiveRow) -> dict[int, float]:
    return dict(zip(row.together.tolist(), row.together_counts.tolist(), strict=True))


def test_nearer_items_are_followed_more() -> None:
    live = counts(event(9, (1, 2), 0.0, 7))
    assert transitions(live.row(1)) == {9: 1.0}
    assert transitions(live.row(2)) == {9: 0.5}
    assert transitions(live.row(9)) == {}


def test_a_pair_counts_for_both_items() -> None:
    live = counts(event(9, (1, 2), 0.0, 7))
    weight = pytest.approx(1 / np.log2(2 + 3), abs=1 / 256)
    assert together(live.row(1)) == {9: weight}
    assert together(live.row(9)) == {1: weight, 2: weight}


def test_an_event_of_a_half_life_later_weighs_twice() -> None:
    live = counts(event(8, (1,), 0.0, 7), event(9, (1,), DAY, 8))
    assert transitions(live.row(1)) == {8: 1.0, 9: 2.0}


def test_items_beyond_the_window_are_no_transition() -> None:
    live = counts(event(9, (1, 2, 3), 0.0, 7), window=2)
    assert transitions(live.row(3)) == {}
    assert 9 in together(live.row(3))


def test_the_oldest_event_falls_out_of_a_full_ring() -> None:
    live = counts(*(event(item, (1,), 0.0, item) for item in (5, 6, 7)), max_events=2)
    assert transitions(live.row(1)) == {6: 1.0, 7: 1.0}
    assert live.row(5).together.tolist() == []
    assert live.takers(np.array([5, 6])).tolist() == [0.0, 1.0]


def test_a_bucket_is_taken_out_alone() -> None:
    live = counts(event(8, (1,), 0.0, 3), event(9, (1,), 0.0, 3 + NUM_BUCKETS), event(7, (1,), 0.0, 4))
    live.row(1)
    live.take_out_bucket(3)
    assert transitions(live.row(1)) == {7: 1.0}
    assert live.takers(np.array([8])).tolist() == [0.0]


def test_people_are_counted_once_per_pair() -> None:
    events = [event(9, (1,), 0.0, 7), event(9, (1,), DAY, 7), event(1, (9,), 0.0, 8), event(9, (2, 3, 4, 1), 0.0, 6)]
    live = counts(*events, window=3)
    assert live.people(1, 9, channel="cooccurrence") == 3
    assert live.people(1, 9, channel="transition") == 1, "the second took them in the other order, the third later"
    assert live.people(9, 1, channel="transition") == 1
    assert live.people(1, 9, channel="cooccurrence", apart_from=7) == 2
    assert live.people(1, 9, channel="transition", apart_from=7) == 0


EVENTS = st.lists(
    st.builds(
        lambda item, followed, day, user: event(item, [one for one in followed if one != item], day * 7000.0, user),
        st.integers(0, 9),
        st.lists(st.integers(0, 9), unique=True, max_size=8),
        st.integers(0, 400),
        st.integers(0, 99),
    ),
    max_size=40,
)


@given(EVENTS, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_counts_do_not_depend_on_the_order_of_events(events: list[LiveEvent], random: object) -> None:
    shuffled = list(events)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = counts(*events), counts(*shuffled)
    for item in range(10):
        for mine, its in zip(one.row(item), other.row(item), strict=True):
            np.testing.assert_array_equal(mine, its)
    first, second = (RecentPopularity(np.ones(10), reference_s=0.0, half_life_s=DAY) for _ in range(2))
    for one_event in events:
        first.add(one_event.item, one_event.timestamp)
    for one_event in shuffled:
        second.add(one_event.item, one_event.timestamp)
    np.testing.assert_array_equal(first.shares(np.arange(10)), second.shares(np.arange(10)))
    assert first.most_popular().items.tolist() == second.most_popular().items.tolist()


@given(EVENTS)
@settings(deadline=None)
def test_a_ring_holds_what_a_ring_of_its_last_events_holds(events: list[LiveEvent]) -> None:
    small, last = counts(*events, max_events=7), counts(*events[-7:], max_events=100)
    for item in range(10):
        for mine, its in zip(small.row(item), last.row(item), strict=True):
            np.testing.assert_array_equal(mine, its)


def base_of(lists: SparseLists, totals: list[float], degrees: list[float]) -> BaseCounts:
    return BaseCounts(lists, np.array(totals, np.float32), np.array(degrees, np.float32))


def row_of(lists: LiveLists, row: int) -> dict[int, float]:
    entries = lists.entries(row)
    return dict(zip(entries.indices.tolist(), entries.weights.tolist(), strict=True))


def test_base_and_live_transitions_are_one_estimate() -> None:
    # Base: after item 0 came item 1 three times of four, item 2 once.
    base = SparseLists(np.array([0, 2, 2, 2]), np.array([1, 2], np.int32), np.array([0.75, 0.25], np.float32))
    live = counts(event(2, (0,), 0.0, 7), event(3, (0,), 0.0, 8))
    lists = LiveLists("transition", base_of(base, [4.0, 0.0, 0.0], [4, 4, 4]), live)
    assert row_of(lists, 0) == pytest.approx({1: 3 / 6, 2: 2 / 6, 3: 1 / 6})
    assert row_of(lists, 3) == {}


def test_without_live_events_the_lists_are_the_release_s() -> None:
    users, items = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 0, 2])
    for base in (
        count_transitions(users, items, num_items=3, window=2, length=10).lists,
        count_cooccurrence(users, items, num_items=3, length=10).lists,
    ):
        lists = LiveLists("transition", base_of(base, [1.0] * 3, [1.0] * 3), counts())
        entries, lengths = lists.gather(np.array([0, 2, 1]))
        same, its_lengths = base.gather(np.array([0, 2, 1]))
        np.testing.assert_array_equal(entries.indices, same.indices)
        np.testing.assert_array_equal(entries.weights, same.weights)
        np.testing.assert_array_equal(lengths, its_lengths)


def test_live_pairs_are_normalised_by_takers_as_the_release_s_are() -> None:
    # One user took 0 and 1 before the release, another 0 and 2 after it: as if both were counted together.
    before = count_cooccurrence(np.array([0, 0]), np.array([0, 1]), num_items=3, length=10).lists
    total = (1 / np.log2(4)) / np.sqrt(1 * 1)
    live = counts(event(0, (), 0.0, 7), event(2, (0,), 0.0, 7))
    lists = LiveLists("cooccurrence", base_of(before, [total, total, 0.0], [1, 1, 0]), live)
    both = count_cooccurrence(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 2]), num_items=3, length=10).lists
    expected = both.entries(0)
    assert row_of(lists, 0) == pytest.approx(
        dict(zip(expected.indices.tolist(), expected.weights.tolist(), strict=True)), abs=1e-3
    )


def test_an_event_counts_by_its_weight() -> None:
    live = counts(weighing(0.1, event(9, (1, 2), 0.0, 7)), event(8, (1,), 0.0, 8))
    assert transitions(live.row(1)) == {9: pytest.approx(0.1, abs=1e-6), 8: 1.0}
    assert together(live.row(1))[9] == pytest.approx(0.1 / np.log2(2 + 3), abs=1e-3)
    assert live.takers(np.array([9, 8, 1])).tolist() == [pytest.approx(0.1, abs=1e-6), 1.0, 0.0]
    assert live.take_back(9, 7, 0.0) == [(9, 0.0, 2, whole_weight(0.1))]
    assert live.takers(np.array([9])).tolist() == [0.0]


def test_weights_at_their_bounds_are_counted_exactly() -> None:
    heavy = [weighing(1000, event(9, (1,), 900 * DAY, user)) for user in range(ROW_EVENTS)]
    live = counts(*heavy, max_events=ROW_EVENTS)
    assert transitions(live.row(1)) == {9: 1000.0 * 2**5 * ROW_EVENTS}
    assert live.takers(np.array([9])).tolist() == [1000.0 * 2**5 * ROW_EVENTS]
    light = counts(weighing(0.001, event(9, (1,), -900 * DAY, 7)))
    assert light.takers(np.array([9])).tolist() == [2.0**-20], "never nothing, which would be taken out"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.sampled_from([0.0, 0.1, 1.0, 3.0])), max_size=14))
@settings(deadline=None, max_examples=60)
def test_live_counts_are_what_a_release_would_have_counted(events: list[tuple[int, int, float]]) -> None:
    """Of histories in which nobody takes an item twice, as a user's pair counts once there, and once a day here."""
    seen: dict[tuple[int, int], float] = {}
    for user, item, weight in events:
        seen.setdefault((user, item), weight)
    rows = sorted(((user, item, weight) for (user, item), weight in seen.items()), key=lambda one: one[0])
    users, items = (np.array([one[column] for one in rows], np.int64) for column in (0, 1))
    weights = np.array([one[2] for one in rows])
    counted = count_transitions(users, items, num_items=5, window=3, length=10, weights=weights)
    live = counts()
    histories: dict[int, list[int]] = {}
    for user, item, weight in rows:
        history = histories.setdefault(user, [])
        if weight > 0:
            live.add(weighing(weight, event(item, history[::-1], 0.0, user)))
        history.append(item)
    for item in range(5):
        expected = {
            column: weight * counted.totals[item]
            for column, weight in zip(*(part.tolist() for part in counted.lists.entries(item)), strict=True)
        }
        assert transitions(live.row(item)) == pytest.approx(expected, rel=1e-4)


def weighing(weight: float, one: LiveEvent) -> LiveEvent:
    return one._replace(weight=whole_weight(weight))


def test_recent_events_make_an_item_popular() -> None:
    popularity = RecentPopularity(np.array([4.0, 1.0]), reference_s=0.0, half_life_s=DAY)
    for _ in range(20):  # more than a shop as busy as before has in three half-lives
        popularity.add(2, 3 * DAY)
    assert popularity.shares(np.array([0, 1, 2])) == pytest.approx([4 / 165, 1 / 165, 160 / 165])
    assert popularity.most_popular().items.tolist() == [0, 1, 2]


def test_ranks_are_those_of_the_order_after_a_pause_too() -> None:
    popularity = RecentPopularity(np.array([5.0, 4.0, 3.0, 2.0, 1.0]), reference_s=0.0, half_life_s=DAY)
    for timestamp in (0.0, 20 * DAY):
        popularity.add(4, timestamp)
        by_weight = np.argsort(-popularity.weights(np.arange(5)), kind="stable").tolist()
        assert [popularity.rank(item) for item in by_weight] == [0, 1, 2, 3, 4]
    assert by_weight == [0, 1, 2, 4, 3]


def test_one_event_after_a_long_pause_decides_nothing() -> None:
    base = np.arange(200.0)
    popularity = RecentPopularity(base, reference_s=0.0, half_life_s=DAY)
    popularity.add(0, 500 * DAY)
    assert popularity.shares(np.array([0]))[0] == pytest.approx(1 / (1 + base.sum()), rel=1e-3)
    assert 0 not in popularity.most_popular().items
    for day in range(60):
        for _ in range(5_000):
            popularity.add(0, (500 + day) * DAY)
    assert popularity.shares(np.array([0]))[0] > 0.9


def test_a_returned_item_is_taken_back_from_counts_and_paths() -> None:
    live = counts(event(5, (), 0.0, 7), event(9, (5, 1), DAY, 7), event(9, (5,), DAY, 8))
    assert live.take_back(5, 7, DAY) == [(5, 0.0, 0, UNIT_WEIGHT)]
    assert transitions(live.row(5)) == {9: 2.0}
    assert live.takers(np.array([5])).tolist() == [0.0]
    assert live.people(5, 9, channel="cooccurrence") == 1


@pytest.mark.parametrize("later", [ROW_EVENTS - 3, ROW_EVENTS - 2, ROW_EVENTS + 100])
def test_a_returned_item_is_taken_back_however_many_took_it_since(later: int) -> None:
    others = [event(5, (3,), 2 * DAY, 100 + user) for user in range(later)]
    live = counts(event(5, (), 0.0, 7), event(9, (5, 1), DAY, 7), *others, max_events=ROW_EVENTS + 500)
    assert live.take_back(5, 7, DAY) == [(5, 0.0, 0, UNIT_WEIGHT)]
    assert live.takers(np.array([5])).tolist() == [4.0 * later]
    assert live.people(9, 5, channel="cooccurrence") == 0
    assert together(live.row(9)) == {1: pytest.approx(2 / np.log2(2 + 2), abs=2 / 256)}


def test_equal_events_beside_an_item_make_equal_versions() -> None:
    first, second = counts(event(9, (1,), 0.0, 7), event(8, (1,), 5.0, 8)), counts(event(8, (1,), 5.0, 8))
    assert first.version(1) != second.version(1)
    second.add(event(9, (1,), 0.0, 7))
    assert (first.version(1), first.version(8)) == (second.version(1), second.version(8))
    before = second.version(8)
    second.take_out_bucket(7)
    assert (second.version(9), second.version(8)) == (0, before)
