"""Accepted events as live evidence counts them, one, and many as arrays; and counts by row and column.

It knows neither stores nor ids.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.contract.event_log import FOLLOWED_ITEMS
from isrf.method.evidence import heaviest
from isrf.method.interest import BoolArray, IntArray

UNIT_WEIGHT = 1 << 20
"""A weight of 1. Weights are whole numbers, so that sums do not depend on the order of events."""
_64_BITS = (1 << 64) - 1


class LiveEvent(NamedTuple):
    """One event that counts, in item rows of a recommender."""

    item: int
    followed: Sequence[int]  # distinct items that the user took before it, most recent first, without `item`
    timestamp: float  # seconds
    user_hash: int  # 32 bits; the user's bucket is `user_hash % NUM_BUCKETS`
    identity: int  # equal for equal events in every process, whatever rows their items have
    weight: int = UNIT_WEIGHT  # how much it counts; 0: it does not


class LiveBatch(NamedTuple):
    """The same of several events, in their order."""

    items: IntArray  # (E,)
    followed: NDArray[np.int32]  # (E, FOLLOWED_ITEMS), −1 after the last
    timestamps: NDArray[np.float64]  # (E,)
    user_hashes: NDArray[np.uint64]  # (E,)
    identities: NDArray[np.uint64]  # (E,)
    weights: IntArray  # (E,)

    @classmethod
    def of(cls, events: Sequence[LiveEvent]) -> "LiveBatch":
        followed = np.full((len(events), FOLLOWED_ITEMS), -1, np.int32)
        for place, event in enumerate(events):
            named = event.followed[:FOLLOWED_ITEMS]
            followed[place, : len(named)] = named
        return cls(
            np.array([event.item for event in events], np.int64),
            followed,
            np.array([event.timestamp for event in events], np.float64),
            np.array([event.user_hash for event in events], np.uint64),
            np.array([event.identity & _64_BITS for event in events], np.uint64),
            np.array([event.weight for event in events], np.int64),
        )

    @property
    def num_events(self) -> int:
        return len(self.items)

    def where(self, chosen: BoolArray | IntArray | slice) -> "LiveBatch":
        """The events of a mask (E,), of places or of a slice."""
        return LiveBatch._make(column[chosen] for column in self)

    def events(self) -> Iterator[LiveEvent]:
        """The events, one by one."""
        for item, followed, *rest in zip(*(column.tolist() for column in self), strict=True):
            yield LiveEvent(item, [row for row in followed if row >= 0], *rest)


def followed_items(history: Sequence[int], item: int) -> list[int]:
    """What an event on `item` follows: the latest other items of a history (oldest first), each once, latest first."""
    latest = dict.fromkeys(reversed(history[-4 * FOLLOWED_ITEMS :]))
    return [row for row in latest if row != item][:FOLLOWED_ITEMS]


class CountedEvent(NamedTuple):
    """An event that was counted, as far as popularity needs it."""

    item: int
    timestamp: float  # seconds
    num_followed: int
    weight: int


class TakenItems(NamedTuple):
    """The items of some events, each beside the event's weight."""

    items: IntArray  # (e,) rows
    weights: IntArray  # (e,) in units of 1 / `UNIT_WEIGHT`


def whole_weight(weight: float) -> int:
    """A weight (`isrf.contract.event_types`) in units of 1 / `UNIT_WEIGHT`."""
    return round(weight * UNIT_WEIGHT)


def value_or_zero(known: NDArray[Any], items: IntArray) -> NDArray[Any]:
    """(c,) the values of items (c,) by their rows, 0 for items that came after the last row of `known`."""
    return np.where(items < len(known), known[np.minimum(items, len(known) - 1)], known.dtype.type(0))


def decayed(
    timestamps: NDArray[np.float64], *, reference_s: float, half_life_s: float, bounds: tuple[float, float]
) -> NDArray[np.float64]:
    """(E,) seconds → (E,) 2^((t − reference) / half-life), the exponent within `bounds`.

    The powers are the C library's, one by one, as for one event: NumPy's own may differ in the last bit.
    """
    exponents = np.clip((timestamps - reference_s) / half_life_s, *bounds)
    return np.array([2.0**exponent for exponent in exponents.tolist()], np.float64)


class CountedRows(NamedTuple):
    """Counts by row and column, each pair once."""

    numbers: IntArray  # (c,) of the rows, ascending
    columns: IntArray  # (c,) ascending in each row
    counts: NDArray[np.float64]  # (c,)

    @classmethod
    def of(
        cls, numbers: IntArray, columns: NDArray[np.integer], counts: NDArray[np.int64] | NDArray[np.float64]
    ) -> "CountedRows":
        """Adds up the counts (e,) of equal pairs of row numbers (e,) and columns (e,).

        Their order must not matter: whole numbers, or at most two of each pair.
        """
        keys = numbers << 32 | columns
        order = np.argsort(keys)
        keys = keys[order]
        begins = np.ones(len(keys), np.bool_)
        np.not_equal(keys[1:], keys[:-1], out=begins[1:])
        starts = np.flatnonzero(begins)
        keys = keys[starts]
        summed = np.add.reduceat(counts[order], starts) if len(starts) else counts
        return cls(keys >> 32, keys & 0xFFFFFFFF, summed.astype(np.float64))

    def split(
        self, num_rows: int, *, limit: int | None = None, one: int = 1
    ) -> list[tuple[IntArray, NDArray[np.float64]]]:
        """Columns and counts of each row, in units of `one`; of a longer row the `limit` heaviest."""
        ends = np.searchsorted(self.numbers, np.arange(num_rows), side="right").tolist()
        counts = self.counts / one
        rows = []
        for start, end in zip([0, *ends], ends, strict=False):
            columns, of_row = self.columns[start:end], counts[start:end]
            if limit is not None and end - start > limit:
                kept = np.sort(heaviest(of_row, limit))
                columns, of_row = columns[kept], of_row[kept]
            rows.append((columns, of_row))
        return rows
