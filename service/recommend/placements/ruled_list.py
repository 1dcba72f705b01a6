"""Makes one list under a placement's rules from the orders of its kinds. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from isrf.method.interest import BoolArray, FloatArray, IntArray
from isrf.method.ranking.arrange import arrange
from isrf.method.ranking.boosts import ScoreArray, ScoreBoost, boost_moves, ranked, score_keys
from isrf.method.ranking.fusion import Fused
from isrf.method.ranking.placed_rules import Arranged, Move, PlacedPin, Quota, moves_of, settle_pins
from isrf.method.recommend.request import SCORE_DIGITS, Ranked, RankedItem
from service.recommend.placements.active_rules import ActiveRules
from service.recommend.placements.placement import Kind
from service.recommend.warnings import rule_not_met

LOGARITHMIC: frozenset[Kind] = frozenset({"similar", "together"})
"""Kinds whose score is a sum of logarithms, beside for-user's; a factor is added to it as its logarithm."""
WITHOUT_SCORE: frozenset[Kind] = frozenset({"recently-viewed"})
"""Kinds that have an order alone: a factor multiplies 1/place."""


Moves: TypeAlias = dict[int, list[dict[str, Any]]]
"""By row: the rules that moved the item, and by how many places."""


class Scored(NamedTuple):
    """The items of a kind, best first, and what their order comes from."""

    items: list[RankedItem]  # with their boosts
    rows: IntArray  # (c,) all candidates, those that `items` cuts off too, in the order of the boosted scores
    keys: ScoreArray  # (c,) their scores as logarithms, without boosts
    behind: Fused | None = None  # the candidates, where those behind `items` may be listed too


def boosted_model(answer: Ranked, boost: FloatArray | None, *, whole: bool = False) -> Scored:
    """Returns the model's list, whose request brought the boost (N,) already.

    Args:
        whole: whether the candidates behind it may be listed too.
    """
    fused = answer.fused
    if fused is None:
        return boosted_kind("popular", answer.items, ())
    keys = np.asarray(fused.scores, dtype=np.float64)
    unboosted = keys if boost is None else keys - boost[fused.items]
    return Scored(answer.items, fused.items, unboosted, fused if whole else None)


def boosted_kind(
    kind: Kind, items: Sequence[RankedItem], boosts: Sequence[ScoreBoost], more: Sequence[RankedItem] = ()
) -> Scored:
    """Orders the items of a kind by their boosted scores.

    Args:
        items: best first.
        more: items of the same kind that were looked up for a rule, with scores that compare with those of `items`.
    """
    known = {item.item_index for item in items}
    every = [*items, *(item for item in more if item.item_index not in known)]
    rows = np.array([item.item_index for item in every], dtype=np.int64)
    if kind in WITHOUT_SCORE:
        scores = 1.0 / np.arange(1, len(every) + 1)
    else:
        scores = np.array([item.score for item in every], dtype=np.float64)
    keys = score_keys(scores, logarithmic=kind in LOGARITHMIC)
    factors = np.zeros(len(rows))
    for boost in boosts:
        factors += boost.log_factor * boost.mask[rows]
    order = ranked(keys + factors)
    shown: list[RankedItem] = []
    for at in order.tolist():
        item, factor = every[at], float(factors[at])
        if factor and kind not in WITHOUT_SCORE:
            score = item.score + factor if kind in LOGARITHMIC else min(item.score * np.exp(factor), 1e300)
            item = item._replace(score=round(float(score), SCORE_DIGITS + 2))
        shown.append(item)
    return Scored(shown, rows[order], keys[order])


