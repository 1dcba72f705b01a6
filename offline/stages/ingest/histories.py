"""Makes histories from rows: orders events, applies `remove` and `dislike`, shuffles ties, splits leave-one-out.

It works on the shop's ids; row numbers come later (`offline.stages.ingest.numbering`). A session is an owner of events
as a user is (`offline.stages.ingest.owners`): its events are ordered and split alike.

- A `dislike` is no history: the event is left out, and its item is excluded for this user.
- A `remove` is left out, and so is everything that the user did with the item before it, dislikes included.
- If a user takes an item twice, both events stay: people buy things again. (Rows that are equal in all columns are one
  event: `offline.stages.ingest.repeated`.)
"""

import math
from typing import NamedTuple

import numpy as np
import polars as pl

from isrf.contract.event_types import DISLIKE, REMOVE
from isrf.method.order import (
    MAX_AHEAD_S,
    MIN_EVENTS_TO_LEARN,
    Split,
    last_two_tie,
    leave_one_out,
    order_events,
    shuffle_ties,
)
from offline.stages.ingest.owners import IS_SESSION
from offline.stages.ingest.parts.own_sessions import own_sessions, without_held_out
from offline.stages.ingest.parts.spool import Spool


class Histories(NamedTuple):
    """The shop's events in order, split, without dislikes and removed events.

    Attributes:
        events: `user_id`, `item_id`, `timestamp`, `event`, `weight` (the file's), `split` (i8,
            `isrf.method.order.Split`); sorted by user_id, then order, in parts that divide nobody's events.
        excluded: `user_id`, `item_id` of disliked items, each pair once.
        taken_back: number of events that a `remove` took back.
        tied_users: number of users (sessions are none) whose test event has the same time as the event before it.
        longest: most events of a user or session, held-out ones too.
        own_sessions: number of users and sessions (pairs) where the session has events before a login as the user.
        left_out_of_sessions: number of events that `offline.stages.ingest.own_sessions` keeps out of training.
    """

    events: Spool
    excluded: pl.DataFrame
    taken_back: int
    tied_users: int
    longest: int
    own_sessions: int
    left_out_of_sessions: int


def build_histories(
    interactions: Spool, *, shuffle_seed: int | None, hold_out: bool, learned_until: float = math.inf
) -> Histories:
    """Makes the histories of the rows of `offline.stages.ingest.interactions`.

    With `hold_out` it splits leave-one-out where anybody has `MIN_EVENTS_TO_LEARN` events; else all events train.
    `learned_until` (seconds) is when the file was read. A timestamp more than a day later is not valid, so such a row
    never counts as later than a `remove`.

    Args:
        interactions: in parts of ascending users; the rows of a part are in file order.
    """
    excluded: list[pl.DataFrame] = []
    taken_back = longest = tied_users = 0

    def history_of(part: pl.DataFrame) -> pl.DataFrame:
        nonlocal taken_back, longest
        ordered = _in_order(part)
        valid = _without_removed(ordered, learned_until + MAX_AHEAD_S)
        taken_back += ordered.height - valid.height - ordered.filter(pl.col("event") == REMOVE).height
        disliked = pl.col("event") == DISLIKE
        excluded.append(valid.filter(disliked).select("user_id", "item_id").unique().sort("user_id", "item_id"))
        history = valid.filter(~disliked)
        users, user_ids = _codes(history["user_id"])
        longest = max(longest, int(np.bincount(users).max(initial=0)))
        if shuffle_seed is None:
            return history
        return history[shuffle_ties(shuffle_seed, users, user_ids=user_ids, timestamps=_times(history))]

    def split(history: pl.DataFrame) -> pl.DataFrame:
        nonlocal tied_users
        users = history["user_id"].rle_id().cast(pl.Int64).to_numpy()
        parts = leave_one_out(users) if hold_out else np.full(len(users), Split.TRAIN, dtype=np.int8)
        timestamps = _times(history)
        times = history["position"].to_numpy() if timestamps is None else timestamps
        of_users = history.select(~IS_SESSION).to_series().to_numpy()
        tied_users += last_two_tie(users[of_users], times[of_users]) if hold_out else 0
        return history.select("user_id", "item_id", "timestamp", "event", "weight", pl.Series("split", parts))

    histories = interactions.mapped(history_of)
    hold_out = hold_out and longest >= MIN_EVENTS_TO_LEARN
    linked = own_sessions(interactions)
    events, left_out = without_held_out(histories.mapped(split), linked)
    return Histories(
        events=events,
        excluded=pl.concat(excluded),
        taken_back=taken_back,
        tied_users=tied_users,
        longest=longest,
        own_sessions=linked.height,
        left_out_of_sessions=left_out,
    )


def _in_order(interactions: pl.DataFrame) -> pl.DataFrame:
    users, _ = _codes(interactions["user_id"])
    items, _ = _codes(interactions["item_id"])
    events, _ = _codes(interactions["event"])
    has_position = interactions["position"].null_count() < interactions.height
    order = order_events(
        users,
        _times(interactions),
        positions=interactions["position"].to_numpy() if has_position else None,
        tie_breaks=(items, events, interactions["weight"].to_numpy()),
    )
    return interactions[order]


def _without_removed(ordered: pl.DataFrame, latest: float) -> pl.DataFrame:
    """The events without removes and without everything that they take back.

    A timestamp above `latest` is not valid; such an event counts as earlier than every `remove` with a valid timestamp.
    """
    removing = pl.col("event") == REMOVE
    untimed = (pl.col("timestamp") > latest).fill_null(False)
    if ordered.filter(removing).is_empty():
        return ordered
    # A column, because inside `over` a range would start anew in every group.
    placed = ordered.with_row_index("place")
    last_remove = pl.when(removing).then(pl.col("place")).max().over("user_id", "item_id")
    removed_in_time = (removing & ~untimed).any().over("user_id", "item_id")
    stays = (pl.col("place") > last_remove).fill_null(True) & ~(untimed & removed_in_time)
    return placed.filter(stays).drop("place")


def _times(events: pl.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.float64]] | None:
    timestamps = events["timestamp"]
    return None if timestamps.null_count() == events.height else timestamps.to_numpy()


def _codes(values: pl.Series) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], list[str]]:
    """Each value's number among the sorted distinct values, and those values. UTF-8 sorts like code points."""
    distinct = values.unique().sort()
    numbers = pl.DataFrame({"value": distinct}).with_row_index("code")
    coded = pl.DataFrame({"value": values}).join(numbers, on="value", how="left", maintain_order="left")
    return coded["code"].cast(pl.Int64).to_numpy(), distinct.to_list()
