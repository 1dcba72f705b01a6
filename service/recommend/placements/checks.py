"""Checks a placement before it is put: refuses what cannot work, warns of what would do nothing at present. Pure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from isrf.contract.errors import RequestError
from isrf.contract.shown import printable
from isrf.method.interest import BoolArray
from service.recommend.placements.active_rules import CONDITION_NAMES, check_attribute
from service.recommend.placements.placement import Placement
from service.recommend.placements.rule_fields import ListRule, PinRule, seconds_of
from service.recommend.warnings import nothing_allowed, pins_at_one_place, rule_without_effect, unknown_category
from service.release.catalogue import Catalogue
from service.release.conditions import BOUGHT, DISLIKED, RequestValues

MOST_NAMED = 5
"""Conditions and attributes that one refusal names."""


def check_placement(placement: Placement, catalogue: Catalogue, now_s: float) -> list[dict[str, Any]]:
    """Returns warnings of what counts but surely is not meant. Run it in a thread: it may evaluate 51 conditions.

    Raises:
        RequestError: `condition.invalid`, conditions or attributes do not fit the items of the current release.
    """
    values, errors = RequestValues(now_s=now_s), list[tuple[str, RequestError]]()
    masks: dict[int, BoolArray | None] = {}  # by the rule's number, 0 for the filter; None: it depends on the user
    for number, rule in [(0, None), *enumerate(placement.rules, start=1)]:
        text = placement.filter if rule is None else rule.condition
        try:
            if text is not None:
                masks[number] = _mask(text, catalogue, values)
            if rule is not None and rule.at_most is not None:
                check_attribute(rule.at_most, catalogue)
        except RequestError as error:
            errors.append((f"rule {number}" if number else "filter", error))
    if errors:
        raise _joined(errors)
    allowed = catalogue.allowed((), placement.item_filter)
    of_filter = masks.pop(0, None)
    if of_filter is not None:
        allowed &= of_filter
    warnings = unknown_category(catalogue, placement.item_filter.categories)
    if not allowed.any():
        return [*warnings, nothing_allowed()]
    return [*warnings, *_without_effect(placement.rules, masks, catalogue, allowed), *_at_one_place(placement, now_s)]


def _mask(text: str, catalogue: Catalogue, values: RequestValues) -> BoolArray | None:
    mask = catalogue.conditions.mask(text, values, CONDITION_NAMES)
    reads = catalogue.conditions.compile(text, CONDITION_NAMES).reads
    return None if BOUGHT in reads or DISLIKED in reads else mask


def _joined(errors: Sequence[tuple[str, RequestError]]) -> RequestError:
    """Returns one refusal for all that is wrong."""
    if len(errors) == 1:
        ((filter_or_rule, error),) = errors
        return RequestError("condition.invalid", f"{filter_or_rule}: {error.message}", fix=error.fix)
    each_with_its_error = " ".join(f"{where}: {error}" for where, error in errors[:MOST_NAMED])
    num_more = len(errors) - MOST_NAMED
    more = "" if num_more <= 0 else f" There are {num_more} more."
    return RequestError("condition.invalid", f"{each_with_its_error}{more}", fix="Correct each of them.")


def _without_effect(
    rules: Sequence[ListRule], masks: Mapping[int, BoolArray | None], catalogue: Catalogue, allowed: BoolArray
) -> list[dict[str, Any]]:
    """Warns of conditions that hold for no allowed item (N,), and of pinned items that no list may show."""
    found: list[dict[str, Any]] = []
    for number, rule in enumerate(rules, start=1):
        mask = masks.get(number)
        if mask is not None and not (mask & allowed).any():
            which = "the filter allows" if (mask & catalogue.offered).any() else "is on offer"
            found.append(rule_without_effect(number, f"its condition holds for no item that {which} at present"))
        if rule.pin is not None and rule.pin.item_id is not None:
            item_id, rows = printable(rule.pin.item_id), catalogue.rows([rule.pin.item_id])
            if not rows:
                found.append(rule_without_effect(number, f"there is no item {item_id}"))
            elif not allowed[rows[0]]:
                why = "does not pass the filter" if catalogue.offered[rows[0]] else "is not on offer"
                found.append(rule_without_effect(number, f"the item {item_id} {why} at present"))
    return found


def _at_one_place(placement: Placement, now_s: float) -> list[dict[str, Any]]:
    """Warns of pins that want one place at the same time."""
    pins = [(number, rule.pin) for number, rule in enumerate(placement.rules, start=1) if rule.pin is not None]
    found: list[dict[str, Any]] = []
    for position, (number, pin) in enumerate(pins):
        rival = next((first for first, other in pins[:position] if _meet(pin, other, now_s)), None)
        if rival is not None:
            found.append(pins_at_one_place(rival, number, pin.place))
    return found


def _meet(one: PinRule, other: PinRule, now_s: float) -> bool:
    """Whether two pins want one place at one moment, now or later."""
    begin = max([now_s, *(seconds_of(pin.from_) for pin in (one, other) if pin.from_ is not None)])
    end = min([math.inf, *(seconds_of(pin.until) for pin in (one, other) if pin.until is not None)])
    return one.place == other.place and begin < end
