"""The rules of a placement as they count now: their conditions as masks, their attributes as columns.

A rule that the current release cannot follow is left out with a warning, so that the placement goes on.
"""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from isrf.contract.errors import RequestError
from isrf.contract.shown import printable
from isrf.method.interest import BoolArray, FloatArray, IntArray
from isrf.method.ranking.boosts import ScoreBoost, log_factors
from isrf.method.ranking.placed_rules import Cap, Quota
from service.recommend.placements.coded_values import CodedColumns, CodedValues
from service.recommend.placements.rule_fields import AtMostRule, ListRule
from service.recommend.warnings import rule_left_out
from service.release.catalogue import Catalogue
from service.release.conditions import BOUGHT, DISLIKED, NOW, RequestValues
from service.release.conditions.attributes import AttributeTable

CONDITION_NAMES = frozenset((NOW, BOUGHT, DISLIKED))
LOOKED_UP = 500
"""Most items that a list looks up for the conditions of its rules, boosts first. A condition that holds for more
than are left moves the items that the list has found anyway."""


class WantedPin(NamedTuple):
    """A pin whose item may still have to be found."""

    rule: int
    place: int
    row: int | None
    mask: BoolArray | None  # (N,)


class CapColumn(NamedTuple):
    """An attribute and how many items of one of its values a page may have."""

    rule: int
    most: int
    values: CodedValues


@dataclass(kw_only=True)
class ActiveRules:
    """The rules that count for one call; not to be changed, other calls may share them.

    A rule's number is its position among the placement's, from 1 on.
    """

    boosts: list[ScoreBoost] = field(default_factory=list)
    pins: list[WantedPin] = field(default_factory=list)
    columns: list[CapColumn] = field(default_factory=list)
    quotas: list[Quota] = field(default_factory=list)
    warnings: list[dict[str, Any]] = field(default_factory=list)

    def looked_up(self, allowed: BoolArray) -> IntArray:
        """(k,) rows that become candidates because of a rule, at most `LOOKED_UP`: raised, or wanted in a page."""
        masks = [boost.mask for boost in self.boosts if boost.log_factor > 0]
        masks += [pin.mask for pin in self.pins if pin.mask is not None]
        masks += [quota.mask for quota in self.quotas]
        pinned = [pin.row for pin in self.pins if pin.row is not None and allowed[pin.row]]
        found, left = [np.array(pinned, dtype=np.int64)], LOOKED_UP
        for mask in masks:
            both = mask & allowed
            count = int(np.count_nonzero(both))
            if count <= left:
                found.append(np.flatnonzero(both))
                left -= count
        return np.unique(np.concatenate(found)) if len(found) > 1 or pinned else found[0]

    @property
    def num_bytes(self) -> int:
        """What the masks take, and `boost`."""
        masks = [boost.mask for boost in self.boosts] + [quota.mask for quota in self.quotas]
        masks += [pin.mask for pin in self.pins if pin.mask is not None]
        distinct = {id(mask): mask.nbytes for mask in masks}
        return sum(distinct.values()) + (4 * len(masks[0]) if self.boosts else 0)

    @cached_property
    def boost(self) -> FloatArray | None:
        """(N,) what the boosts add to scores of the model; None where there is none."""
        return log_factors(self.boosts, len(self.boosts[0].mask)) if self.boosts else None

    @property
    def caps(self) -> list[Cap]:
        return [Cap(of.rule, of.most, of.values.of) for of in self.columns]


def pins_at(rules: Sequence[ListRule], now_s: float) -> tuple[int, ...]:
    """Returns the numbers of the pins that count at a moment."""
    return tuple(
        number for number, rule in enumerate(rules, start=1) if rule.pin is not None and rule.pin.counts_at(now_s)
    )


def are_cached(rules: Sequence[ListRule], catalogue: Catalogue, values: RequestValues, columns: CodedColumns) -> bool:
    """Whether `active_rules` takes no longer than some microseconds a rule."""
    table = catalogue.attributes.built
    if table is None:
        return False
    texts = _conditions(rules)
    names = [rule.at_most.attribute for rule in rules if rule.at_most is not None]
    return all(catalogue.conditions.find(text, values, CONDITION_NAMES) is not None for text in texts) and all(
        columns.find(table, name) is not None for name in names if name in table.columns
    )


def read_the_request(rules: Sequence[ListRule], catalogue: Catalogue) -> bool:
    """Whether a condition reads the time or the user, so that it may hold for other items in the next call."""
    return any(catalogue.conditions.compile(text, CONDITION_NAMES).reads for text in _conditions(rules))


def _conditions(rules: Sequence[ListRule]) -> list[str]:
    return [rule.condition for rule in rules if rule.condition is not None]


def active_rules(
    rules: Sequence[ListRule], catalogue: Catalogue, values: RequestValues, columns: CodedColumns
) -> ActiveRules:
    """Reads the rules for one call; run it in a thread unless `are_cached`."""
    active = ActiveRules()
    counting = pins_at(rules, values.now_s)
    for number, rule in enumerate(rules, start=1):
        try:
            if rule.boost is not None:
                mask = catalogue.conditions.mask(rule.boost.where, values, CONDITION_NAMES)
                active.boosts.append(ScoreBoost(number, mask, math.log(rule.boost.by)))
            elif rule.pin is not None and number in counting:
                active.pins.append(_pin(number, rule, catalogue, values))
            elif rule.at_least is not None:
                mask = catalogue.conditions.mask(rule.at_least.where, values, CONDITION_NAMES)
                active.quotas.append(Quota(number, rule.at_least.count, mask))
            elif rule.at_most is not None:
                table = check_attribute(rule.at_most, catalogue)
                found = columns.coded(table, rule.at_most.attribute)
                active.columns.append(CapColumn(number, rule.at_most.count, found))
        except RequestError as error:
            active.warnings.append(rule_left_out(number, error.message))
    return active


def _pin(number: int, rule: ListRule, catalogue: Catalogue, values: RequestValues) -> WantedPin:
    pin = rule.pin
    assert pin is not None
    if pin.where is not None:
        mask = catalogue.conditions.mask(pin.where, values, CONDITION_NAMES)
        return WantedPin(number, pin.place, None, mask)
    rows = catalogue.rows([pin.item_id or ""])
    if not rows:
        raise RequestError(
            "condition.invalid", f"there is no item {printable(pin.item_id or '')}.", fix="Pin another item."
        )
    return WantedPin(number, pin.place, rows[0], None)


def check_attribute(at_most: AtMostRule, catalogue: Catalogue) -> AttributeTable:
    """Returns the items' columns; raises `RequestError` where they lack the attribute."""
    table = catalogue.attributes.table()
    if at_most.attribute not in table.columns:
        near = difflib.get_close_matches(at_most.attribute, table.columns, n=1)
        fix = f"Did you mean {near[0]!r}?" if near else "Name an attribute of the items."
        raise RequestError("condition.invalid", f"no item has an attribute {printable(at_most.attribute)}.", fix=fix)
    return table
