"""Events that are counted together give exactly what they give one by one."""

from collections.abc import Sequence
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isrf.contract.event_log import NUM_BUCKETS
from isrf.contract.manifest import LiveEvidenceSpec
from isrf.method.evidence import SparseLists
from isrf.method.recommend.live import daily_limit, event_chains, live_counts, live_evidence, recent_popularity
from isrf.method.recommend.live.live_counts import BYTES_PER_EVENT
from isrf.method.recommend.live.live_events import LiveBatch, LiveEvent, whole_weight
from isrf.method.recommend.live.live_evidence import LiveEvidence
from isrf.method.recommend.live.live_lists import BaseCounts
from isrf.method.recommend.live.recent_popularity import RecentPopularity

DAY = 86_400.0
NUM_ITEMS = 12
ITEMS = np.arange(2 * NUM_ITEMS)
ONES = np.ones(NUM_ITEMS, np.float32)


def evidence(max_events: int) -> LiveEvidence:
    """On a release of `NUM_ITEMS` items; beside each but the first two is the one two rows before it."""
    lists = SparseLists(np.array([0, 0, *range(NUM_ITEMS - 1)]), np.arange(NUM_ITEMS - 2, dtype=np.int32), ONES[2:])
    base = BaseCounts(lists, ONES * 3, ONES * 4)
    shares = np.array([1 / (1 + item) for item in range(NUM_ITEMS)])
    popularity, newcomers = (RecentPopularity(shares, reference_s=0.0, half_life_s=DAY / 3) for _ in range(2))
    return LiveEvidence(
        LiveEvidenceSpec(reference_s=0.0, half_life_s=DAY, window=3, popularity_half_life_s=DAY / 3),
        transition=base,
        cooccurrence=base,
        popularity=popularity,
        newcomers=newcomers,
        memory_bytes=max_events * BYTES_PER_EVENT,
    )


def state(live: LiveEvidence) -> list[object]:
    """All that it says."""
    found: list[object] = [len(live.counts), live.counts.takers(ITEMS).tolist()]
    for item in ITEMS.tolist():
        found += [live.counts.version(item), *(column.tolist() for column in live.counts.row(item))]
        found += [live.counts.people(item, other, channel="cooccurrence") for other in (0, 1)]
        found += [entries.tolist() for lists in (live.transition, live.cooccurrence) for entries in lists.entries(item)]
    for popularity in (live.popularity, live.newcomers):
        found += [popularity.weights(ITEMS).tolist(), popularity.shares(ITEMS).tolist()]
        found += [column.tolist() for column in popularity.most_popular()]
        found += [popularity.rank(item) for item in ITEMS.tolist()]
    return found


EVENTS = st.lists(
    st.builds(
        lambda item, followed, moment, user, identity, weight: LiveEvent(
            item, [one for one in followed if one != item], moment, user, identity, whole_weight(weight)
        ),
        st.integers(0, 2 * NUM_ITEMS - 1),
        st.lists(st.integers(0, 2 * NUM_ITEMS - 1), unique=True, max_size=8),
        st.one_of(st.floats(0, 6 * DAY), st.sampled_from([0.0, DAY, 30 * DAY])),
        st.integers(0, 5) | st.integers(0, 2**32 - 1),
        st.integers(-(2**63), 2**63 - 1),
        st.sampled_from([0.0, 0.001, 0.1, 1.0, 1.0, 1.0, 2.5, 1000.0]),
    ),
    max_size=60,
)


@given(EVENTS, st.lists(st.integers(1, 25), min_size=1), st.sampled_from([1, 7, 40, 1000]), st.data())
@settings(deadline=None, max_examples=40)
def test_batches_count_as_single_events(
    events: list[LiveEvent], sizes: list[int], max_events: int, data: st.DataObject
) -> None:
    with (
        patch.object(live_evidence, "WORTH_A_BATCH", 1),
        patch.object(live_evidence, "PART", 9),
        patch.object(daily_limit, "ITEMS_A_DAY", 3),
        patch.object(recent_popularity, "NUM_POPULAR", 4),
        patch.object(live_counts, "ROW_EVENTS", 11),
        patch.object(live_counts, "ROWS_KEPT", 3),
        patch.object(event_chains, "LONG", 2),
        patch.object(event_chains, "REMEMBERED", 2),
    ):
        one_by_one, together = evidence(max_events), evidence(max_events)
        rest, turn = list(events), 0
        while rest:
            size = sizes[turn % len(sizes)]
            batch, rest, turn = rest[:size], rest[size:], turn + 1
            counted = [one_by_one.add(event) for event in batch]
            assert together.add_all(LiveBatch.of(batch)).tolist() == counted
            action = data.draw(st.sampled_from(["read", "nothing", "take back", "take out"]))
            for live in (one_by_one, together):
                if action == "take back":
                    live.take_back(batch[0].item, batch[0].user_hash, batch[0].timestamp)
                if action == "take out":
                    live.take_out_bucket(batch[-1].user_hash % NUM_BUCKETS)
            if action == "read":
                assert state(together) == state(one_by_one)
        assert state(together) == state(one_by_one)


