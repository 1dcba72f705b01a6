"""A user is the release's history ⊕ what came since, each event once."""

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isrf.method.interest import Neighbours
from isrf.method.recommend.request import UserInterests
from service.inference import group_cache
from service.state.merge import Purchases, ReleasePast, UserState, learned, merge, purchases
from service.state.records import NOBODY, HistoryEntry, ItemMark, Learned, UserRecord


def past(*history: HistoryEntry, disliked: Sequence[str] = ()) -> ReleasePast:
    """All bought."""
    return ReleasePast(history, [True] * len(history), disliked)


RELEASE = past(HistoryEntry("a", 10.0), HistoryEntry("b", 20.0), HistoryEntry("a", 30.0))


def user(*history: HistoryEntry, erased: bool = False, **marks: ItemMark) -> UserRecord:
    return UserRecord("v", history, marks, erased, None)


def items(state: UserState) -> list[str]:
    return [entry.item_id for entry in state.history]


def test_without_news_the_release_stands() -> None:
    state = merge(user(), RELEASE, 30.0)
    assert list(state.history) == list(RELEASE.history)
    assert (set(state.bought), set(state.disliked)) == ({"a", "b"}, set())


def test_news_stand_where_their_time_is() -> None:
    news = (HistoryEntry("x", 5.0), HistoryEntry("y", 25.0), HistoryEntry("z", 40.0))
    assert items(merge(user(*news), RELEASE, 30.0)) == ["x", "a", "b", "y", "a", "z"]


def test_what_the_release_has_learned_is_not_read_twice() -> None:
    state = merge(user(HistoryEntry("a", 30.0), HistoryEntry("b", 31.0)), RELEASE, 30.0)
    assert items(state) == ["a", "b", "a", "b"]


def test_a_late_event_that_the_release_has_not_read_stays_though_it_is_old() -> None:
    assert items(merge(user(HistoryEntry("b", 15.0)), RELEASE, 30.0)) == ["a", "b", "b", "a"]


def test_an_event_dated_by_the_service_counts_as_learned_if_the_release_holds_the_item() -> None:
    old, new = HistoryEntry("b", 29.5, assigned=True), HistoryEntry("b", 31.0, assigned=True)
    assert items(merge(user(old), RELEASE, 30.0)) == ["a", "b", "a"]
    assert items(merge(user(new), RELEASE, 30.0)) == ["a", "b", "a", "b"]


def test_a_release_without_times_is_older_than_the_news() -> None:
    untimed = past(HistoryEntry("a", None), HistoryEntry("b", None))
    assert items(merge(user(HistoryEntry("x", 5.0)), untimed, 100.0)) == ["a", "b", "x"]
    assert items(merge(user(HistoryEntry("a", 5.0)), untimed, 100.0)) == ["a", "b"], "learned: made before the release"
    assert items(merge(user(HistoryEntry("a", 500.0)), untimed, 100.0)) == ["a", "b", "a"]


def test_remove_takes_back_what_the_release_holds_until_then() -> None:
    state = merge(user(a=ItemMark(removed=10.0)), RELEASE, 30.0)
    assert items(state) == ["b", "a"]
    assert state.bought == {"a", "b"}
    state = merge(user(a=ItemMark(removed=30.0)), RELEASE, 30.0)
    assert items(state) == ["b"]
    assert state.bought == {"b"}


def test_remove_takes_back_what_has_no_time() -> None:
    state = merge(user(a=ItemMark(removed=1.0)), past(HistoryEntry("a", None), HistoryEntry("b", None)), 0.0)
    assert (items(state), set(state.bought)) == (["b"], {"b"})


def test_bought_again_after_a_remove_is_bought() -> None:
    state = merge(user(HistoryEntry("a", 50.0), a=ItemMark(bought=50.0, removed=40.0)), RELEASE, 30.0)
    assert (items(state), set(state.bought)) == (["b", "a"], {"a", "b"})


def test_a_dislike_excludes_and_is_no_history_and_can_be_taken_back() -> None:
    state = merge(user(x=ItemMark(disliked=5.0)), RELEASE, 30.0)
    assert (set(state.disliked), items(state)) == ({"x"}, ["a", "b", "a"])
    assert merge(user(x=ItemMark(disliked=5.0, removed=5.0)), RELEASE, 30.0).disliked == set()


