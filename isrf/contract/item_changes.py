"""Format of a shop's item changes between two releases: the service stores them, the offline job reads them.

An item's entry holds every field that the shop ever sent, with its value and its time. A field that the shop never sent
keeps the release's value; null removes a value. Keys and formats only, no client of any store.

    isrf:{items}:h  hash  item_id → entry
    isrf:{items}:o  zset  item_id, scored by the number of its last change, so that new changes are a range
    isrf:{items}:n  hash  `id` of the numbering (a reader starts anew when it changes), `n` the last change's number
    isrf:{items}:a  set   item_ids that no release had when the shop sent them
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
AVAILABLE, HIDDEN, METADATA, GROUP_ID = "available", "hidden", "metadata", "group_id"
FIELDS = (*TEXT_FIELDS, "categories", "price", GROUP_ID, METADATA, AVAILABLE, HIDDEN)


MAX_ITEM_BYTES = 16_384
"""Limit for an item's entry as JSON: every replica stores the entry until a release holds it."""
_SMALL = ("price", AVAILABLE, HIDDEN)
"""Fields of a few bytes that the limit does not count: a sold-out item must become so, however large its entry is."""

ROW_FIELDS = ("item_id", *FIELDS)
"""Our fields of a catalogue row; every other key is the shop's own (`METADATA`)."""


class FieldValue(NamedTuple):
    """A field's value and when the service received it."""

    value: Any
    at: float  # seconds


ItemEntry = Mapping[str, FieldValue]


def merged(entry: ItemEntry | None, fields: Mapping[str, Any], at: float) -> dict[str, FieldValue]:
    """The entry after another change; fields that the change leaves out stay."""
    return {**(entry or {}), **{name: FieldValue(value, at) for name, value in fields.items()}}


def size_of(fields: Mapping[str, Any]) -> int:
    """Bytes of an item's fields as JSON, without price and flags."""
    counted = {name: value for name, value in fields.items() if name not in _SMALL}
    return len(json.dumps(counted, ensure_ascii=False, separators=(",", ":")).encode())


def is_too_much(before: ItemEntry | None, after: ItemEntry) -> bool:
    """Whether a change makes an entry larger than the limit; an entry that is too large already may shrink."""
    size = size_of(values_of(after))
    return size > MAX_ITEM_BYTES and size > size_of(values_of(before or {}))


def changed_row(row: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the shop's catalogue after the changes; a hidden item stays, because events name it."""
    changed = dict(row)
    for name, value in fields.items():
        if name == METADATA:
            nested = changed.pop(METADATA, None)  # a row may also hold the shop's own fields in a nested object
            changed |= nested if isinstance(nested, Mapping) else {}
            if value is None:
                changed = {key: old for key, old in changed.items() if key in ROW_FIELDS}
            changed |= {key: new for key, new in (value or {}).items() if key not in ROW_FIELDS}
        elif value is None or (name == HIDDEN and not value):
            changed.pop(name, None)
        else:
            changed[name] = value
    return changed


def values_of(entry: ItemEntry) -> dict[str, Any]:
    """The values of an entry's fields, without their times."""
    return {name: field.value for name, field in entry.items()}


def encode_entry(entry: ItemEntry) -> bytes:
    """The entry as JSON, for storing."""
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def decode_entry(payload: bytes) -> dict[str, FieldValue]:
    """Parses a stored entry.

    Raises:
        StoreError: `store.items_corrupt`, the payload is nothing that `encode_entry` writes.
    """
    try:
        entry = {name: FieldValue(value, float(at)) for name, (value, at) in json.loads(payload).items()}
        for name, field in entry.items():
            if not _is_valid(name, field.value) or not 0 <= field.at < math.inf:
                raise ValueError(f"{name[:40]!r} is not a field with a value and a time")
        return entry
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreError(
            "store.items_corrupt", f"a stored item cannot be read: {error}.", fix="Restore the store from a backup."
        ) from None


def _is_valid(name: str, value: Any) -> bool:
    """Whether the service may have written this value of a field."""
    if value is None or name not in FIELDS:
        return True  # a later version may know more fields
    if name in (*TEXT_FIELDS, GROUP_ID):
        return isinstance(value, str)
    if name == "categories":
        return isinstance(value, list) and all(isinstance(category, str) for category in value)
    if name == "price":
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
    if name == METADATA:
        return isinstance(value, dict)
    return isinstance(value, bool)