@given(EVENTS, st.lists(st.integers(0, 2 * NUM_ITEMS - 1), min_size=1, unique=True))
@settings(deadline=None, max_examples=40)
def test_rows_that_are_read_together_are_those_read_alone(events: list[LiveEvent], rows: list[int]) -> None:
    alone, together = evidence(1000), evidence(1000)
    for live in (alone, together):
        live.add_all(LiveBatch.of(events))
    for lists, its in ((alone.transition, together.transition), (alone.cooccurrence, together.cooccurrence)):
        expected = [lists.entries(row) for row in rows]
        entries, lengths = its.gather(np.array(rows))
        assert lengths.tolist() == [len(one.indices) for one in expected]
        np.testing.assert_array_equal(entries.indices, np.concatenate([one.indices for one in expected]))
        np.testing.assert_array_equal(entries.weights, np.concatenate([one.weights for one in expected]))


@given(EVENTS)
@settings(deadline=None)
def test_a_batch_has_the_events_that_it_was_made_of(events: Sequence[LiveEvent]) -> None:
    batch = LiveBatch.of(events)
    assert batch.num_events == len(events)
    assert [event._replace(identity=event.identity % 2**64) for event in events] == list(batch.events())


def test_a_removed_item_leaves_another_version_for_each_item_beside_it() -> None:
    live = evidence(100)
    live.add(LiveEvent(9, [5, 1], DAY, 7, 1234))
    before = live.counts.version(1)
    live.take_back(5, 7, 0.0)
    assert live.counts.version(5) == 0
    assert live.counts.version(1) == live.counts.version(9) not in (0, before)
    assert live.transition.entries(1).indices.tolist() == [9]
    live.take_out_bucket(7)
    assert [live.counts.version(item) for item in (1, 5, 9)] == [0, 0, 0]


@pytest.mark.parametrize("size", [3, 5000])
def test_a_long_list_of_events_is_followed_to_its_bound(size: int) -> None:
    live = evidence(size)
    events = [LiveEvent(2, [3], 0.0, user, user) for user in range(4000)]
    for start in range(0, 4000, 1500):
        live.add_all(LiveBatch.of(events[start : start + 1500]))
        assert live.counts.row(3).transition_counts.tolist() == [min(size, start + 1500, 2000)]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("order", ["vb", "bv", "vvbvb"])
def test_a_user_counts_for_an_item_by_the_heaviest_event_of_the_day(order: str, together: bool) -> None:
    hours, weights, item = {"v": 1, "b": 2}, {"v": 0.1, "b": 1.0}, np.array([9])
    events = {
        kind: LiveEvent(9, [1], hour * 3600.0, 7, hour, whole_weight(weights[kind])) for kind, hour in hours.items()
    }
    buyer, live, nobody = evidence(100), evidence(100), evidence(100)
    buyer.add(events["b"])
    stream = [events[kind] for kind in order]
    if together:
        live.add_all(LiveBatch.of(stream * 10))
    else:
        assert [live.add(one) for one in stream].count(True) == (1 if order.startswith("b") else 2)
    assert live.counts.takers(item) == pytest.approx(buyer.counts.takers(item), rel=0.01)
    assert live.popularity.weights(item) == pytest.approx(buyer.popularity.weights(item), rel=0.02)
    live.take_back(9, 7, DAY)
    assert live.counts.takers(item).tolist() == [0.0]
    assert live.popularity.weights(item) == pytest.approx(nobody.popularity.weights(item))


def test_an_event_of_weight_0_counts_nothing_and_uses_up_no_limit() -> None:
    live = evidence(100)
    with patch.object(daily_limit, "ITEMS_A_DAY", 1):
        assert not live.add(LiveEvent(9, [1], 0.0, 7, 1, 0))
        assert not live.add_all(LiveBatch.of([LiveEvent(8, [1], 0.0, 7, 1, 0)] * 20)).any()
        assert len(live.counts) == 0
        assert live.add(LiveEvent(5, [1], 0.0, 7, 1))
        assert not live.add(LiveEvent(6, [1], 0.0, 7, 1)), "the limit of items"
        assert live.add(LiveEvent(5, [1], 0.0, 7, 1, whole_weight(2))), "an item that counts already"
    assert live.counts.takers(np.array([5])).tolist() == [2.0]


def test_light_events_do_not_make_a_trend() -> None:
    live = evidence(1000)
    for user in range(40):
        live.add(LiveEvent(3, [], 9.5 * DAY, user, user, whole_weight(0.01)))
    for user in range(6):
        live.add(LiveEvent(4, [], 9.5 * DAY, user, user))
    assert live.trending(10 * DAY, window_s=DAY, limit=5) == [(4, 3.0), (3, pytest.approx(3.4 / 3, rel=1e-4))]
    assert live.trending(11 * DAY, window_s=DAY, limit=5) == []
