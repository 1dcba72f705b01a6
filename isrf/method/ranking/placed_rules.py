"""The rules that hold places of a list (pins, caps and quotas), the list that they make, and what they moved.

`isrf.method.ranking.arrange` makes the list. Rows in, rows out.
"""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from isrf.method.interest import BoolArray


class PlacedPin(NamedTuple):
    """An item and the place that it is to stand at, from 1 on."""

    rule: int
    place: int
    row: int


class Cap(NamedTuple):
    """At most `most` items of one value in a page.

    Attributes:
        values: returns the distinct values of each item of some rows; none where the cap does not limit an item.
    """

    rule: int
    most: int
    values: Callable[[Sequence[int]], Sequence[Sequence[Hashable]]]


class Quota(NamedTuple):
    """At least `least` items of a condition in a page."""

    rule: int
    least: int
    mask: BoolArray  # (N,)


class Shortfall(NamedTuple):
    """A page with fewer items of a quota than it wants."""

    rule: int
    begin: int  # items before the page
    held: int  # items of the quota in the page


class Move(NamedTuple):
    """What one rule did to one item: places towards the beginning, negative ones towards the end."""

    rule: int
    places: int | None  # None: the rule alone brings the item into the list, or keeps it out


@dataclass(kw_only=True)
class Arranged:
    """A list under pins, caps and quotas.

    Attributes:
        rows: in order; shorter than asked only where every further item breaks a cap.
        held_back: the cap that first kept an item off a page, by row.
        refused: pins that a cap forbids.
        unmet: caps that end the list early.
        brought: the quota that brought an item into its page, by row.
        short: the pages in which a quota is not met.
    """

    rows: list[int] = field(default_factory=list)
    held_back: dict[int, int] = field(default_factory=dict)
    refused: list[PlacedPin] = field(default_factory=list)
    unmet: list[int] = field(default_factory=list)
    brought: dict[int, int] = field(default_factory=dict)
    short: list[Shortfall] = field(default_factory=list)


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


def moves_of(
    order: Sequence[int],
    arranged: Arranged,
    *,
    without_quotas: Arranged,
    without_pins: Arranged,
    pins: Collection[PlacedPin],
) -> dict[int, list[Move]]:
    """Returns by how many places caps, pins and quotas moved the items that they hold for.

    Args:
        order: before all of them.
        without_quotas: the list under caps and pins.
        without_pins: the list under the caps alone.
    """
    first, capped, pinned, last = (
        {row: at for at, row in enumerate(rows)}
        for rows in (order, without_pins.rows, without_quotas.rows, arranged.rows)
    )
    moves: dict[int, list[Move]] = {}
    for row, rule in without_pins.held_back.items():
        if row in first and row in capped and capped[row] != first[row]:
            moves.setdefault(row, []).append(Move(rule, first[row] - capped[row]))
        elif row in first and row not in capped and row not in last:
            moves.setdefault(row, []).append(Move(rule, None))
    for pin in pins:
        if pin.row in pinned and capped.get(pin.row) != pinned[pin.row]:
            places = capped[pin.row] - pinned[pin.row] if pin.row in capped else None
            moves.setdefault(pin.row, []).append(Move(pin.rule, places))
    for row, rule in arranged.brought.items():
        if pinned.get(row) != last[row]:
            moves.setdefault(row, []).append(Move(rule, pinned[row] - last[row] if row in pinned else None))
    return moves
