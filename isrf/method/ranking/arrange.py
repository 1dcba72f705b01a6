"""Arranges a list in pages under pins to places, caps per attribute value and quotas of conditions.

A cap is kept before a pin, a pin before a quota, and a quota before the order. Caps and quotas hold in every page of
the list. Rows in, rows out.
"""

from collections import deque
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
    walk = _Walk(order, length, pins, caps, quotas)
    while len(walk.found.rows) < length and walk.add_page(min(page, length - len(walk.found.rows))):
        pass
    return walk.found


class _Limits:
    """What the caps limit: a number for each value of each cap. An item's numbers are read once for the whole walk,
    those of the items that will surely be walked at the start.

    Attributes:
        most: how many items with a value a page may have, by number.
        rules: the cap's rule, by number.
    """

    def __init__(self, caps: Sequence[Cap], rows: Sequence[int]) -> None:
        self.most: list[int] = []
        self.rules: list[int] = []
        self._caps = [(cap, dict[Hashable, int]()) for cap in caps]
        self._known = dict(zip(rows, self._read(rows), strict=True))

    def of(self, row: int) -> tuple[int, ...]:
        """Returns the numbers of an item's values."""
        found = self._known.get(row)
        if found is None:
            (found,) = self._read([row])
            self._known[row] = found
        return found

    def _read(self, rows: Sequence[int]) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = [()] * len(rows)
        for cap, numbers in self._caps:
            for at, values in enumerate(cap.values(rows)):
                for value in values:
                    number = numbers.get(value)
                    if number is None:
                        number = numbers[value] = len(self.most)
                        self.most.append(cap.most)
                        self.rules.append(cap.rule)
                    found[at] += (number,)
        return found


class _Page:
    """One page while it is filled: what stands at a pin's place, and the others in order."""

    def __init__(self, size: int, limits: _Limits) -> None:
        self.size = self.room = size
        self.fixed: dict[int, int] = {}  # rows by place
        self.late: list[int] = []  # rows of pins of later pages, where no other item is left
        self.chosen: list[int] = []
        self._limits = limits
        self._counts: dict[int, int] = {}

    @property
    def rows(self) -> list[int]:
        return [*self.fixed.values(), *self.chosen, *self.late]

    def blocked_by(self, row: int) -> list[int]:
        """Returns the numbers of an item's values of which the page has as many as a cap allows."""
        counts, most = self._counts, self._limits.most
        return [number for number in self._limits.of(row) if counts.get(number, 0) >= most[number]]

    def take(self, row: int) -> int | None:
        """Makes room for an item, where no cap forbids it; else returns the rule that does."""
        counts, limits = self._counts, self._limits
        numbers = limits.of(row)
        for number in numbers:
            if counts.get(number, 0) >= limits.most[number]:
                return limits.rules[number]
        for number in numbers:
            counts[number] = counts.get(number, 0) + 1
        self.room -= 1
        return None

    def replace(self, row: int, other: int) -> None:
        """Puts `other` to the end in place of a chosen item."""
        self.chosen.remove(row)
        for number in self._limits.of(row):
            self._counts[number] -= 1
        for number in self._limits.of(other):
            self._counts[number] = self._counts.get(number, 0) + 1
        self.chosen.append(other)

    def has_values(self, row: int, blocked: Sequence[int]) -> bool:
        """Whether an item has all these values."""
        return not blocked or all(number in self._limits.of(row) for number in blocked)

    def in_order(self, begin: int) -> list[int]:
        """Merges pinned rows by place and the others; a pin whose place the page does not reach stands at its end."""
        others, left = [*self.chosen, *self.late], dict(self.fixed)
        if not left:
            return others
        rows, following = list[int](), iter(others)
        for place in range(begin + 1, begin + len(self.rows) + 1):
            row = left.pop(place, None)
            if row is None:
                row = next(following, None)
            if row is None:
                row = left.pop(min(left))
            rows.append(row)
        return rows