def test_what_was_only_seen_is_history_and_excludes_nothing() -> None:
    seen = ReleasePast([HistoryEntry("a", 1.0), HistoryEntry("b", 2.0), HistoryEntry("a", 3.0)], [False, True, False])
    state = merge(user(), seen, 3.0)
    assert (items(state), set(state.bought)) == (["a", "b", "a"], {"b"})
    assert merge(user(a=ItemMark(bought=9.0)), seen, 3.0).bought == {"a", "b"}
    assert items(merge(user(HistoryEntry("a", 2.5, assigned=True)), seen, 3.0)) == ["a", "b", "a"], (
        "learned, though not bought"
    )


def test_a_dislike_of_the_release_stands_until_it_is_taken_back() -> None:
    known = past(HistoryEntry("a", 1.0), disliked=["x", "y"])
    assert merge(user(), known, 1.0).disliked == {"x", "y"}
    assert merge(user(x=ItemMark(removed=5.0)), known, 1.0).disliked == {"y"}
    assert merge(user(x=ItemMark(disliked=6.0, removed=5.0)), known, 1.0).disliked == {"x", "y"}
    assert merge(user(erased=True), known, 1.0).disliked == set()


def test_an_erased_user_has_no_release() -> None:
    state = merge(user(HistoryEntry("x", 1.0), erased=True, x=ItemMark(bought=1.0)), RELEASE, 30.0)
    assert (items(state), set(state.bought)) == (["x"], {"x"})


AHEAD = 4_900_000_000.0
DAY = 86_400.0
NOW = 1_750_000_000.0


@pytest.mark.parametrize("ahead", [9 * 3600, 2 * DAY, AHEAD - NOW])
def test_a_click_after_the_reading_is_newer_than_a_row_dated_ahead(ahead: float) -> None:
    wrong = past(HistoryEntry("a", NOW - 5), HistoryEntry("b", NOW + ahead))
    state = merge(user(HistoryEntry("x", NOW + 1, assigned=True), HistoryEntry("y", NOW + 2)), wrong, NOW)
    assert items(state) == ["a", "b", "x", "y"]


@pytest.mark.parametrize("ahead", [9 * 3600, 2 * DAY, AHEAD - NOW])
def test_a_known_item_seen_again_stays_beside_a_row_dated_ahead(ahead: float) -> None:
    wrong = past(HistoryEntry("a", NOW - 5), HistoryEntry("b", NOW + ahead))
    seen = [
        HistoryEntry("a", NOW + 1, assigned=True),
        HistoryEntry("b", NOW + 2, assigned=True),
        HistoryEntry("a", NOW + 3),
    ]
    record = user(*seen)
    assert list(merge(record, wrong, NOW).history)[-3:] == seen
    assert learned(record, wrong, NOW) == Learned([], [])


@pytest.mark.parametrize("ahead", [9 * 3600, 2 * DAY, AHEAD - NOW])
def test_a_remove_takes_back_a_row_dated_ahead(ahead: float) -> None:
    wrong = past(HistoryEntry("a", NOW - 5), HistoryEntry("b", NOW + ahead))
    record = user(b=ItemMark(removed=NOW + 1))
    state = merge(record, wrong, NOW)
    assert (items(state), set(state.bought)) == (["a"], {"a"})
    assert learned(record, wrong, NOW) == Learned([], []), "without the mark the row would be back"


def test_a_remove_holds_under_later_releases_with_the_same_impossible_row() -> None:
    wrong = past(HistoryEntry("b", AHEAD))
    for learned_until in (NOW, NOW + 30 * DAY, NOW + 300 * DAY):
        record = user(b=ItemMark(removed=NOW + 1))
        assert merge(record, wrong, learned_until).bought == set()
        assert learned(record, wrong, learned_until) == Learned([], [])


def test_bought_after_a_remove_and_before_the_reading_stands_by_its_own_time() -> None:
    assert merge(user(b=ItemMark(removed=NOW - 9)), past(HistoryEntry("b", NOW - 5)), NOW).bought == {"b"}
    assert merge(user(b=ItemMark(removed=NOW - 9)), past(HistoryEntry("b", NOW + 5)), NOW).bought == {"b"}, (
        "clocks differ"
    )