class RuledList:
    """A list that is filled kind by kind, and holds its placement's rules."""

    def __init__(self, active: ActiveRules, *, page: int, length: int, explain: bool) -> None:
        self._active, self._page, self._length, self._explain = active, page, length, explain
        self._items: dict[int, RankedItem] = {}
        self._behind: list[Fused] = []  # candidates that a kind did not list by itself
        self._order: list[int] = []
        self._ordered: set[int] = set()
        self._pins: list[PlacedPin] = []
        self._moves: dict[int, list[Move]] = {}
        self._other_moves: dict[int, list[Move]] = {}  # of candidates that are cut off
        self._plain: dict[int, None] = {}  # rows in the order that they have without rules, where reasons are wanted
        self._arranged = Arranged()
        self.warnings = list(active.warnings)

    @property
    def is_full(self) -> bool:
        return len(self._arranged.rows) >= self._length

    def pin(
        self,
        scored: Scored,
        allowed: BoolArray,
        popular: Callable[[BoolArray], int | None],
        forbidden: Mapping[int, str],
    ) -> None:
        """Finds the pins' items among the first kind's.

        Args:
            allowed: (N,) of the first kind.
            popular: returns the most popular of some items (N,), which a pin gets where the kind has none of its
                condition.
            forbidden: by row, why a pinned item is not allowed.
        """
        pins: list[PlacedPin] = []
        for wanted in self._active.pins:
            taken = {pin.row for pin in pins}
            row = wanted.row
            if wanted.mask is not None:
                held = scored.rows[wanted.mask[scored.rows] & allowed[scored.rows]].tolist()
                row = next((row for row in held if row not in taken), None)
                if row is None:
                    left = wanted.mask & allowed
                    left[list(taken)] = False
                    row = popular(left)
            if row is not None and allowed[row] and row not in taken:
                pins.append(PlacedPin(wanted.rule, wanted.place, row))
            elif wanted.place <= self._page:
                why = "no allowed item is left for which its condition holds"
                if row is not None:
                    why = "another pin has its item" if row in taken else forbidden[row]
                self.warnings.append(rule_not_met(wanted.rule, why))
        self._pins, moved = settle_pins(pins, self._length)
        self.warnings += [
            rule_not_met(pin.rule, f"another pin has its place, and its item stands at place {pin.place}")
            for pin in moved
        ]

    def add(self, items: Sequence[RankedItem], scored: Scored) -> bool:
        """Adds what a kind found, and arranges the list anew; returns whether it got longer.

        Args:
            items: in their order; those that the list knows already, or that come twice, are left out.
            scored: what the order comes from.
        """
        rows: list[int] = []
        for item in items:
            if item.item_index not in self._items:
                self._items[item.item_index] = item
                rows.append(item.item_index)
        if scored.behind is not None:
            rows += scored.rows[len(scored.items) :].tolist()
            self._behind.append(scored.behind)
        if self._ordered:
            rows = [row for row in rows if row not in self._ordered]
        self._order += rows
        self._ordered.update(rows)
        if self._explain:
            self._explain_boosts(rows, scored)
        before = len(self._arranged.rows)
        self._arranged = self._arrange(self._pins, self._active.quotas)
        return len(self._arranged.rows) > before

    def listed(self) -> list[RankedItem]:
        """The list; an item that only a pin brings has the source `pin` and no score."""
        rows = self._arranged.rows
        missing = [row for row in rows if row not in self._items]
        known = self._items | _brought(missing, self._behind) if missing else self._items
        return [known[row] for row in rows]

    def unmet(self) -> list[dict[str, Any]]:
        """Warns of the rules that the list could not follow, as far as its first page tells."""
        found = [
            rule_not_met(pin.rule, "an at_most rule forbids its item on this page")
            for pin in self._arranged.refused
            if pin.place <= self._page
        ]
        least = {quota.rule: quota.least for quota in self._active.quotas}
        found += [
            rule_not_met(
                short.rule,
                f"{short.held} of the {least[short.rule]} items that it wants stand on this page, which has room for "
                f"{self._page}; there is no other one, or another rule forbids it",
            )
            for short in self._arranged.short
            if short.begin == 0
        ]
        if len(self._arranged.rows) < self._page:
            found += [
                rule_not_met(rule, "every further item would be one too many, and the list ends before")
                for rule in self._arranged.unmet
            ]
        return found

    def wants_more(self, allowed: BoolArray) -> bool:
        """Whether more of the allowed items (N,) can fill the list or meet a quota."""
        if not self.is_full:
            return True
        short = {short.rule for short in self._arranged.short}
        wanted = [quota.mask & allowed for quota in self._active.quotas if quota.rule in short]
        return any(int(mask.sum()) > int(mask[self._order].sum()) for mask in wanted)

    def moves(self, kinds: Sequence[str]) -> Moves:
        """Returns by row which rule moved the item, by how many places; of items outside of the list too.

        Args:
            kinds: of all rules, in their order.
        """
        without_pins = without_quotas = self._arranged
        if self._active.quotas:
            without_pins = without_quotas = self._arrange(self._pins, ())
        if self._pins:
            without_pins = self._arrange((), ())
        later = moves_of(
            self._order,
            self._arranged,
            without_quotas=without_quotas,
            without_pins=without_pins,
            pins=self._pins,
        )
        boosts = {**self._other_moves, **self._moves}
        return {
            row: [
                {"rule": move.rule, "kind": kinds[move.rule - 1], "moved": move.places}
                for move in (*boosts.get(row, ()), *later.get(row, ()))
            ]
            for row in boosts.keys() | later.keys()
        }

    def concerned(self, n: int) -> set[int]:
        """Returns the rows of the first n places, and of those that they have without pins and caps or any rule."""
        return {*self._arranged.rows[:n], *self._order[:n], *list(self._plain)[:n]}

    def _explain_boosts(self, rows: Sequence[int], scored: Scored) -> None:
        """Notes what each boost did to the items of a kind, and their order without rules.

        Args:
            rows: those that the kind adds to the list.
        """
        by_row = np.argsort(scored.rows, kind="stable")
        plain = scored.rows[by_row[ranked(scored.keys[by_row])]]
        self._plain |= dict.fromkeys([*self._plain, *plain.tolist()])
        moves = boost_moves(scored.rows[by_row], scored.keys[by_row], self._active.boosts)
        added = set(rows)
        for row, found in moves.items():
            (self._moves if row in added else self._other_moves).setdefault(row, found)

    def _arrange(self, pins: Sequence[PlacedPin], quotas: Sequence[Quota]) -> Arranged:
        caps = self._active.caps
        return arrange(self._order, pins=pins, caps=caps, quotas=quotas, page=self._page, length=self._length)


def _brought(rows: Sequence[int], behind: Sequence[Fused]) -> dict[int, RankedItem]:
    """Returns items that no kind listed by itself: candidates of the model, or else items of pins."""
    found = {row: RankedItem(row, 0.0, "pin") for row in rows}
    for fused in reversed(behind):
        positions = {row: at for at, row in enumerate(fused.items.tolist())}
        places = np.array([positions[row] for row in rows if row in positions], dtype=np.int64)
        scores, sources = fused.scores[places].tolist(), fused.sources_at(places)
        for row, score, source in zip(fused.items[places].tolist(), scores, sources, strict=True):
            found[row] = RankedItem(row, round(score, SCORE_DIGITS), source)
    return found
