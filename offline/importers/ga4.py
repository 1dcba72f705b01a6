"""Google Analytics 4's export to BigQuery, saved as JSON Lines: events, and the items that they name.

An event with a `user_id` is that user's. One without is a visit's: the device (`user_pseudo_id`) and the number of its
session (`ga_session_id`).

Purchases are remembered until the end of the files, because a refund may name its transaction alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from isrf.contract.shown import shown
from offline.importers.importer import Imported, ImportedEvent
from offline.importers.report import ImportReport
from offline.importers.rows import json_rows
from offline.importers.seen_items import SeenItems
from offline.importers.values import RIGHT_QUANTITY, plain_id, read_epoch, read_quantity

TYPES = {
    "view_item": "view",
    "add_to_cart": "cart",
    "add_to_wishlist": "wishlist",
    "purchase": "purchase",
    "refund": "remove",
}
"""Events that say what a visitor did with an item. Lists that were shown, and steps of the checkout, do not."""
NOT_SET = "(not set)"
_CATEGORIES = ("item_category", "item_category2", "item_category3", "item_category4", "item_category5")
Owner = tuple[str, str]


class GoogleAnalytics4:
    """Reads the tables `events_*` of the BigQuery export."""

    name = "ga4"
    description = "events and the items in them, from Google Analytics 4's export to BigQuery"
    reads = "JSON Lines of the tables events_*, also with .gz"

    def read(self, files: Sequence[Path], report: ImportReport) -> Iterator[Imported]:
        items = SeenItems()
        bought: dict[str, list[tuple[Owner, str]]] = {}  # transaction → items
        for part, path in enumerate(files):
            for line, record in json_rows(path, part, report):
                yield from _events(line, record, items, bought, report)
        yield from items


def _events(
    line: int,
    record: Mapping[str, Any],
    items: SeenItems,
    bought: dict[str, list[tuple[Owner, str]]],
    report: ImportReport,
) -> Iterator[ImportedEvent]:
    name = plain_id(record.get("event_name"))
    if name not in TYPES:
        report.leave_out(f"are events {shown(name)}", line)
        return
    moment = read_epoch(record.get("event_timestamp"), 1e6)
    if moment is None:
        right = "microseconds since 1970, such as 1759823426000000"
        report.refuse("bad_timestamp", line, shown(record.get("event_timestamp")), right=right)
        return
    owner = _owner(record)
    listed = record.get("items")
    rows = [row for row in listed if isinstance(row, Mapping)] if isinstance(listed, list) else []
    ids = [item_id for row in rows if (item_id := plain_id(row.get("item_id"))) not in ("", NOT_SET)]
    transaction = _transaction(record)
    if name == "refund" and not ids:  # of the whole transaction
        if transaction not in bought:
            report.leave_out("are refunds of a transaction that the files do not have", line)
        for (user_id, session_id), item_id in bought.get(transaction, ()):
            yield ImportedEvent(line, item_id, moment, "remove", user_id, session_id)
        return
    if not ids:
        report.leave_out("are events without an item", line)
        return
    if owner == ("", ""):
        report.leave_out("are events without a user and without a session", line)
        return
    for row in rows:
        item_id = plain_id(row.get("item_id"))
        if item_id in ("", NOT_SET):
            continue
        weight = read_quantity(row.get("quantity"))
        if weight is None:
            report.refuse("bad_quantity", line, shown(row.get("quantity")), right=RIGHT_QUANTITY)
            continue
        items.add(line, item_id, **_fields(row))
        if name == "purchase" and transaction:
            bought.setdefault(transaction, []).append((owner, item_id))
        yield ImportedEvent(line, item_id, moment, TYPES[name], *owner, weight=weight)


def _owner(record: Mapping[str, Any]) -> Owner:
    """The ids of the user and of the session, "" where there are none."""
    device, session = plain_id(record.get("user_pseudo_id")), _parameter(record, "ga_session_id")
    return plain_id(record.get("user_id")), f"{device}.{session}" if device and session else ""


def _transaction(record: Mapping[str, Any]) -> str:
    ecommerce = record.get("ecommerce")
    known = plain_id(ecommerce.get("transaction_id")) if isinstance(ecommerce, Mapping) else ""
    return (known if known != NOT_SET else "") or _parameter(record, "transaction_id")


def _parameter(record: Mapping[str, Any], key: str) -> str:
    """The value of an entry of `event_params`, as text; "" where there is none."""
    entries = record.get("event_params")
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping) and entry.get("key") == key and isinstance(value := entry.get("value"), Mapping):
            return plain_id(value.get("string_value")) or plain_id(value.get("int_value"))
    return ""


def _fields(row: Mapping[str, Any]) -> dict[str, Any]:
    texts = {name: text for name, value in row.items() if (text := plain_id(value)) not in ("", NOT_SET)}
    price = row.get("price")
    return {
        "title": texts.get("item_name"),
        "brand": texts.get("item_brand"),
        "categories": [texts[name] for name in _CATEGORIES if name in texts],
        "price": price if isinstance(price, int | float) and not isinstance(price, bool) and price >= 0 else None,
        "variant": texts.get("item_variant"),
    }
