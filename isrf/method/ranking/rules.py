"""Rules of a list: boosts on scores, pins to places, and caps per attribute value. Arrays in, rows out.

A boost adds log(factor) to a score that is a sum of logarithms, and multiplies another score. Caps hold in every page
of the list. A cap is kept before a pin, and a pin before the order.
"""

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from isrf.method.interest import BoolArray, FloatArray, IntArray

ScoreArray: TypeAlias = NDArray[np.float64]


class ScoreBoost(NamedTuple):
    """A factor on the scores of some items."""

    rule: int
    mask: BoolArray  # (N,)
    log_factor: float


class PlacedPin(NamedTuple):
    """An item and the place that it is to stand at, from 1 on."""

    rule: int
    place: int
    row: int


class Cap(NamedTuple):
    """At most `most` items of one value in a page. An item that `values` does not name has no value."""

    rule: int
    most: int
    values: Mapping[int, Sequence[Hashable]]  # by row


class Move(NamedTuple):
    """What one rule did to one item: places towards the beginning, negative ones towards the end."""

    rule: int
    places: int | None  # None: the rule alone brings the item into the list, or keeps it out


@dataclass(kw_only=True)
class Arranged:
    """A list under pins and caps.

    Attributes:
        rows: in order; shorter than asked only where every further item breaks a cap.
        held_back: the cap that first kept an item off a page, by row.
        refused: pins that a cap forbids.
        unmet: caps that end the list early.
    """

    rows: list[int] = field(default_factory=list)
    held_back: dict[int, int] = field(default_factory=dict)
    refused: list[PlacedPin] = field(default_factory=list)
    unmet: list[int] = field(default_factory=list)


def log_factors(boosts: Sequence[ScoreBoost], size: int) -> FloatArray:
    """(N,) the sum of the logarithms of all factors that hold for each item."""
    total = np.zeros(size, dtype=np.float32)
    for boost in boosts:
        total += np.float32(boost.log_factor) * boost.mask
    return total


def score_keys(scores: ScoreArray, *, logarithmic: bool) -> ScoreArray:
    """(c,) float64: scores as logarithms. A score of 0 counts as half of the least positive one: it can rise."""
    if logarithmic:
        return scores
    positive = scores > 0
    least = scores.min(where=positive, initial=np.inf)
    floor = least / 2 if np.isfinite(least) else 1.0
    return np.log(np.where(positive, scores, floor).astype(np.float64))


def ranked(keys: ScoreArray) -> IntArray:
    """(c,) positions, the greatest key first; equal ones stay in their order."""
    return np.argsort(-keys, kind="stable")


def boost_moves(rows: IntArray, keys: ScoreArray, boosts: Sequence[ScoreBoost]) -> dict[int, list[Move]]:
    """Returns by how many places each boost moves the items that it holds for, one boost after the other.

    Args:
        rows: (c,) distinct, in the order that they have without rules.
        keys: (c,) their scores as logarithms, without boosts.
    """
    moves: dict[int, list[Move]] = {}
    before = _places(keys)
    for boost in boosts:
        held = boost.mask[rows]
        keys = keys + boost.log_factor * held
        after = _places(keys)
        for at in np.flatnonzero(held & (before != after)).tolist():
            moves.setdefault(int(rows[at]), []).append(Move(boost.rule, int(before[at] - after[at])))
        before = after
    return moves


def settle_pins(pins: Sequence[PlacedPin], length: int) -> tuple[list[PlacedPin], list[PlacedPin]]:
    """Gives every pin a place of its own: of two at one place the first stays, the other goes to the next free one.

    A further pin of the same item and one whose place lies behind the list's end are left out.

    Returns:
        The pins at their places, and those among them that had to move.
    """
    settled: dict[int, PlacedPin] = {}
    moved, rows = [], set()
    for pin in pins:
        place = pin.place
        while place in settled:
            place += 1
        if pin.row in rows or place > length:
            continue
        rows.add(pin.row)
        settled[place] = pin._replace(place=place)
        if place != pin.place:
            moved.append(settled[place])
    return list(settled.values()), moved


