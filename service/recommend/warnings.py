"""The warnings of an answer, each with a stable code."""

from collections.abc import Sequence
from typing import Any, Literal

from isrf.method.interest import BoolArray
from service.recommend.query_models import UserView
from service.release.catalogue import Catalogue

WarningCode = Literal[
    "store_unavailable",
    "unknown_user",
    "no_known_words",
    "unknown_items",
    "unknown_category",
    "fewer_items",
    "end_of_list",
    "unknown_candidates",
    "unavailable_candidates",
    "misnamed_field",
    "kind_found_nothing",
    "placements_not_current",
    "rule_left_out",
    "rule_not_met",
    "rule_without_effect",
    "pins_at_one_place",
    "nothing_allowed",
    "stored_placement_fails",
    "unknown_placement",
]


def warning(code: WarningCode, message: str, **more: Any) -> dict[str, Any]:
    return {"code": code, "message": message, **more}


def fewer_items(count: int) -> dict[str, Any]:
    return warning("fewer_items", f"Only {count} items are allowed.")


def kind_found_nothing(kind: str, why: str) -> dict[str, Any]:
    return warning("kind_found_nothing", f"{kind}: {why}.")


def kind_needs(kind: str, needs: str, brings: str) -> dict[str, Any]:
    return warning("kind_found_nothing", f"{kind} needs {needs}; the call gives {brings}.")


def placements_state(*, is_current: bool) -> list[dict[str, Any]]:
    """Warns of placements that may have changed since the store was last read."""
    if is_current:
        return []
    return [warning("placements_not_current", "The store could not be read; the last known placements answer.")]


def store_unavailable() -> dict[str, Any]:
    message = "User state could not be read; the answer is made without what the store knows of the user."
    return warning("store_unavailable", message)


def rule_left_out(rule: int, why: str) -> dict[str, Any]:
    return warning("rule_left_out", f"The list was made without rule {rule}: {why}")


def rule_not_met(rule: int, why: str) -> dict[str, Any]:
    return warning("rule_not_met", f"Rule {rule}: {why}.")


def rule_without_effect(rule: int, why: str) -> dict[str, Any]:
    return warning("rule_without_effect", f"Rule {rule} does nothing: {why}.")


def pins_at_one_place(first: int, second: int, place: int) -> dict[str, Any]:
    message = (
        f"Rules {first} and {second} both pin to place {place}: rule {first} stands there, rule {second} behind it."
    )
    return warning("pins_at_one_place", message)


def nothing_allowed() -> dict[str, Any]:
    return warning("nothing_allowed", "No item on offer passes the filter, the category and the prices at present.")


def unknown_placement(name: str) -> dict[str, Any]:
    message = f"There is no placement {name!r}: before is the list without rules."
    return warning("unknown_placement", message)


def stored_placement_fails(why: str) -> dict[str, Any]:
    return warning("stored_placement_fails", f"The stored placement has no list: {why}")


def gone_items(count: int) -> dict[str, Any]:
    return warning("fewer_items", f"{count} items are not to be shown any more.")


def end_of_list(count: int) -> dict[str, Any]:
    return warning("end_of_list", f"The list has {count} items.")


def user_warnings(user: UserView) -> list[dict[str, Any]]:
    """Warns that user state could not be read, or that the user is unknown."""
    if not user.store_was_read:
        return [store_unavailable()]
    if not user.known:
        return [warning("unknown_user", "Neither the release nor an accepted event knows this user_id.")]
    return []


def unknown_history(count: int) -> list[dict[str, Any]]:
    return [warning("unknown_items", f"{count} items of the history are unknown.")] if count else []


def unknown_category(catalogue: Catalogue, categories: Sequence[str]) -> list[dict[str, Any]]:
    if all(map(catalogue.has_category, categories)):
        return []
    return [warning("unknown_category", "No item of the release is in this category.")]


def missing_candidates(candidates: Sequence[str], catalogue: Catalogue, allowed: BoolArray) -> list[dict[str, Any]]:
    """Warns of candidates that are unknown or not on offer, with their ids."""
    known = [item_id for item_id in dict.fromkeys(candidates) if catalogue.knows(item_id)]
    unknown = [item_id for item_id in dict.fromkeys(candidates) if not catalogue.knows(item_id)]
    gone = [item_id for item_id, row in zip(known, catalogue.rows(known), strict=True) if not allowed[row]]
    warnings = []
    if unknown:
        warnings.append(warning("unknown_candidates", f"{len(unknown)} candidates are unknown.", item_ids=unknown))
    if gone:
        warnings.append(warning("unavailable_candidates", f"{len(gone)} candidates are not on offer.", item_ids=gone))
    return warnings
