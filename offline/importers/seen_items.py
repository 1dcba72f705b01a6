"""The catalogue that events tell: of each item the last value of each of its fields.

Sources of events know no stock and mostly no descriptions. Where a shop has a catalogue, that is the better source.
"""

from collections.abc import Iterator
from typing import Any

from offline.importers.importer import ImportedItem


class SeenItems:
    """Collects items while events are read; it needs memory for each item, not for each event."""

    def __init__(self) -> None:
        self._items: dict[str, dict[str, Any]] = {}
        self._lines: dict[str, int] = {}

    def add(self, line: int, item_id: str, **fields: Any) -> None:
        """Takes what an event says of an item; None and empty values say nothing."""
        known = self._items.setdefault(item_id, {"item_id": item_id})
        known |= {name: value for name, value in fields.items() if value not in (None, "", [])}
        self._lines[item_id] = line

    def __iter__(self) -> Iterator[ImportedItem]:
        for item_id, fields in self._items.items():
            yield ImportedItem(self._lines[item_id], fields)
