"""Google Analytics 4's export to BigQuery, saved as JSON Lines: events, and the items that they name.

An event with a `user_id` is that user's. One without is a visit's: the device (`user_pseudo_id`) and the number of its
session (`ga_session_id`).

Purchases wait until the end of the files for refunds of their transactions (`offline.importers.sales`).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from isrf.contract.shown import shown
from offline.importers.importer import Imported, ImportedEvent
from offline.importers.report import ImportReport
from offline.importers.rows import json_rows
from offline.importers.sales import Owner, Sales
from offline.importers.seen_items import SeenItems, read_entries
from offline.importers.values import RIGHT_ID, is_no_id, plain_id, read_epoch

TYPES = {
    "view_item": "view",
    "add_to_cart": "cart",
    "add_to_wishlist": "wishlist",
    "purchase": "purchase",
    "refund": "remove",  # where the files do not have the purchase
}
"""Events that say what a visitor did with an item. Lists that were shown, and steps of the checkout, do not."""
NOT_SET = "(not set)"
_CATEGORIES = ("item_category", "item_category2", "item_category3", "item_category4", "item_category5")


class GoogleAnalytics4:
    """Reads the tables `events_*` of the BigQuery export."""

    name = "ga4"
    description = "events and the items in them, from Google Analytics 4's export to BigQuery"
    reads = "JSON Lines of the tables events_*, also with .gz"

    def read(self, files: Sequence[Path], report: ImportReport) -> Iterator[Imported]:
        items = SeenItems()
        sales = Sales()
        for part, path in enumerate(files):
            for line, record in json_rows(path, part, report):
                yield from _events(line, record, items, sales, report)
        yield from sales.settle(report)
        yield from items


def _events(
    line: int, record: Mapping[str, Any], items: SeenItems, sales: Sales, report: ImportReport
) -> Iterator[ImportedEvent]:
    """The events of a record that are neither purchases nor refunds, which it adds to `sales`."""
    name = plain_id(record.get("event_name"))
    if name not in TYPES:
        report.leave_out(f"are events {shown(name)}", line)
        return
    moment = read_epoch(record.get("event_timestamp"), 1e6)
    if moment is None:
        right = "microseconds since 1970, such as 1759823426000000"
        report.refuse("bad_timestamp", line, shown(record.get("event_timestamp")), right=right)
        return
    if is_no_id(record.get("user_id")):
        report.refuse("bad_user_id", line, type(record["user_id"]).__name__, right=RIGHT_ID)
        return
    owner, transaction = _owner(record), _transaction(record)
    listed = record.get("items")
    rows = listed if isinstance(listed, list) else []
    is_whole = name == "refund" and not rows
    found = [] if is_whole else read_entries(line, rows, _item_id, _fields, items=items, report=report)
    if found or is_whole:
        yield from sales.take(line, transaction, moment, owner, TYPES[name], found, report)


def _item_id(row: Mapping[str, Any]) -> str:
    item_id = plain_id(row.get("item_id"))
    return "" if item_id == NOT_SET else item_id


def _owner(record: Mapping[str, Any]) -> Owner:
    """The ids of the user and of the session, "" where there are none."""
    device, session = plain_id(record.get("user_pseudo_id")), _parameter(record, "ga_session_id")
    return plain_id(record.get("user_id")), f"{device}.{session}" if device and session else ""


def _transaction(record: Mapping[str, Any]) -> str:
    ecommerce = record.get("ecommerce")
    known = plain_id(ecommerce.get("transaction_id")) if isinstance(ecommerce, Mapping) else ""
    given = (known, _parameter(record, "transaction_id"))
    return next((number for number in given if number not in ("", NOT_SET)), "")


def _parameter(record: Mapping[str, Any], key: str) -> str:
    """The value of an entry of `event_params`, as text; "" where there is none."""
    entries = record.get("event_params")
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping) and entry.get("key") == key and isinstance(value := entry.get("value"), Mapping):
            return plain_id(value.get("string_value")) or plain_id(value.get("int_value"))
    return ""


def _fields(row: Mapping[str, Any]) -> dict[str, Any]:
    texts = {name: text for name, value in row.items() if (text := plain_id(value)) not in ("", NOT_SET)}
    return {
        "title": texts.get("item_name"),
        "brand": texts.get("item_brand"),
        "categories": [texts[name] for name in _CATEGORIES if name in texts],
        "variant": texts.get("item_variant"),
    }