def test_what_the_release_holds_of_long_before_is_not_the_event_that_was_posted() -> None:
    release = past(HistoryEntry("a", NOW - 9 * DAY))
    seen = HistoryEntry("a", NOW - 60, assigned=True)
    assert merge(user(seen), release, NOW).history[-1] == seen, "a view between the export and its reading"
    assert learned(user(seen), release, NOW) == Learned([], [])
    assert items(merge(user(seen), past(HistoryEntry("a", NOW - 63)), NOW)) == ["a"]


@given(st.data())
def test_however_much_the_next_release_has_learned_the_history_is_the_same(data: st.DataObject) -> None:
    """The property that switching releases rests on: release ⊕ state is the same before and after."""
    moments = data.draw(st.lists(st.floats(0, 1e9), min_size=1, max_size=12, unique=True))
    events = [HistoryEntry(random.Random(t).choice("abc"), t) for t in sorted(moments)]
    since = data.draw(st.integers(0, len(events)))
    known = data.draw(st.integers(since, len(events)))
    record = user(*events[since:])
    before = merge(record, past(*events[:since]), events[since - 1].timestamp or 0.0)
    after = merge(record, past(*events[:known]), events[known - 1].timestamp or 0.0)
    assert list(before.history) == list(after.history) == events
    assert before.bought <= after.bought


MOMENT = {"version": "v", "release_id": "r", "snapshot": "c"}


def interests(num: int, seed: int = 0) -> UserInterests:
    rng = np.random.default_rng(seed)
    users = np.full((1, 7), -1, dtype=np.int64)
    users[0, :num] = rng.permutation(7)[:num] * (4_000 if seed == 0 else 700_000)
    similarity = np.where(users >= 0, rng.random((1, 7)), 0).astype(np.float32)
    vectors = (rng.random((1, 5)).astype(np.float32), rng.random((1, 3)).astype(np.float32))
    return group_cache.rounded(
        UserInterests(vectors[0], Neighbours(users, similarity, np.array([num < 3])), vectors[1])
    )


def test_cached_interests_come_back_bit_by_bit() -> None:
    for num, seed in itertools.product(range(8), range(2)):
        kept = interests(num, seed)
        read = group_cache.decode(group_cache.encode(kept, **MOMENT), **MOMENT)
        assert read is not None
        for ours, theirs in zip(
            itertools.chain([kept.explicit, kept.group], kept.neighbours),
            itertools.chain([read.explicit, read.group], read.neighbours),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs, strict=True)


@pytest.mark.parametrize("other", ["version", "release_id", "snapshot"])
def test_cached_interests_of_another_moment_are_none(other: str) -> None:
    payload = group_cache.encode(interests(3), **MOMENT)
    assert group_cache.decode(payload, **(MOMENT | {other: "other"})) is None
    assert group_cache.decode(None, **MOMENT) is None
    for damaged in (payload[:-2], payload[:20], payload[:-1] + b"\x00\x01", b"", b"words"):
        assert group_cache.decode(damaged, **MOMENT) is None


def test_purchases_are_counted_with_their_latest_moment() -> None:
    past = ReleasePast(
        [HistoryEntry("a", 100.0), HistoryEntry("a", 300.0), HistoryEntry("b", 200.0), HistoryEntry("c", None)],
        [True, True, False, True],
    )
    day = 86_400.0
    marks = {"a": ItemMark(bought=300.0 + 2 * day), "b": ItemMark(bought=50.0, removed=60.0)}
    record = NOBODY._replace(marks=marks)
    assert purchases(record, past, 1000.0) == {"a": Purchases(3, 300.0 + 2 * day)}
    same = NOBODY._replace(marks={"a": ItemMark(bought=301.0)})
    assert purchases(same, past, 1000.0) == {"a": Purchases(2, 301.0)}, "the same purchase by another clock"
    assert purchases(record._replace(erased=True), past, 1000.0) == {"a": Purchases(1, 300.0 + 2 * day)}
