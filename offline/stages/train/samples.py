"""Makes training samples as arrays: every training prefix, with the interests of exactly that prefix.

A sample's target is used only in the target column. History, explicit vector and group vector come from the items
before it, by the functions of `isrf.method.interest`, without the sample's own user among its neighbours. A user's
first item is no target, because it has no history (for an empty history popularity answers, not the model). An event of
weight 0 is no target either; it stays in the history of the targets after it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isrf.contract.manifest import GroupSearch
from isrf.method.interest import (
    BoolArray,
    FloatArray,
    IntArray,
    InterestTables,
    NeighbourSearch,
    group_interest,
    read_history,
    select_neighbours,
)
from isrf.method.order import mean_one, most_counted
from offline.engine.engine import StageEngine
from offline.engine.local import LOCAL
from offline.runtime.ingest_report import excluding_types

INTEREST_BATCH = 2048


class TrainingSamples(NamedTuple):
    """n samples; every array has n rows."""

    users: IntArray  # (n,)
    history: NDArray[np.int32]  # (n, S) item rows, most recent first, 0 where there is none
    length: IntArray  # (n,) number of items in the history, 1 … S
    target: IntArray  # (n,)
    explicit: FloatArray  # (n, E)
    group: FloatArray  # (n, G)
    weight: FloatArray  # (n,) the target's weight, scaled to a mean of 1


class Sequences(NamedTuple):
    """The training items of all users, then of all sessions; those of row u are `items[start[u]:start[u + 1]]`."""

    items: IntArray  # (T,) oldest first
    start: IntArray  # (U + number of sessions + 1,)
    bought: BoolArray  # (T,) whether the event takes the item off the user's list
    weights: NDArray[np.float64]  # (T,) from 0


class SampleInterests(NamedTuple):
    """The tables and the index that turn histories into explicit and group vectors."""

    tables: InterestTables
    search: GroupSearch
    group_layers: NDArray[np.float16]
    nearest_users: NeighbourSearch


def read_sequences(ingest: Path, num_users: int) -> Sequences:
    """Reads the training interactions, sorted by user and order."""
    frame = pl.read_parquet(ingest / "train.parquet", columns=["user_index", "item_index", "event", "weight"])
    counts = np.bincount(frame["user_index"].to_numpy(), minlength=num_users)
    items = frame["item_index"].to_numpy().astype(np.int64)
    return Sequences(
        items,
        np.concatenate([[0], np.cumsum(counts)]),
        bought=frame["event"].is_in(excluding_types(ingest)).to_numpy(),
        weights=frame["weight"].to_numpy(),
    )


def training_samples(
    sequences: Sequences,
    interests: SampleInterests,
    *,
    history_length: int,
    interest_length: int,
    advance: Callable[[int], None] = lambda _: None,
    engine: StageEngine = LOCAL,
) -> TrainingSamples:
    """Makes one sample per training interaction, except a user's first; its history is everything before it.

    Of a user or session, only the latest events are targets (`isrf.method.order.most_counted`); interactions of weight
    0 are none.
    """
    users = np.repeat(np.arange(len(sequences.start) - 1), np.diff(sequences.start))
    places = np.arange(len(users))
    late = places >= sequences.start[users + 1] - most_counted(len(users))
    ends = np.flatnonzero((places > sequences.start[users]) & late & (sequences.weights > 0))
    users = users[ends]
    explicit = np.zeros((len(users), interests.tables.item_layers.shape[1]), dtype=np.float32)
    group = np.zeros((len(users), interests.group_layers.shape[1]), dtype=np.float32)
    given = (sequences, users, ends, interests, interest_length)
    firsts = range(0, len(users), INTEREST_BATCH)
    for first, found in zip(firsts, engine.map(_interests_of_batch, given, firsts), strict=True):
        part = slice(first, first + INTEREST_BATCH)
        explicit[part], group[part] = found
        advance(len(found[0]))
    history, mask = _histories(sequences, users, ends, history_length)
    return TrainingSamples(
        users,
        history.astype(np.int32),
        length=mask.sum(axis=1),
        target=sequences.items[ends],
        explicit=explicit,
        group=group,
        weight=mean_one(sequences.weights[ends]),
    )


def _histories(sequences: Sequences, users: IntArray, ends: IntArray, length: int) -> tuple[IntArray, BoolArray]:
    """The last `length` items before each end, most recent first, and their mask; both (B, length)."""
    places = ends[:, None] - 1 - np.arange(length)
    mask = places >= sequences.start[users][:, None]
    return np.where(mask, sequences.items[np.where(mask, places, 0)], 0), mask


def _interests_of_batch(
    first: int, sequences: Sequences, users: IntArray, ends: IntArray, interests: SampleInterests, length: int
) -> tuple[FloatArray, FloatArray]:
    part = slice(first, first + INTEREST_BATCH)
    history, mask = _histories(sequences, users[part], ends[part], length)
    return _interests(interests, history, mask, users[part])


def _interests(
    interests: SampleInterests, history: IntArray, mask: BoolArray, own_rows: IntArray
) -> tuple[FloatArray, FloatArray]:
    longest = int(mask.sum(axis=1).max())
    read = read_history(interests.tables, history[:, :longest], mask[:, :longest])
    # One more than the cap, since the sample's own user may be among them.
    cosine, users = interests.nearest_users(read.feature, interests.search.max_neighbours + 1)
    neighbours = select_neighbours(interests.search, cosine, users, own_rows)
    return read.explicit, group_interest(neighbours, interests.group_layers)
