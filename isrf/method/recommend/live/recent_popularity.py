"""Each item's share of recent events: an event's weight halves every half-life of the shop's own time.

Shares under exponential decay do not depend on the moment of asking, so no clock is needed. Weights only grow, so the
most popular items are kept up to date one event at a time. It knows neither stores nor users.

A release's events lose weight by the time or by the number of events since, whichever is slower. In a shop as busy as
before both are alike. After a pause of many half-lives the first event would else be all that counts.
"""

import math

import numpy as np
from numpy.typing import NDArray

from isrf.contract.event_log import FOLLOWED_ITEMS
from isrf.method.evidence import NOTHING, Evidence, WeightArray, heaviest
from isrf.method.interest import FloatArray, IntArray
from isrf.method.recommend.live.live_events import decayed, value_or_zero

NUM_POPULAR = 60
"""The most popular items that the popularity channel brings as candidates."""
_ONE_EVENT = 1 << 20
"""Shares are counted as whole numbers, so that their sum does not depend on the order of the events."""
_OLDEST, _NEWEST = -40.0, 900.0
"""Half-lives before and after the reference; a float64 holds no more."""


class RecentPopularity:
    """The weights of a release's events and of those since."""

    def __init__(self, base: NDArray[np.float64], *, reference_s: float, half_life_s: float) -> None:
        """
        Args:
            base: (N,) each item's weight of the release's events, as of `reference_s`.
            reference_s: the time at which an event weighs 1.
            half_life_s: in which an event's weight halves.
        """
        self._base = base.astype(np.float64)
        self._base_total = float(base.sum())
        rows = np.flatnonzero(self._base)
        self._base_top = rows[heaviest(self._base[rows], NUM_POPULAR)]
        self._weights = self._base.copy()
        self._total = self._base_total
        self._num_live = 0  # events since, each counted as its share of `_ONE_EVENT`
        self._latest_s = reference_s
        self._reference_s, self._half_life_s = reference_s, half_life_s
        self._top: dict[int, float] = {}
        self._least = 0.0  # the smallest weight among the top, where it is full
        self._num_changes = 0
        self._most_popular: tuple[int, Evidence] | None = None  # and the number of changes before
        self.refresh()

    def add(self, item: int, timestamp: float, share: float = 1.0) -> None:
        """Counts an event.

        Args:
            item: its row.
            timestamp: seconds.
            share: its weight at the reference time.
        """
        weight = self._weight(timestamp, share)
        if item >= len(self._weights):
            self._weights = np.concatenate([self._weights, np.zeros(item + 1)])
        now = float(self._weights[item]) + weight
        self._weights[item] = now
        self._total += weight
        self._num_live += round(share * _ONE_EVENT)
        self._latest_s = max(self._latest_s, timestamp)
        if now >= self._least:  # of equal ones the lower rows stay, in whatever order they come
            self._raise(item, now)
        self._num_changes += 1

    def add_all(
        self, items: IntArray, timestamps: NDArray[np.float64], shares: NDArray[np.float64] | float = 1.0
    ) -> None:
        """Counts events as `add` does, one after the other; arrays (E,), E > 0."""
        scale = {"reference_s": self._reference_s, "half_life_s": self._half_life_s}
        mantissas, powers = np.frexp(shares * decayed(timestamps, **scale, bounds=(_OLDEST, _NEWEST)))
        weights = np.ldexp(np.rint(mantissas * 2**24), powers - 24)
        touched = np.unique(items)
        if touched[-1] >= len(self._weights):
            self._weights = np.concatenate([self._weights, np.zeros(int(touched[-1]) + 1)])
        np.add.at(self._weights, items, weights)
        self._total = float(np.add.accumulate(np.append(self._total, weights))[-1])  # in their order
        self._num_live += int(np.rint(np.broadcast_to(shares, items.shape) * _ONE_EVENT).sum())
        self._latest_s = max(self._latest_s, float(timestamps.max()))
        # Weights only grow: no other item can have become one of the most popular.
        self._find_top(np.union1d(touched, np.fromiter(self._top, np.int64)))

    def _raise(self, item: int, now: float) -> None:
        """Sets the weight of an item that is among the most popular, or belongs there."""
        self._top[item] = now
        if len(self._top) > NUM_POPULAR:
            del self._top[min(self._top, key=lambda one: (self._top[one], -one))]
        if len(self._top) == NUM_POPULAR:
            self._least = min(self._top.values())

    def take_out(self, item: int, timestamp: float, share: float = 1.0) -> None:
        """Takes out an event that was counted; shares and `most_popular` need `refresh` afterwards."""
        weight = self._weight(timestamp, share)
        self._num_live -= round(share * _ONE_EVENT)
        self._weights[item] = max(float(self._weights[item]) - weight, 0.0)

    def refresh(self, latest_s: float | None = None) -> None:
        """Adds up the weights and finds the most popular items anew.

        Args:
            latest_s: time of the latest event that is left, seconds; None: as before.
        """
        if latest_s is not None:
            self._latest_s = max(self._reference_s, latest_s)
        # Not by subtraction: beside the weight of a much later event the others may have vanished from the total.
        self._total = float(self._weights.sum())
        self._find_top(np.arange(len(self._weights)))

    def most_popular(self) -> Evidence:
        """The most popular items (ascending rows) and their shares of the events.

        Another thread may count meanwhile: what was found is kept only until the next change.
        """
        number, found = self._num_changes, self._most_popular
        if found is None or found[0] != number:
            items = np.fromiter(self._top, np.int64)
            if self._lift > 0:
                items = np.union1d(items, self._base_top)
                items = items[heaviest(self.weights(items), NUM_POPULAR)]
            items = np.sort(items)
            found = self._most_popular = number, Evidence(items, self.shares(items)) if len(items) else NOTHING
        return found[1]

    def shares(self, items: IntArray) -> FloatArray:
        """(c,) item rows → (c,) float32 shares."""
        total = self._total + self._lift * self._base_total
        return (self.weights(items) / max(total, 1e-300)).astype(np.float32)

    def rank(self, item: int) -> int | None:
        """How many items are more popular, ties in row order; None where the item is not among the most popular."""
        weights = dict(self._top)
        if self._lift > 0:
            items = self.most_popular().items
            weights = dict(zip(items.tolist(), self.weights(items).tolist(), strict=True))
        weight = weights.get(item)
        if weight is None:
            return None
        return sum(other > weight or (other == weight and row < item) for row, other in weights.items())

    def weights(self, items: IntArray) -> NDArray[np.float64]:
        """(c,) item rows → (c,) weights; only their order means something."""
        weights = value_or_zero(self._weights, items)
        lift = self._lift
        return weights + lift * value_or_zero(self._base, items) if lift > 0 else weights

    @property
    def _lift(self) -> float:
        """What is added to the release's weights, as a multiple of them, so that time alone does not undo them."""
        exponent = min((self._latest_s - self._reference_s) / self._half_life_s, _NEWEST)
        # So many events replace half of the release's in a shop as busy as before.
        half = max(self._base_total * math.log(2), 1e-9)
        slower: float = 2.0 ** max(exponent - self._num_live / _ONE_EVENT / half, 0.0) - 1.0
        return slower

    def _weight(self, timestamp: float, share: float) -> float:
        exponent = min(max((timestamp - self._reference_s) / self._half_life_s, _OLDEST), _NEWEST)
        # 24 bits, so that sums do not depend on the order of the events.
        mantissa, power = math.frexp(share * 2.0**exponent)
        return math.ldexp(round(mantissa * 2**24), power - 24)

    def _find_top(self, items: IntArray) -> None:
        """Finds the most popular of some items, ascending rows."""
        rows = items[heaviest(self._weights[items], NUM_POPULAR)]
        top = zip(rows.tolist(), self._weights[rows].tolist(), strict=True)
        self._top = {item: weight for item, weight in top if weight > 0}
        self._least = min(self._top.values()) if len(self._top) == NUM_POPULAR else 0.0
        self._num_changes += 1


