"""What the shop said of an item beside what a release says of it: which of the two stands. Pure.

What was said after a release's catalogue was read stands, whatever the release says. Of what was said before, the
release's own data is the newer and wins where it speaks of the field; where it is silent, what was said stands.
"""

from typing import Any

from isrf.contract.item_changes import AVAILABLE, HIDDEN, TEXT_FIELDS, ItemEntry
from service.release.catalogue import ItemLine

SHOWN = ("title", "brand", "categories", "price")
"""Of these the service knows what a release says; of other texts it knows only when they were said."""


def standing(entry: ItemEntry, line: ItemLine | None, learned_until: float) -> dict[str, Any]:
    """The fields of an entry that count beside a release, with their values.

    Args:
        entry: what the shop said.
        line: what the release says of the item, None where it does not hold it.
        learned_until: seconds, when the catalogue was read; what was said later the release cannot know.
    """
    return {
        name: said.value
        for name, said in entry.items()
        if line is None or said.at > learned_until or _is_silent(name, line)
    }


def changed_line(item_id: str, entry: ItemEntry, line: ItemLine | None, learned_until: float) -> ItemLine:
    """The item as it is offered; arguments as `standing`."""
    fields = standing(entry, line, learned_until)
    update: dict[str, Any] = {name: fields[name] for name in ("title", "brand", "price") if name in fields}
    if "categories" in fields:
        update["categories"] = fields["categories"] or []
    if AVAILABLE in fields:
        update[AVAILABLE] = fields[AVAILABLE] is not False
    if HIDDEN in fields:
        update[HIDDEN] = bool(fields[HIDDEN])
    return (line or ItemLine(item_id=item_id)).model_copy(update=update)


def is_learned(entry: ItemEntry, line: ItemLine | None, learned_until: float) -> bool:
    """Whether the release alone says what it says with the entry; arguments as `standing`."""
    if line is None:
        # A new item waits for a release that holds it; one that was hidden for a release that could and does not.
        return bool(_value(entry, HIDDEN)) and all(said.at <= learned_until for said in entry.values())
    return all(_says(line, name, value) for name, value in standing(entry, line, learned_until).items())


def text_of(entry: ItemEntry) -> dict[str, Any]:
    """What an item that is known by its entry alone is read by."""
    return {name: _value(entry, name) for name in (*TEXT_FIELDS, "categories", "price")}


def _is_silent(name: str, line: ItemLine) -> bool:
    if name in (AVAILABLE, HIDDEN):
        return line.metadata is None or getattr(line.metadata, name) is None
    return name in SHOWN and not getattr(line, name)


def _says(line: ItemLine, name: str, value: Any) -> bool:
    if name == AVAILABLE:
        return line.available == (value is not False)
    if name == HIDDEN:
        return line.hidden == bool(value)
    return name in SHOWN and (getattr(line, name) or None) == (value or None)


def _value(entry: ItemEntry, name: str) -> Any:
    said = entry.get(name)
    return None if said is None else said.value
