"""Event order, tie shuffling and split, held against the plainest possible reading of the protocol."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isrf.method.order import Split, last_two_tie, leave_one_out, mean_one, order_events, shuffle_ties

Row = tuple[str, str, float | None, int | None]  # user_id, item_id, timestamp, position


def protocol_histories(rows: list[Row], seed: int | None) -> dict[str, list[str]]:
    """Every user's items in order, by sorting tuples and shuffling lists."""
    events: dict[str, list[tuple[float, int, str]]] = {}
    for number, (user, item, timestamp, position) in enumerate(rows):
        key = (timestamp or 0.0, number if position is None else position, item)
        events.setdefault(user, []).append(key)
    histories = {}
    for user, history in events.items():
        history.sort()
        if seed is not None:
            rng = random.Random(f"{seed}:{user}")
            runs: dict[float, list[tuple[float, int, str]]] = {}
            for event in history:
                runs.setdefault(event[0], []).append(event)
            for run in runs.values():
                rng.shuffle(run)
            history = [event for time in sorted(runs) for event in runs[time]]
        histories[user] = [event[2] for event in history]
    return histories


def our_histories(rows: list[Row], seed: int | None) -> dict[str, list[str]]:
    user_ids = sorted({row[0] for row in rows})
    item_ids = sorted({row[1] for row in rows})
    users = np.array([user_ids.index(row[0]) for row in rows], dtype=np.int64)
    items = np.array([item_ids.index(row[1]) for row in rows], dtype=np.int64)
    timestamps = None if rows[0][2] is None else np.array([row[2] for row in rows], dtype=np.float64)
    positions = None if rows[0][3] is None else np.array([row[3] for row in rows], dtype=np.int64)
    order = order_events(users, timestamps, positions=positions, tie_breaks=(items,))
    if seed is not None:
        ordered_times = None if timestamps is None else timestamps[order]
        order = order[shuffle_ties(seed, users[order], user_ids=user_ids, timestamps=ordered_times)]
    histories: dict[str, list[str]] = {}
    for row in order:
        histories.setdefault(rows[row][0], []).append(rows[row][1])
    return histories


@st.composite
def shops(draw: st.DrawFn) -> list[Row]:
    has_time = draw(st.booleans())
    has_position = draw(st.booleans()) if has_time else True
    row = st.tuples(
        st.sampled_from(["anna", "bo", "ç/#?% "]),
        st.sampled_from(["a", "b", "c", "007", "7", "é"]),
        st.integers(-2, 4).map(float) if has_time else st.none(),
        st.integers(-1, 5) if has_position else st.none(),
    )
    return draw(st.lists(row, min_size=1, max_size=30))


@given(shops(), st.sampled_from([None, 0, 1, 12345]))
def test_histories_are_the_protocols_for_any_mix_of_timestamp_and_position(rows: list[Row], seed: int | None) -> None:
    assert our_histories(rows, seed) == protocol_histories(rows, seed)


def test_with_positions_the_order_of_rows_does_not_matter() -> None:
    rows: list[Row] = [("u", item, 1.0, position) for item, position in zip("abcdef", [0, 1, 1, 2, 2, 3], strict=True)]
    assert our_histories(rows[::-1], None) == our_histories(rows, None)


def test_the_generator_is_carried_from_run_to_run_of_a_user() -> None:
    """Two equal runs of six would be shuffled alike by a fresh generator each."""
    rows: list[Row] = [("u", f"{time}{item}", float(time), None) for time in (1, 2) for item in "abcdef"]
    history = our_histories(rows, 1)["u"]
    assert [item[1] for item in history[:6]] != [item[1] for item in history[6:]]
    assert history == protocol_histories(rows, 1)["u"]


def test_last_is_test_and_the_one_before_it_validation() -> None:
    users = np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3])
    train, valid, test = Split.TRAIN, Split.VALID, Split.TEST
    assert leave_one_out(users).tolist() == [train, valid, test, train, train, train, train, train, valid, test]


def test_no_events_have_no_order_and_no_split() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert order_events(none, none.astype(np.float64)).tolist() == []
    assert shuffle_ties(1, none, user_ids=[], timestamps=None).tolist() == []
    assert leave_one_out(none).tolist() == []


@pytest.mark.parametrize(("times", "expected"), [([1, 2, 2, 5, 5], 1), ([1, 2, 3, 5, 5], 0), ([2, 2, 2, 1, 2], 1)])
def test_ties_are_counted_among_users_with_a_test_event(times: list[int], expected: int) -> None:
    assert last_two_tie(np.array([0, 0, 0, 1, 1]), np.array(times)) == expected


def test_weights_of_samples_have_a_mean_of_1() -> None:
    assert mean_one(np.array([0.1, 0.1, 0.4])).tolist() == pytest.approx([0.5, 0.5, 2.0])
    for equal in (0.1, 1.0, 1000.0):
        assert mean_one(np.full(7, equal)).tolist() == [1.0] * 7, "exactly"
    assert mean_one(np.zeros(0)).tolist() == []
