"""A release's own counts and the live ones as one estimate, p(j | i) = (base + live) / (base total + live total).

`LiveLists` stand where a release's `SparseLists` stand, so that the code that gathers evidence does not know of live
counts.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.method.evidence import Entries, SparseLists
from isrf.method.interest import FloatArray, IntArray
from isrf.method.recommend.live.live_counts import LiveChannel, LiveCounts
from isrf.method.recommend.live.live_events import CountedRows, value_or_zero
from isrf.method.recommend.product_groups import Products, gathered

MERGED_KEPT = 4_000
"""Rows of a channel that are kept until live events change them, about 3 kB each."""


class BaseCounts(NamedTuple):
    """What a release's lists of one channel were counted from."""

    lists: SparseLists  # weights of a row sum to 1
    totals: FloatArray  # (N,) the sum of a row's counts before it was scaled
    degrees: FloatArray  # (N,) users who took each item


class _Merged(NamedTuple):
    """Base and live counts of one row."""

    version: int  # of the live counts
    columns: IntArray  # (c,) ascending
    counts: NDArray[np.float64]  # (c,)
    by_counts: Entries


class LiveLists:
    """One item channel's lists with the live counts added; an `isrf.method.evidence.ItemLists`.

    Rows of items that came since the release have live counts alone, and the release's counts of their product. An item
    has the counts of all its variants, without columns of its own product.
    """

    def __init__(
        self,
        channel: LiveChannel,
        base: BaseCounts,
        live: LiveCounts,
        products: Products | None = None,
    ) -> None:
        """products: None where no item has a variant."""
        self._channel, self._base, self._live = channel, base, live
        self._products, self._groups = products, None if products is None else products.groups
        self._merged: dict[int, _Merged] = {}

    def entries(self, row: int) -> Entries:
        """As `ItemLists.entries`."""
        return self._entries([row])[0]

    def gather(self, rows: IntArray) -> tuple[Entries, IntArray]:
        """As `ItemLists.gather`."""
        return gathered(self._entries(rows.tolist()))

    def is_of_release(self, row: int, column: int) -> bool:
        """Whether the release's own list of `row` has an entry for `column`."""
        return column in self._of_release(row).indices

    def people(self, row: int, column: int, *, apart_from: int | None) -> int:
        """How many users' live events are behind an entry, without the user of the hash `apart_from`."""
        return self._live.people(row, column, channel=self._channel, groups=self._groups, apart_from=apart_from)

    def version(self, row: int) -> int:
        """`LiveCounts.version` of the item and its variants."""
        return self._live.version(row, self._groups)

    def with_products(self, products: Products | None) -> "LiveLists":
        """The same counts for other variants."""
        return LiveLists(self._channel, self._base, self._live, products)

    def with_rows(self, _count: int) -> "LiveLists":
        """The same lists: items that were added since the release have rows already."""
        return self

    def _entries(self, rows: Sequence[int]) -> list[Entries]:
        """The entries of each row; without live events it is the release's own, as it is."""
        merged = self._merged_rows(rows)
        if self._channel == "transition":
            found = {row: one.by_counts for row, one in merged.items()}
        else:
            found = self._by_cosine(merged)
        return [found[row] if row in found else self._of_release(row) for row in rows]

    def _by_cosine(self, merged: Mapping[int, _Merged]) -> dict[int, Entries]:
        """The rows with weights that fall with the number of an item's takers, which changes with every event.

        What the rows need is computed for all together: there are few, and short ones.
        """
        if not merged:
            return {}
        columns = np.concatenate([one.columns for one in merged.values()])
        lengths = [len(one.columns) for one in merged.values()]
        weights = np.concatenate([one.counts for one in merged.values()])
        # A row's own degree only scales it; variants have that of their first one, so that their rows are equal.
        rows = np.array([row if self._groups is None else self._groups.first_of(row) for row in merged])
        weights /= np.sqrt(self._degrees(columns) * np.repeat(self._degrees(rows), lengths))
        ends = list(accumulate(lengths))
        bounds = zip([0, *ends], ends, strict=False)
        return {
            row: _entries_of(columns[start:end], weights[start:end])
            for row, (start, end) in zip(merged, bounds, strict=True)
        }

    def _of_release(self, row: int) -> Entries:
        release_row = self._release_row(row)
        if release_row >= len(self._base.totals):
            return _NO_ENTRIES
        entries = self._base.lists.entries(release_row)
        if self._groups is None or not (own := self._groups.are_variants(row, entries.indices)).any():
            return entries
        return _entries_of(entries.indices[~own].astype(np.int64), entries.weights[~own].astype(np.float64))

    def _release_row(self, row: int) -> int:
        """The row whose counts of the release count for an item."""
        return row if self._products is None else self._products.release_row(row)

    def _merged_rows(self, rows: Sequence[int]) -> dict[int, _Merged]:
        """The rows that live events name."""
        found: dict[int, _Merged] = {}
        changed: dict[int, int] = {}  # row → version, read before the row
        for row in rows:
            version, merged = self.version(row), self._merged.get(row)
            if merged is not None and merged.version == version:
                found[row] = merged
            elif version:
                changed[row] = version
        if changed:
            for row, (columns, counts) in zip(changed, self._merge(list(changed)), strict=True):
                found[row] = _Merged(changed[row], columns, counts, _entries_of(columns, counts))
            if len(self._merged) + len(changed) > MERGED_KEPT:
                self._merged = {}
            self._merged.update((row, found[row]) for row in changed)
        return found

    def _merge(self, rows: Sequence[int]) -> list[tuple[IntArray, NDArray[np.float64]]]:
        """Columns of each row and their counts, base and live."""
        found = self._live.rows(rows, self._groups)
        live = [one[:2] if self._channel == "transition" else one[2:] for one in found]
        release_rows = np.array([self._release_row(row) for row in rows], np.int64)
        numbers = np.flatnonzero(release_rows < len(self._base.totals))
        of_release = release_rows[numbers]
        if not len(of_release):
            return live
        base, lengths = self._base.lists.gather(of_release)
        before = base.weights * np.repeat(self._base.totals[of_release].astype(np.float64), lengths)
        if self._channel == "cooccurrence":  # the counts under the release's cosine
            old = self._base.degrees
            own = np.repeat(np.maximum(old[of_release].astype(np.float64), 1.0), lengths)
            before *= np.sqrt(np.maximum(old[base.indices], 1.0) * own)
        numbers, columns = np.repeat(numbers, lengths), base.indices
        if self._groups is not None:
            others = ~self._groups.are_variants(np.array(rows)[numbers], columns)
            numbers, columns, before = numbers[others], columns[others], before[others]
        live_lengths = [len(columns) for columns, _ in live]
        merged = CountedRows.of(
            np.concatenate([numbers, np.repeat(np.arange(len(rows)), live_lengths)]),
            np.concatenate([columns, *(columns for columns, _ in live)]),
            np.concatenate([before, *(counts for _, counts in live)]),
        )
        return merged.split(len(rows))

    def _degrees(self, items: IntArray) -> NDArray[np.float64]:
        """Users who took each item, base and live, at least 1."""
        return np.maximum(value_or_zero(self._base.degrees, items) + self._live.takers(items), 1.0)


def _entries_of(columns: IntArray, weights: NDArray[np.float64]) -> Entries:
    """A row's entries with weights that sum to 1."""
    total = weights.sum()
    scaled = weights / total if total > 0 else weights
    return Entries(columns.astype(np.int32), scaled.astype(np.float32))


_NO_ENTRIES = Entries(np.zeros(0, np.int32), np.zeros(0, np.float32))
