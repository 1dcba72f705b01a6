"""The catalogue that events tell: of each item the last value of each of its fields.

Sources of events know no stock and mostly no descriptions. Where a shop has a catalogue, that is the better source.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from isrf.contract.shown import shown
from offline.importers.importer import ImportedItem
from offline.importers.report import ImportReport
from offline.importers.values import RIGHT_PRICE, RIGHT_QUANTITY, read_amount, read_quantity


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


def read_entries(
    line: int,
    entries: Sequence[Any],
    item_id_of: Callable[[Mapping[str, Any]], str],
    fields_of: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    *,
    items: SeenItems,
    report: ImportReport,
) -> list[tuple[str, float]]:
    """The items of an event, and the pieces of each, as `quantity` has them.

    Args:
        line: where the event stands.
        entries: JSON objects; others, and those without an id, are left out.
        item_id_of: an entry's id, "" where it has none.
        fields_of: what an entry says of its item beside `price`.
        items: takes what the entries say.
        report: takes entries whose `quantity` or `price` cannot be read.
    """
    known = [(entry, item_id) for entry in entries if isinstance(entry, Mapping) and (item_id := item_id_of(entry))]
    if not known:
        report.leave_out("are events without an item", line)
    elif len(known) < len(entries):
        report.leave_out("are products without an id, beside others", line, rows=len(entries) - len(known))
    found: list[tuple[str, float]] = []
    for entry, item_id in known:
        pieces = read_quantity(entry.get("quantity"))
        if pieces is None:
            report.refuse("bad_quantity", line, shown(entry.get("quantity")), right=RIGHT_QUANTITY)
            continue
        try:
            price = read_amount(entry.get("price"))
        except ValueError:
            report.refuse("bad_price", line, shown(entry.get("price")), right=RIGHT_PRICE)
            continue
        items.add(line, item_id, price=price, **fields_of(entry))
        found.append((item_id, pieces))
    return found
