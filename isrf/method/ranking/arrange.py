"""Arranges a list in pages under pins to places, caps per attribute value and quotas of conditions.

A cap is kept before a pin, a pin before a quota, and a quota before the order. Caps and quotas hold in every page of
the list. Rows in, rows out.
"""

from collections import Counter, deque
from collections.abc import Hashable, Sequence

import numpy as np

from isrf.method.ranking.placed_rules import Arranged, Cap, PlacedPin, Quota, Shortfall


def arrange(
    order: Sequence[int],
    *,
    pins: Sequence[PlacedPin] = (),
    caps: Sequence[Cap] = (),
    quotas: Sequence[Quota] = (),
    page: int,
    length: int,
) -> Arranged:
    """Walks down an order until the list is full: pins stand at their places, and no page breaks a cap.

    Where a page has too few items of a quota, the best item of its condition replaces the lowest item that no pin and
    no quota holds, and stands at the page's end. What it replaces comes on the next page.

    Args:
        order: distinct allowed rows, best first.
        pins: of `settle_pins`; their rows are allowed.
        page: items of a page; caps and quotas hold in each.
        length: items of the whole list.
    """
    if not (pins or caps or quotas):
        return Arranged(rows=list(order[:length]))
    walk = _Walk(order, pins, caps, quotas)
    while len(walk.found.rows) < length and walk.add_page(min(page, length - len(walk.found.rows))):
        pass
    return walk.found


class _Page:
    """One page while it is filled: what stands at a pin's place, and the others in order."""

    def __init__(self, size: int, caps: Sequence[Cap]) -> None:
        self.size = size
        self.fixed: dict[int, int] = {}  # rows by place
        self.late: list[int] = []  # rows of pins of later pages, where no other item is left
        self.chosen: list[int] = []
        self._caps = [(cap, Counter[Hashable]()) for cap in caps]

    @property
    def is_full(self) -> bool:
        return len(self.fixed) + len(self.chosen) + len(self.late) == self.size

    @property
    def rows(self) -> list[int]:
        return [*self.fixed.values(), *self.chosen, *self.late]

    def blocked_by(self, row: int) -> set[tuple[int, Hashable]]:
        """Returns the values of an item of which the page has as many as a cap allows, each with the cap's position."""
        return {
            (at, value)
            for at, (cap, counts) in enumerate(self._caps)
            for value in cap.values.get(row, ())
            if counts[value] >= cap.most
        }

    def take(self, row: int) -> int | None:
        """Counts an item, where no cap forbids it; else returns the rule that does."""
        for cap, counts in self._caps:
            if any(counts[value] >= cap.most for value in cap.values.get(row, ())):
                return cap.rule
        self._count(row, 1)
        return None

    def replace(self, row: int, other: int) -> None:
        """Puts `other` to the end in place of a chosen item."""
        self.chosen.remove(row)
        self._count(row, -1)
        self._count(other, 1)
        self.chosen.append(other)

    def has_values(self, row: int, blocked: set[tuple[int, Hashable]]) -> bool:
        """Whether an item has all these values."""
        return all(value in self._caps[at][0].values.get(row, ()) for at, value in blocked)

    def in_order(self, begin: int) -> list[int]:
        """Merges pinned rows by place and the others; a pin whose place the page does not reach stands at its end."""
        rows, others, left = [], iter([*self.chosen, *self.late]), dict(self.fixed)
        for place in range(begin + 1, begin + len(self.rows) + 1):
            row = left.pop(place, None)
            if row is None:
                row = next(others, None)
            if row is None:
                row = left.pop(min(left))
            rows.append(row)
        return rows

    def _count(self, row: int, by: int) -> None:
        for cap, counts in self._caps:
            for value in set(cap.values.get(row, ())):
                counts[value] += by


