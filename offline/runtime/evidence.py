"""Counts the evidence lists of a release from training interactions and texts alone, and stores them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isrf.contract.manifest import FIRST_VARIANTS_FILE
from isrf.method.evidence import (
    CountedLists,
    SparseLists,
    WeightArray,
    num_takers,
    user_item_lists,
)
from isrf.method.interest import FloatArray, IntArray
from isrf.method.order import counted_events
from isrf.method.pair_counts import count_cooccurrence, count_transitions
from isrf.method.recommend.product_groups import ProductGroups
from offline.config import EvidenceConfig
from offline.engine.engine import StageEngine
from offline.engine.local import LOCAL

PairChannel = Literal["transition", "cooccurrence"]
"""Channels that count pairs of items."""

_COUNTED_COLUMNS = ("user_index", "item_index", "weight")


class Counted(NamedTuple):
    """Evidence lists and popularity, counted from training interactions and texts."""

    lists: dict[str, SparseLists]  # `isrf.contract.manifest.EVIDENCE_LISTS`
    popularity: FloatArray  # (N,) users and sessions who took the item in training, each by their heaviest event
    totals: dict[str, FloatArray]  # of transition and cooccurrence, (N,) the sum of each row's counts before scaling
    first_variants: IntArray | None = None  # (N,) as `first_variants_of`

    @property
    def item_lists(self) -> dict[str, SparseLists]:
        """The lists with a row per item."""
        return {name: lists for name, lists in self.lists.items() if name != "user_items"}


class TimedEvents(NamedTuple):
    """Interactions whose evidence is counted, sorted by user, then order."""

    users: IntArray  # (E,) rows, also int32; those from the number of users on are sessions
    items: IntArray  # (E,) rows, also int32
    times: NDArray[np.float64]  # (E,) seconds, NaN where unknown
    weights: WeightArray  # (E,) from 0; how much each event counts

    def counted(self) -> "TimedEvents":
        """The events that count: of a till or a crawler, only the latest (`isrf.method.order.counted_events`)."""
        chosen = counted_events(self.users)
        return self if chosen.all() else self._rows(np.flatnonzero(chosen))

    def of_users(self, num_users: int) -> "TimedEvents":
        """The events without those of sessions."""
        count = int(np.searchsorted(self.users, num_users))
        return TimedEvents(self.users[:count], self.items[:count], self.times[:count], self.weights[:count])

    def _rows(self, rows: IntArray) -> "TimedEvents":
        return TimedEvents(self.users[rows], self.items[rows], self.times[rows], self.weights[rows])

    @classmethod
    def of(cls, table: pl.DataFrame) -> "TimedEvents":
        """Reads a table with the columns user_index, item_index and weight, and timestamp where events have times."""
        users, items = (table[name].to_numpy().astype(np.int64) for name in ("user_index", "item_index"))
        has_times = "timestamp" in table.columns
        times = table["timestamp"].cast(pl.Float64).to_numpy() if has_times else np.full(len(users), np.nan)
        return cls(users, items, times, table["weight"].to_numpy())


def count_evidence(
    inputs: Mapping[str, Path], *, num_users: int, config: EvidenceConfig, engine: StageEngine = LOCAL
) -> Counted:
    """Counts the evidence from the training interactions of `ingest` and the content lists of `embed`.

    `inputs` holds the output folders by stage name.
    """
    content = load_lists(inputs["embed"] / "evidence")["content"]
    return count_events(
        _untimed(inputs["ingest"] / "train.parquet"),
        content,
        num_users=num_users,
        config=config,
        first_variants=first_variants_of(inputs["ingest"]),
        engine=engine,
    )


def _untimed(path: Path) -> TimedEvents:
    """A stage's table of events without their times, in a third of the memory: lists do not depend on them."""
    users, items, weights = (pl.read_parquet(path, columns=[name])[name].to_numpy() for name in _COUNTED_COLUMNS)
    if (weights == 1).all():
        weights = np.broadcast_to(1.0, len(users))
    return TimedEvents(users, items, np.broadcast_to(np.nan, len(users)), weights)


