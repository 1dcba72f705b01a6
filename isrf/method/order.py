"""The order of a user's events, seeded shuffling of ties, the leave-one-out split, and the weights of samples.

Events are parallel arrays. It knows nothing of files, and no ids except the user's own string: the seeded shuffle is
defined on it, so that anybody can repeat the shuffle from the raw data.
"""

import random
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_EVENTS_TO_HOLD_OUT = 3
"""Users with fewer events are training users only."""
MIN_EVENTS_TO_LEARN = 4
"""Where nobody has so many events, nothing is held out: of three, one would be left, and no order to learn."""

MAX_TARGETS_PER_USER = 1000
"""Training predicts at most this many latest events of a user, so that no account dominates the training samples."""
COUNTED_SHARE = 0.01
COUNTED_AT_LEAST = 200
"""A till, a guest account or a crawler is not a taste: of each user or session, only so many latest events count."""
MAX_AHEAD_S = 86_400.0
"""How far ahead of the clock a timestamp may lie and still count as valid: clocks and time zones err by hours, not by
days."""


class Split(IntEnum):
    """Which part of a leave-one-out split an event belongs to."""

    TRAIN = 0
    VALID = 1
    TEST = 2


def order_events(
    users: NDArray[np.int64],
    timestamps: NDArray[np.float64] | None,
    *,
    positions: NDArray[np.int64] | None = None,
    tie_breaks: Sequence[NDArray[Any]] = (),
) -> NDArray[np.int64]:
    """The permutation that sorts events by user, then timestamp, then position, then file order.

    Args:
        users: (E,) int64 user of each event, events in file order.
        timestamps: (E,) float64 seconds, or None where the data has none.
        positions: (E,) int64, or None where the data has none.
        tie_breaks: (E,) arrays, the most important first. They order events of equal timestamp *and* position, so that
            with positions the order of the file's rows never matters. Without positions they are not used.

    Returns:
        (E,) int64.
    """
    keys: list[NDArray[Any]] = [users]
    if timestamps is not None:
        keys.append(timestamps)
    if positions is not None:
        keys += [positions, *tie_breaks]
    return np.lexsort(keys[::-1]).astype(np.int64)  # lexsort: last key first; stable, so file order comes last


def shuffle_ties(
    seed: int,
    users: NDArray[np.int64],
    *,
    user_ids: Sequence[str],
    timestamps: NDArray[np.float64] | None,
) -> NDArray[np.int64]:
    """The permutation that shuffles every run of one user's events with equal timestamps.

    The protocol: one `random.Random(f"{seed}:{user_id}")` per user shuffles that user's runs in time order. Without
    timestamps each user is one run.

    Args:
        seed: the protocol's seed.
        users: (E,) int64, events already in order (`order_events`), so that a user's events are adjacent.
        user_ids: the shop's string of user number u at position u.
        timestamps: (E,) float64 in the same order, or None.

    Returns:
        (E,) int64.
    """
    permutation = np.arange(len(users), dtype=np.int64)
    starts = _run_starts(users, timestamps)
    stops = np.append(starts[1:], len(users))
    tied = (stops - starts) > 1  # a run of one event draws nothing from the generator
    rng, rng_user = random.Random(0), -1  # noqa: S311 - replaced at the first run
    for start, stop in zip(starts[tied].tolist(), stops[tied].tolist(), strict=True):
        if users[start] != rng_user:
            rng_user = int(users[start])
            rng = random.Random(f"{seed}:{user_ids[rng_user]}")  # noqa: S311 - a protocol, not a secret
        run = list(range(start, stop))
        rng.shuffle(run)
        permutation[start:stop] = run
    return permutation


def leave_one_out(users: NDArray[np.int64]) -> NDArray[np.int8]:
    """`Split` of every event: a user's last event is test, the one before it validation, all others training.

    Args:
        users: (E,) int64, events in order, a user's events adjacent.

    Returns:
        (E,) int8. Users with fewer than `MIN_EVENTS_TO_HOLD_OUT` events are training users.
    """
    split = np.full(len(users), Split.TRAIN, dtype=np.int8)
    starts = _run_starts(users, None)
    stops = np.append(starts[1:], len(users))
    last = stops[(stops - starts) >= MIN_EVENTS_TO_HOLD_OUT] - 1
    split[last] = Split.TEST
    split[last - 1] = Split.VALID
    return split


def last_two_tie(users: NDArray[np.int64], times: NDArray[Any]) -> int:
    """The number of users whose test event has the same time as the event before it."""
    test = np.flatnonzero(leave_one_out(users) == Split.TEST)
    return int(np.count_nonzero(times[test] == times[test - 1]))


def most_counted(num_events: int) -> int:
    """How many latest events of a user or session count: a share of all events, within fixed bounds."""
    return min(max(int(num_events * COUNTED_SHARE), COUNTED_AT_LEAST), MAX_TARGETS_PER_USER)


def counted_events(users: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(E,) bool: whether an event is among its user's `most_counted` latest ones; a user's events stand together."""
    counted = np.ones(len(users), dtype=np.bool_)
    starts, most = _run_starts(users, None), most_counted(len(users))
    stops = np.append(starts[1:], len(users))
    for start, stop in zip(starts[stops - starts > most], stops[stops - starts > most], strict=True):
        counted[start : stop - most] = False
    return counted


def mean_one(weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """The weights (n,) of training samples, scaled to a mean of 1, so that a learning rate means the same.

    Equal weights are 1 exactly.
    """
    if not len(weights) or (weights == weights[0]).all():
        return np.ones(len(weights), dtype=np.float32)
    scaled: NDArray[np.float32] = (weights / weights.mean()).astype(np.float32)
    return scaled


def _run_starts(users: NDArray[np.int64], timestamps: NDArray[np.float64] | None) -> NDArray[np.int64]:
    if len(users) == 0:
        return np.zeros(0, dtype=np.int64)
    changes = users[1:] != users[:-1]
    if timestamps is not None:
        changes |= timestamps[1:] != timestamps[:-1]
    return np.concatenate([[0], np.flatnonzero(changes) + 1]).astype(np.int64)
