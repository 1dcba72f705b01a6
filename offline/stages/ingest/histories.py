"""From rows to histories: event order, what `remove` and `dislike` mean, tie shuffling, leave-one-out.

It works on the shop's ids; row numbers come later (`offline.stages.ingest.stage.numbering`).

- `dislike` is no history: the event is taken out and its item noted as excluded for this user.
- `remove` takes back: it is taken out, with everything the user did with this item before it, dislikes included.
- The same user taking the same item twice is kept twice: a shop sells things again. (Rows that are equal in everything
  are one event: `offline.stages.ingest.stage.repeated`.)
"""

import math
from typing import NamedTuple

import numpy as np
import polars as pl

from isrf.contract.event_types import DISLIKE, REMOVE
from isrf.method.order import MAX_AHEAD_S, Split, last_two_tie, leave_one_out, order_events, shuffle_ties


class Histories(NamedTuple):
    """What the shop's events say once they are in order.

    Attributes:
        events: `user_id`, `item_id`, `timestamp`, `event`, `weight`, `split` (i8, `isrf.method.order.Split`); sorted by
            user_id, then order.
        excluded: `user_id`, `item_id` that the user dislikes, each pair once.
        taken_back: how many events a `remove` took back.
        tied_users: users whose test event and the one before it stand at the same time.
    """

    events: pl.DataFrame
    excluded: pl.DataFrame
    taken_back: int
    tied_users: int


def build_histories(
    interactions: pl.DataFrame, *, shuffle_seed: int | None, hold_out: bool, learned_until: float = math.inf
) -> Histories:
    """Histories of the rows that `offline.stages.ingest.stage.interactions` returned, in file order.

    `learned_until` (seconds) is when the file was read: a row dated more than a day later has no time that could be
    after a `remove`.
    """
    ordered = _in_order(interactions)
    kept = _without_removed(ordered, learned_until + MAX_AHEAD_S)
    disliked = pl.col("event") == DISLIKE
    excluded = kept.filter(disliked).select("user_id", "item_id").unique().sort("user_id", "item_id")
    history = kept.filter(~disliked)
    users, user_ids = _codes(history["user_id"])
    timestamps = _times(history)
    if shuffle_seed is not None:
        shuffled = shuffle_ties(shuffle_seed, users, user_ids=user_ids, timestamps=timestamps)
        history = history[shuffled]
        timestamps = None if timestamps is None else timestamps[shuffled]
    split = leave_one_out(users) if hold_out else np.full(len(users), Split.TRAIN, dtype=np.int8)
    times = history["position"].to_numpy() if timestamps is None else timestamps
    num_removes = ordered.filter(pl.col("event") == REMOVE).height
    return Histories(
        events=history.select("user_id", "item_id", "timestamp", "event", "weight", pl.Series("split", split)),
        excluded=excluded,
        taken_back=ordered.height - kept.height - num_removes,
        tied_users=last_two_tie(users, times),
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
    """`latest`: a timestamp above it is no time; such an event was before every `remove` that has one."""
    removing = pl.col("event") == REMOVE
    untimed = (pl.col("timestamp") > latest).fill_null(False)
    if ordered.filter(removing).is_empty():
        return ordered
    placed = ordered.with_row_index("place")  # a column: inside `over` a range would start anew in every group
    last_remove = pl.when(removing).then(pl.col("place")).max().over("user_id", "item_id")
    removed_in_time = (removing & ~untimed).any().over("user_id", "item_id")
    stands = (pl.col("place") > last_remove).fill_null(True) & ~(untimed & removed_in_time)
    return placed.filter(stands).drop("place")


def _times(events: pl.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.float64]] | None:
    timestamps = events["timestamp"]
    return None if timestamps.null_count() == events.height else timestamps.to_numpy()


def _codes(values: pl.Series) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], list[str]]:
    """Number of each value among the sorted distinct ones, and these. UTF-8 sorts as code points do."""
    distinct = values.unique().sort()
    numbers = pl.DataFrame({"value": distinct}).with_row_index("code")
    coded = pl.DataFrame({"value": values}).join(numbers, on="value", how="left", maintain_order="left")
    return coded["code"].cast(pl.Int64).to_numpy(), distinct.to_list()