def first_variants_of(ingest: Path) -> IntArray | None:
    """(N,) the lowest row among each item's variants, by the items' group_id; None where no item has another variant.

    `ingest` is the output folder of that stage.
    """
    groups = ProductGroups.of(pl.read_parquet(ingest / "items.parquet", columns=["group_id"])["group_id"].to_list())
    return groups.first if groups.any else None


def count_events(
    events: TimedEvents,
    content: SparseLists,
    *,
    num_users: int,
    config: EvidenceConfig,
    first_variants: IntArray | None,
    engine: StageEngine = LOCAL,
) -> Counted:
    """The evidence of some interactions.

    Args:
        events: the interactions.
        content: each item's nearest items by text, from `embed`; N rows.
        num_users: U; the rows of users from U on are sessions, which no list `user_items` has.
        config: list length and transition window.
        first_variants: (N,) as `first_variants_of`.
        engine: counts the transitions beside the co-occurrence.
    """
    events = events.counted()
    users, items, _, weights = events
    of_users = events.of_users(num_users)
    num_items = len(content.indptr) - 1
    given = (events, num_items, config, first_variants)
    channels: tuple[PairChannel, ...] = ("transition", "cooccurrence")
    transition, cooccurrence = engine.map(_count_pairs, given, channels)
    lists = {
        "transition": transition.lists,
        "cooccurrence": cooccurrence.lists,
        "content": content,
        "user_items": user_item_lists(of_users.users, of_users.items, num_users=num_users),
    }
    popularity = num_takers(users, items, num_items=num_items, weights=weights).astype(np.float32)
    totals = {"transition": transition.totals, "cooccurrence": cooccurrence.totals}
    return Counted(lists, popularity, totals, first_variants)


def _count_pairs(
    channel: PairChannel,
    events: TimedEvents,
    num_items: int,
    config: EvidenceConfig,
    first_variants: IntArray | None,
) -> CountedLists:
    users, items, _, weights = events
    of_pairs = None if (weights == 1).all() else weights  # the same bytes, in less memory
    if channel == "cooccurrence":
        return count_cooccurrence(
            users,
            items,
            num_items=num_items,
            length=config.list_length,
            weights=of_pairs,
            first_variants=first_variants,
        )
    return count_transitions(
        users,
        items,
        num_items=num_items,
        window=config.window,
        length=config.list_length,
        weights=of_pairs,
        first_variants=first_variants,
    )


def lists_as_arrays(lists: Mapping[str, SparseLists]) -> dict[str, NDArray[Any]]:
    """The lists' arrays by the file names of a bundle (`isrf.contract.manifest.ARRAYS`)."""
    return {
        f"evidence/{name}_{part}.npy": array
        for name, sparse in lists.items()
        for part, array in sparse._asdict().items()
    }


def variants_as_arrays(first_variants: IntArray | None) -> dict[str, NDArray[np.int32]]:
    """The array of `isrf.contract.manifest.VARIANT_ARRAYS`; none where no item has another variant."""
    return {} if first_variants is None else {FIRST_VARIANTS_FILE: first_variants.astype(np.int32)}


def save_lists(folder: Path, lists: dict[str, SparseLists]) -> None:
    """Writes `<name>_{indptr,indices,weights}.npy` into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, sparse in lists.items():
        for part, array in sparse._asdict().items():
            np.save(folder / f"{name}_{part}.npy", array)


def load_lists(folder: Path) -> dict[str, SparseLists]:
    """Reads the lists that `save_lists` wrote, by name."""
    names = {path.name.rsplit("_", 1)[0] for path in folder.glob("*_indptr.npy")}
    return {
        name: SparseLists(*(np.load(folder / f"{name}_{part}.npy") for part in SparseLists._fields)) for name in names
    }
