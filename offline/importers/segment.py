"""Segment's track calls, as its warehouses and archives hold them in JSON Lines: events, and the items that they name.

The names are those of Segment's e-commerce specification. An event with a `userId` is that user's. One without is the
browser's, whose `anonymousId` is the session.

Purchases wait until the end of the files for refunds of their orders (`offline.importers.sales`).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from isrf.contract.shown import shown
from offline.importers.importer import Imported, ImportedEvent
from offline.importers.report import ImportReport
from offline.importers.rows import json_rows
from offline.importers.sales import Sales
from offline.importers.seen_items import SeenItems, read_entries
from offline.importers.values import RIGHT_ID, RIGHT_MOMENT, is_no_id, plain_id, read_moment

TYPES = {
    "product viewed": "view",
    "product added": "cart",
    "product added to wishlist": "wishlist",
    "order completed": "purchase",
    "order refunded": "remove",  # where the files do not have the order
    "order cancelled": "remove",
    # Before version 2 of the specification.
    "viewed product": "view",
    "added product": "cart",
    "completed order": "purchase",
}
"""Lists that were shown, steps of the checkout and carts that were emptied are left out."""


class Segment:
    """Reads track calls of Segment's e-commerce specification."""

    name = "segment"
    description = "events and the items in them, from Segment's track calls"
    reads = "JSON Lines of track calls, also with .gz"

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
    """The events of a call that are neither purchases nor refunds, which it adds to `sales`."""
    call, name = plain_id(record.get("type")) or "track", plain_id(record.get("event"))
    kind = TYPES.get(name.casefold())
    if call != "track" or kind is None:
        report.leave_out(f"are events {shown(name)}" if call == "track" else f"are calls of {shown(call)}", line)
        return
    moment = read_moment(record.get("timestamp"))
    if moment is None:
        report.refuse("bad_timestamp", line, shown(record.get("timestamp")), right=RIGHT_MOMENT)
        return
    wrong = next((value for key in ("userId", "user_id") if is_no_id(value := record.get(key))), None)
    if wrong is not None:
        report.refuse("bad_user_id", line, type(wrong).__name__, right=RIGHT_ID)
        return
    properties = record.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    order = plain_id(properties.get("order_id"))
    owner = _id(record, "userId", "user_id"), _id(record, "anonymousId", "anonymous_id")
    products = properties.get("products")
    is_whole = kind == "remove" and not products and not _item_id(properties)
    entries = products if isinstance(products, list) and products else [properties]
    found = [] if is_whole else read_entries(line, entries, _item_id, _fields, items=items, report=report)
    if found or is_whole:
        yield from sales.take(line, order, moment, owner, kind, found, report)


def _id(record: Mapping[str, Any], call: str, column: str) -> str:
    """An id under its name in calls, or under that of a warehouse's column."""
    return plain_id(record.get(call)) or plain_id(record.get(column))


def _item_id(product: Mapping[str, Any]) -> str:
    return plain_id(product.get("product_id")) or plain_id(product.get("sku"))


def _fields(product: Mapping[str, Any]) -> dict[str, Any]:
    category = plain_id(product.get("category"))
    return {
        "title": plain_id(product.get("name")),
        "brand": plain_id(product.get("brand")),
        "categories": [part for name in category.split(">") if (part := name.strip())],
        "variant": plain_id(product.get("variant")),
        "image_link": plain_id(product.get("image_url")),
        "link": plain_id(product.get("url")),
    }
