"""What a shop says of its items between two releases, as the service keeps it and the offline job reads it back.

An item's entry holds every field that was ever said, with its value and the moment. A field that was never said stands
as the release has it; null takes a value away. Names and format only, no client of any store.

    isrf:{items}:h  hash  item_id → entry
    isrf:{items}:o  zset  item_id, scored by the number of its last change: what is new is a range
    isrf:{items}:n  hash  `id` of the counting (another one: start anew), `n` the number of the last change
    isrf:{items}:a  set   item_ids that no release had when they were put
"""

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from isrf.contract.errors import StoreError

ENTRIES_KEY = "isrf:{items}:h"
ORDER_KEY = "isrf:{items}:o"
COUNT_KEY = "isrf:{items}:n"
ADDED_KEY = "isrf:{items}:a"

TEXT_FIELDS = ("title", "brand", "description")
AVAILABLE, HIDDEN, METADATA = "available", "hidden", "metadata"
FIELDS = (*TEXT_FIELDS, "categories", "price", METADATA, AVAILABLE, HIDDEN)


MAX_ITEM_BYTES = 16_384
"""Of all that is kept of an item, as JSON: every replica keeps it until a release holds it."""
_SMALL = ("price", AVAILABLE, HIDDEN)
"""Fields that never have more than a few bytes, and never wait: a sold-out item is one, however much is said of it."""

ROW_FIELDS = ("item_id", *FIELDS)
"""Of a catalogue row; every other key of one is the shop's own (`METADATA`)."""


class Said(NamedTuple):
    """A field's value and when the service was told."""

    value: Any
    at: float  # seconds


ItemEntry = Mapping[str, Said]


def merged(entry: ItemEntry | None, fields: Mapping[str, Any], at: float) -> dict[str, Said]:
    """The entry after another change; fields that the change leaves out stay."""
    return {**(entry or {}), **{name: Said(value, at) for name, value in fields.items()}}


def size_of(fields: Mapping[str, Any]) -> int:
    """Bytes of what is said of an item, price and flags aside."""
    told = {name: value for name, value in fields.items() if name not in _SMALL}
    return len(json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode())


def is_too_much(before: ItemEntry | None, after: ItemEntry) -> bool:
    """Whether a change makes more of an entry than is kept; what was kept before there was a bound may shrink."""
    size = size_of(values_of(after))
    return size > MAX_ITEM_BYTES and size > size_of(values_of(before or {}))


def changed_row(row: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the shop's catalogue after what was said; a hidden item stays in it, for the events that name it."""
    changed = dict(row)
    for name, value in fields.items():
        if name == METADATA:
            nested = changed.pop(METADATA, None)  # as a row may name the shop's own fields, too
            changed |= nested if isinstance(nested, Mapping) else {}
            if value is None:
                changed = {key: kept for key, kept in changed.items() if key in ROW_FIELDS}
            changed |= {key: own for key, own in (value or {}).items() if key not in ROW_FIELDS}
        elif value is None or (name == HIDDEN and not value):
            changed.pop(name, None)
        else:
            changed[name] = value
    return changed


def values_of(entry: ItemEntry) -> dict[str, Any]:
    """What was said, without when."""
    return {name: said.value for name, said in entry.items()}


def encode_entry(entry: ItemEntry) -> bytes:
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def decode_entry(payload: bytes) -> dict[str, Said]:
    """Raises `StoreError` (`store.items_corrupt`) on anything that `encode_entry` did not write."""
    try:
        entry = {name: Said(value, float(at)) for name, (value, at) in json.loads(payload).items()}
        for name, said in entry.items():
            if not _can_be(name, said.value) or not 0 <= said.at < math.inf:
                raise ValueError(f"{name[:40]!r} is no field with a value and a moment")
        return entry
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreError(
            "store.items_corrupt", f"a kept item cannot be read: {error}.", fix="Restore the store from a backup."
        ) from None


def _can_be(name: str, value: Any) -> bool:
    """Whether the service may have written this value of a field."""
    if value is None or name not in FIELDS:
        return True  # a later version may know more fields
    if name in TEXT_FIELDS:
        return isinstance(value, str)
    if name == "categories":
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if name == "price":
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
    if name == METADATA:
        return isinstance(value, dict)
    return isinstance(value, bool)