def newcomer_share(num_before: int) -> float:
    """The weight of an event among newcomers' events, by the number of items that its user took before it.

    What users without a history take next is said by what others took as their first items (docs/lab-notebook.md).
    """
    return 1.0 / (1 + min(num_before, FOLLOWED_ITEMS))


def newcomer_shares(num_before: IntArray) -> NDArray[np.float64]:
    """`newcomer_share` of several events, (E,) → (E,)."""
    return np.asarray(1.0 / (1 + np.minimum(num_before, FOLLOWED_ITEMS)), dtype=np.float64)


def decayed_counts(
    users: IntArray,
    items: IntArray,
    times: NDArray[np.float64],
    *,
    weights: WeightArray | None = None,
    shares: NDArray[np.float64] | None = None,
    num_items: int,
    half_life_s: float,
) -> NDArray[np.float64]:
    """Each item's weight of a release's events as of the latest of them.

    A user counts once per item, by the event that weighs most by then; of equal ones by the last.

    Args:
        users, items: (E,) rows.
        times: (E,) seconds; NaN counts as long ago.
        weights: (E,) how much each event counts; None: 1.
        shares: (E,) what of an event's weight counts; None: 1.
        num_items: N.
        half_life_s: in which an event's weight halves.
    """
    ages = np.nan_to_num((times - np.nanmax(times, initial=-np.inf)) / half_life_s, nan=_OLDEST, neginf=_OLDEST)
    decayed_weights = np.exp2(np.maximum(ages, _OLDEST)) * (1.0 if weights is None else weights)
    order = np.lexsort((decayed_weights, users * num_items + items))  # stable: of equal ones the last comes last
    pairs = (users * num_items + items)[order]
    chosen = order[np.diff(pairs, append=-1) != 0]
    counted = decayed_weights[chosen] * (1.0 if shares is None else shares[chosen])
    return np.bincount(items[chosen], weights=counted, minlength=num_items).astype(np.float64)