def arrange(
    order: Sequence[int], *, pins: Sequence[PlacedPin] = (), caps: Sequence[Cap] = (), page: int, length: int
) -> Arranged:
    """Walks down an order until the list is full: pins stand at their places, and no page breaks a cap.

    Args:
        order: distinct allowed rows, best first.
        pins: of `settle_pins`; their rows are allowed.
        page: items of a page; the caps hold in each.
        length: items of the whole list.
    """
    found = Arranged()
    pinned = {pin.row: pin for pin in pins}
    placed: set[int] = set()
    held: list[int] = []
    position = 0
    while len(found.rows) < length:
        begin, size = len(found.rows), min(page, length - len(found.rows))
        counts = _Counts(caps)
        fixed: dict[int, int] = {}
        for pin in [pin for pin in pinned.values() if begin < pin.place <= begin + size]:
            broken = counts.take(pin.row)
            if broken is None:
                fixed[pin.place] = pin.row
            else:
                found.refused.append(pin)
                found.held_back[pin.row] = broken
                del pinned[pin.row]
                held.insert(0, pin.row)
        chosen: list[int] = []
        waiting, held = held, []
        while len(fixed) + len(chosen) < size and (waiting or position < len(order)):
            if waiting:
                row = waiting.pop(0)
                if row in pinned or row in placed:
                    continue
            else:
                row, position = order[position], position + 1
                if row in pinned or row in placed or row in found.held_back:
                    continue
            broken = counts.take(row)
            if broken is None:
                chosen.append(row)
            else:
                found.held_back.setdefault(row, broken)
                held.append(row)
        held += waiting
        # Where no other item is left, pins of later places fill the page.
        for pin in sorted(pinned.values(), key=lambda pin: pin.place):
            if len(fixed) + len(chosen) == size:
                break
            if pin.place <= begin + size:
                continue
            broken = counts.take(pin.row)
            if broken is None:
                chosen.append(pin.row)
                placed.add(pin.row)
                del pinned[pin.row]
            else:
                found.held_back.setdefault(pin.row, broken)
                held.append(pin.row)
        found.rows += _page(fixed, chosen, begin)
        placed.update(fixed.values())
        for row in fixed.values():
            del pinned[row]
        if len(fixed) + len(chosen) < size:
            found.unmet = sorted({found.held_back[row] for row in held})
            break
    return found


class _Counts:
    """How many items of each value a page has."""

    def __init__(self, caps: Sequence[Cap]) -> None:
        self._caps = [(cap, Counter[Hashable]()) for cap in caps]

    def take(self, row: int) -> int | None:
        """Counts an item, where no cap forbids it; else returns the rule that does."""
        for cap, counts in self._caps:
            if any(counts[value] >= cap.most for value in cap.values.get(row, ())):
                return cap.rule
        for cap, counts in self._caps:
            counts.update(set(cap.values.get(row, ())))
        return None


def _page(fixed: Mapping[int, int], chosen: Sequence[int], begin: int) -> list[int]:
    """Merges pinned rows by place and the others; a pin whose place the page does not reach stands at its end."""
    rows, others, left = [], iter(chosen), dict(fixed)
    for place in range(begin + 1, begin + len(fixed) + len(chosen) + 1):
        row = left.pop(place, None)
        if row is None:
            row = next(others, None)
        if row is None:
            row = left.pop(min(left))
        rows.append(row)
    return rows


def moves_of(
    order: Sequence[int], arranged: Arranged, without_pins: Arranged, pins: Collection[PlacedPin]
) -> dict[int, list[Move]]:
    """Returns by how many places caps and pins moved the items that they hold for.

    Args:
        order: before both.
        without_pins: the list under the caps alone.
    """
    first, capped, last = (
        {row: at for at, row in enumerate(rows)} for rows in (order, without_pins.rows, arranged.rows)
    )
    moves: dict[int, list[Move]] = {}
    for row, rule in without_pins.held_back.items():
        if row in first and row in capped and capped[row] != first[row]:
            moves.setdefault(row, []).append(Move(rule, first[row] - capped[row]))
        elif row in first and row not in capped and row not in last:
            moves.setdefault(row, []).append(Move(rule, None))
    for pin in pins:
        if pin.row in last and capped.get(pin.row) != last[pin.row]:
            places = capped[pin.row] - last[pin.row] if pin.row in capped else None
            moves.setdefault(pin.row, []).append(Move(pin.rule, places))
    return moves


def _places(keys: ScoreArray) -> IntArray:
    places = np.empty(len(keys), dtype=np.int64)
    places[ranked(keys)] = np.arange(len(keys))
    return places