class _Walk:
    """The way down an order, page by page."""

    def __init__(
        self,
        order: Sequence[int],
        length: int,
        pins: Sequence[PlacedPin],
        caps: Sequence[Cap],
        quotas: Sequence[Quota],
    ) -> None:
        self.found = Arranged()
        self._order, self._limits, self._quotas = order, _Limits(caps, order[:length]), quotas
        self._position = 0
        self._pinned = {pin.row: pin for pin in pins}
        self._placed: set[int] = set()
        self._waiting: deque[int] = deque()  # what a cap or a quota kept off the pages before
        self._members: list[set[int]] = []  # the rows of each quota
        self._of_quota: list[deque[int]] = []  # the same in order, without those that are placed in front
        self._rank: dict[int, int] = {}  # positions in the order of the rows met so far; -1: of a refused pin
        if quotas:
            rows = np.array(order, dtype=np.int64)
            pinned = np.array(list(self._pinned), dtype=np.int64)
            for quota in quotas:
                places = np.flatnonzero(quota.mask[rows])
                found = rows[places].tolist()
                self._of_quota.append(deque(found))
                self._rank.update(zip(found, places.tolist(), strict=True))
            self._members = [
                {*found, *pinned[quota.mask[pinned]].tolist()}
                for quota, found in zip(quotas, self._of_quota, strict=True)
            ]

    def add_page(self, size: int) -> bool:
        """Adds a page; returns whether it is full."""
        begin, page = len(self.found.rows), _Page(size, self._limits)
        self._fix(page, begin)
        self._fill(page)
        if page.room:
            self._fill_late(page, begin)
        if self._quotas and self._meet(page):
            # What a quota replaced may have been in the way of others.
            self._fill(page)
        rows = page.in_order(begin)
        self.found.rows += rows
        for row in page.fixed.values():
            del self._pinned[row]
        for candidates in self._of_quota:
            while candidates and candidates[0] in self._placed:
                candidates.popleft()
        for quota, members in zip(self._quotas, self._members, strict=True):
            held = len(members.intersection(rows))
            if held < quota.least and (rows or not begin):
                self.found.short.append(Shortfall(quota.rule, begin, held))
        if page.room:
            left = [row for row in self._waiting if row not in self._placed]
            self.found.unmet = sorted({self.found.held_back[row] for row in left if row in self.found.held_back})
        return not page.room

    def _fix(self, page: _Page, begin: int) -> None:
        for pin in [pin for pin in self._pinned.values() if begin < pin.place <= begin + page.size]:
            broken = page.take(pin.row)
            if broken is None:
                page.fixed[pin.place] = pin.row
                self._placed.add(pin.row)
            else:
                self.found.refused.append(pin)
                self.found.held_back[pin.row] = broken
                self._rank[pin.row] = -1
                del self._pinned[pin.row]
                self._waiting.appendleft(pin.row)

    def _fill(self, page: _Page) -> None:
        """Adds items that wait, then those of the order, as far as no cap forbids them."""
        order, waiting, placed, held_back = self._order, self._waiting, self._placed, self.found.held_back
        held: list[int] = []
        while page.room and (waiting or self._position < len(order)):
            if waiting:
                row = waiting.popleft()
            else:
                row = order[self._position]
                self._position += 1
                if row in held_back:
                    continue
                self._rank[row] = self._position - 1
            if row in placed or row in self._pinned:
                continue
            broken = page.take(row)
            if broken is None:
                page.chosen.append(row)
                placed.add(row)
            else:
                held_back.setdefault(row, broken)
                held.append(row)
        waiting.extendleft(reversed(held))

    def _fill_late(self, page: _Page, begin: int) -> None:
        """Where no other item is left, pins of later places fill the page."""
        for pin in sorted(self._pinned.values(), key=lambda pin: pin.place):
            if not page.room:
                break
            if pin.place <= begin + page.size:
                continue
            broken = page.take(pin.row)
            if broken is None:
                page.late.append(pin.row)
                self._placed.add(pin.row)
                del self._pinned[pin.row]
            else:
                self.found.held_back.setdefault(pin.row, broken)
                self._rank.setdefault(pin.row, -1)
                self._waiting.append(pin.row)

    def _meet(self, page: _Page) -> bool:
        """Brings the items that quotas want; returns whether it replaced any."""
        rows = page.rows
        counts = [len(members.intersection(rows)) for members in self._members]
        if all(count >= quota.least for count, quota in zip(counts, self._quotas, strict=True)):
            return False
        before = list(page.chosen)
        brought: dict[int, int] = {}
        for at, quota in enumerate(self._quotas):
            while counts[at] < min(quota.least, page.size):
                swap = self._swap(page, at, counts)
                if swap is None:
                    break
                out, row = swap
                page.replace(out, row)
                self._placed.remove(out)
                self._placed.add(row)
                brought.pop(out, None)
                brought[row] = quota.rule
                for other, members in enumerate(self._members):
                    counts[other] += (row in members) - (out in members)
        if not brought:
            return False
        self.found.brought |= brought
        kept = [row for row in page.chosen if row not in brought]
        page.chosen = kept + sorted(brought, key=self._rank.__getitem__)
        replaced = [row for row in before if row not in self._placed]
        self._waiting = deque(sorted([*replaced, *self._waiting], key=self._rank.__getitem__))
        return True

    def _swap(self, page: _Page, at: int, counts: Sequence[int]) -> tuple[int, int] | None:
        """Returns an item of the page and the best one of a quota that may replace it; None where there is none."""
        candidates, members = self._of_quota[at], self._members[at]
        outside = [row for row in reversed(page.chosen) if row not in members]
        if not outside:
            return None
        for row in candidates:
            if row in self._placed or row in self._pinned:
                continue
            blocked = page.blocked_by(row)
            for out in outside:
                if page.has_values(out, blocked) and not self._is_needed(out, row, counts):
                    return out, row
        return None

    def _is_needed(self, out: int, row: int, counts: Sequence[int]) -> bool:
        """Whether a quota has too few items without `out`, though `row` comes in its place."""
        return any(
            out in members and row not in members and count <= quota.least
            for quota, members, count in zip(self._quotas, self._members, counts, strict=True)
        )
