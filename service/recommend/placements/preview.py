"""Compares the list of a placement that is not stored yet with the list as it is now. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from isrf.method.interest import BoolArray
from service.recommend.query_models import Answer


class ItemMove(NamedTuple):
    """An item whose place differs between two lists.

    Attributes:
        before, after: its places, from 1 on; None where a list does not have it.
        rules: what each rule of the later list did to it, as in `Answer.moves`.
        cause: "filter" where the later list's filter, category or prices forbid it.
    """

    row: int
    before: int | None
    after: int | None
    rules: list[dict[str, Any]]
    cause: Literal["filter"] | None


@dataclass(frozen=True, kw_only=True)
class PlacementPreview:
    """Two lists and how they differ.

    Attributes:
        before_is: whether `before` is the stored placement's list, or the same placement's without its rules.
        rules: for each rule of the later list its number, its kind, and how many items it concerns.
    """

    before_is: Literal["stored", "without_rules"]
    before: Answer
    after: Answer
    moves: list[ItemMove]
    rules: list[dict[str, Any]]


def item_moves(
    before: Answer, after: Answer, moved: Mapping[int, list[dict[str, Any]]], passing: BoolArray
) -> list[ItemMove]:
    """Returns the items whose place differs: those of `after` in its order, then those that it does not have.

    Args:
        moved: by row what each rule of `after` did to the item.
        passing: (N,) the items that pass the filter of `after`.
    """
    first, last = (
        {item.item_index: place for place, item in zip(one.places, one.items, strict=True)} for one in (before, after)
    )
    return [
        ItemMove(row, first.get(row), last.get(row), moved.get(row, []), None if passing[row] else "filter")
        for row in dict.fromkeys([*last, *first])
        if first.get(row) != last.get(row)
    ]


def rule_counts(
    kinds: Sequence[str], moved: Mapping[int, list[dict[str, Any]]], concerned: Collection[int]
) -> list[dict[str, Any]]:
    """Returns for each rule how many items it moved, put or held back.

    Args:
        kinds: of all rules, in their order.
        moved: by row what each rule did to the item.
        concerned: rows of the items that count: the list has them, or would have them without its rules.
    """
    counts = [0] * len(kinds)
    for row in concerned:
        for number in {move["rule"] for move in moved.get(row, ())}:
            counts[number - 1] += 1
    return [
        {"rule": number, "kind": kind, "items": count}
        for number, (kind, count) in enumerate(zip(kinds, counts, strict=True), start=1)
    ]