class _Walk:
    """The way down an order, page by page."""

    def __init__(
        self, order: Sequence[int], pins: Sequence[PlacedPin], caps: Sequence[Cap], quotas: Sequence[Quota]
    ) -> None:
        self.found = Arranged()
        self._order, self._caps, self._quotas = order, caps, quotas
        self._position = 0
        self._pinned = {pin.row: pin for pin in pins}
        self._placed: set[int] = set()
        self._waiting: deque[int] = deque()  # what a cap or a quota kept off the pages before
        self._rank: dict[int, int] = {}
        self._of_quota: list[deque[int]] = []  # the rows of each quota, best first
        if quotas:
            rows = np.array(order, dtype=np.int64)
            self._rank = {row: at for at, row in enumerate(order)}
            self._of_quota = [deque(rows[quota.mask[rows]].tolist()) for quota in quotas]

    def add_page(self, size: int) -> bool:
        """Adds a page; returns whether it is full."""
        begin, page = len(self.found.rows), _Page(size, self._caps)
        self._fix(page, begin)
        self._fill(page)
        self._fill_late(page, begin)
        if self._quotas and self._meet(page):
            # What a quota replaced may have been in the way of others.
            self._fill(page)
        rows = page.in_order(begin)
        self.found.rows += rows
        self._placed.update(rows)
        for row in page.fixed.values():
            del self._pinned[row]
        for quota in self._quotas if rows or not begin else ():
            count = int(quota.mask[rows].sum())
            if count < quota.least:
                self.found.short.append(Shortfall(quota.rule, begin, count))
        if not page.is_full:
            left = [row for row in self._waiting if row not in self._placed]
            self.found.unmet = sorted({self.found.held_back[row] for row in left if row in self.found.held_back})
        return page.is_full

    def _fix(self, page: _Page, begin: int) -> None:
        for pin in [pin for pin in self._pinned.values() if begin < pin.place <= begin + page.size]:
            broken = page.take(pin.row)
            if broken is None:
                page.fixed[pin.place] = pin.row
            else:
                self.found.refused.append(pin)
                self.found.held_back[pin.row] = broken
                self._rank[pin.row] = -1
                del self._pinned[pin.row]
                self._waiting.appendleft(pin.row)

    def _fill(self, page: _Page) -> None:
        """Adds items that wait, then those of the order, as far as no cap forbids them."""
        held: list[int] = []
        inside = set(page.rows)
        while not page.is_full and (self._waiting or self._position < len(self._order)):
            if self._waiting:
                row, is_known = self._waiting.popleft(), True
            else:
                row, is_known = self._order[self._position], False
                self._position += 1
            if row in self._pinned or row in self._placed or row in inside:
                continue
            if not is_known and row in self.found.held_back:
                continue
            broken = page.take(row)
            if broken is None:
                page.chosen.append(row)
            else:
                self.found.held_back.setdefault(row, broken)
                held.append(row)
        self._waiting.extendleft(reversed(held))

    def _fill_late(self, page: _Page, begin: int) -> None:
        """Where no other item is left, pins of later places fill the page."""
        for pin in sorted(self._pinned.values(), key=lambda pin: pin.place):
            if page.is_full:
                break
            if pin.place <= begin + page.size:
                continue
            broken = page.take(pin.row)
            if broken is None:
                page.late.append(pin.row)
                del self._pinned[pin.row]
            else:
                self.found.held_back.setdefault(pin.row, broken)
                self._waiting.append(pin.row)

    def _meet(self, page: _Page) -> bool:
        """Brings the items that quotas want; returns whether it replaced any."""
        before = list(page.chosen)
        counts = [sum(bool(quota.mask[row]) for row in page.rows) for quota in self._quotas]
        brought: dict[int, int] = {}
        for at, quota in enumerate(self._quotas):
            while counts[at] < min(quota.least, page.size):
                swap = self._swap(page, at, counts)
                if swap is None:
                    break
                out, row = swap
                page.replace(out, row)
                brought.pop(out, None)
                brought[row] = quota.rule
                for other, each in enumerate(self._quotas):
                    counts[other] += int(each.mask[row]) - int(each.mask[out])
        if not brought:
            return False
        self.found.brought |= brought
        kept = [row for row in page.chosen if row not in brought]
        page.chosen = kept + sorted(brought, key=lambda row: self._rank[row])
        replaced = [row for row in before if row not in page.chosen]
        self._waiting = deque(sorted([*replaced, *self._waiting], key=lambda row: self._rank.get(row, -1)))
        return True

    def _swap(self, page: _Page, at: int, counts: Sequence[int]) -> tuple[int, int] | None:
        """Returns an item of the page and the best one of a quota that may replace it; None where there is none."""
        candidates, inside = self._of_quota[at], set(page.rows)
        while candidates and candidates[0] in self._placed:
            candidates.popleft()
        for row in candidates:
            if row in self._placed or row in inside or row in self._pinned:
                continue
            blocked = page.blocked_by(row)
            for out in reversed(page.chosen):
                held = self._quotas[at].mask[out] or any(
                    quota.mask[out] and not quota.mask[row] and counts[other] <= quota.least
                    for other, quota in enumerate(self._quotas)
                )
                if not held and page.has_values(out, blocked):
                    return out, row
        return None
