"""Decides for each field of an item whether the shop's change or the release's value applies. Pure.

A change that is newer than the release's catalogue applies, whatever the release has. For an older change, the
release's own data is newer: it applies where the release has a value for the field; elsewhere the change applies.
"""

from typing import Any

from isrf.contract.item_changes import AVAILABLE, GROUP_ID, HIDDEN, METADATA, TEXT_FIELDS, ItemEntry
from service.release.catalogue import ItemLine, own_json_of

COMPARED_FIELDS = ("title", "brand", "categories", "price", GROUP_ID)
"""Fields whose value in the release the service knows; for other texts it knows only the moment of the change."""


def effective_fields(entry: ItemEntry, line: ItemLine | None, learned_until: float) -> dict[str, Any]:
    """Returns the fields of the shop's changes that apply beside a release, with their values.

    Args:
        entry: the shop's changes of the item.
        line: the release's item, None where the release does not contain it.
        learned_until: seconds, when the catalogue was read; the release cannot contain later changes.
    """
    return {
        name: change.value
        for name, change in entry.items()
        if line is None or change.at > learned_until or _has_no_value(name, line)
    }


def changed_line(item_id: str, entry: ItemEntry, line: ItemLine | None, learned_until: float) -> ItemLine:
    """Returns the release's item with the changes that apply; arguments as `effective_fields`."""
    fields = effective_fields(entry, line, learned_until)
    update: dict[str, Any] = {name: fields[name] for name in ("title", "brand", "price", GROUP_ID) if name in fields}
    if "categories" in fields:
        update["categories"] = fields["categories"] or []
    if AVAILABLE in fields:
        update[AVAILABLE] = fields[AVAILABLE] is not False
    if HIDDEN in fields:
        update[HIDDEN] = bool(fields[HIDDEN])
    line = line or ItemLine(item_id=item_id)
    if METADATA in fields:
        # As the offline job merges them (`isrf.contract.item_changes.changed_row`).
        own = {} if fields[METADATA] is None else {**line.own_fields(), **fields[METADATA]}
        update["own_json"] = own_json_of(own)
    return line.model_copy(update=update)


def is_learned(entry: ItemEntry, line: ItemLine | None, learned_until: float) -> bool:
    """Whether the release gives the same item without the changes; arguments as `effective_fields`."""
    if line is None:
        # A new item's changes are needed until a release contains it. A hidden item's are needed until a release that
        # is newer than the changes does not contain it.
        return bool(_value(entry, HIDDEN)) and all(change.at <= learned_until for change in entry.values())
    return all(_has_value(line, name, value) for name, value in effective_fields(entry, line, learned_until).items())


def added_at_of(entry: ItemEntry) -> float:
    """Returns the seconds of the oldest change of an item that no release contains; the entry has one at least."""
    return min(change.at for change in entry.values())


def text_of(entry: ItemEntry) -> dict[str, Any]:
    """Returns the texts, categories and price of an item that no release contains, for the encoder."""
    return {name: _value(entry, name) for name in (*TEXT_FIELDS, "categories", "price")}


def _has_no_value(name: str, line: ItemLine) -> bool:
    if name in (AVAILABLE, HIDDEN):
        return line.metadata is None or getattr(line.metadata, name) is None
    return name in COMPARED_FIELDS and not getattr(line, name)


def _has_value(line: ItemLine, name: str, value: Any) -> bool:
    if name == AVAILABLE:
        return line.available == (value is not False)
    if name == HIDDEN:
        return line.hidden == bool(value)
    return name in COMPARED_FIELDS and (getattr(line, name) or None) == (value or None)


def _value(entry: ItemEntry, name: str) -> Any:
    change = entry.get(name)
    return None if change is None else change.value
