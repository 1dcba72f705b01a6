"""Segment's track calls, as its warehouses and archives hold them in JSON Lines: events, and the items that they name.

The names are those of Segment's e-commerce specification. An event with a `userId` is that user's. One without is the
browser's, whose `anonymousId` is the session.

Purchases are remembered until the end of the files, because a refund may name its order alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from isrf.contract.shown import shown
from offline.importers.importer import Imported, ImportedEvent
from offline.importers.report import ImportReport
from offline.importers.rows import json_rows
from offline.importers.seen_items import SeenItems
from offline.importers.values import RIGHT_MOMENT, RIGHT_QUANTITY, plain_id, read_moment, read_quantity

TYPES = {
    "product viewed": "view",
    "product added": "cart",
    "product added to wishlist": "wishlist",
    "order completed": "purchase",
    "order refunded": "remove",
    "order cancelled": "remove",
    # Before version 2 of the specification.
    "viewed product": "view",
    "added product": "cart",
    "completed order": "purchase",
}
"""Lists that were shown, steps of the checkout and carts that were emptied are left out."""
Owner = tuple[str, str]


class Segment:
    """Reads track calls of Segment's e-commerce specification."""

    name = "segment"
    description = "events and the items in them, from Segment's track calls"
    reads = "JSON Lines of track calls, also with .gz"

    def read(self, files: Sequence[Path], report: ImportReport) -> Iterator[Imported]:
        items = SeenItems()
        bought: dict[str, list[tuple[Owner, str]]] = {}  # order → items
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
    call, name = plain_id(record.get("type")) or "track", plain_id(record.get("event"))
    kind = TYPES.get(name.casefold())
    if call != "track" or kind is None:
        report.leave_out(f"are events {shown(name)}" if call == "track" else f"are calls of {shown(call)}", line)
        return
    moment = read_moment(record.get("timestamp"))
    if moment is None:
        report.refuse("bad_timestamp", line, shown(record.get("timestamp")), right=RIGHT_MOMENT)
        return
    properties = record.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    order = plain_id(properties.get("order_id"))
    products = _products(properties)
    if kind == "remove" and not products:  # of the whole order
        if order not in bought:
            report.leave_out("are refunds of an order that the files do not have", line)
        for (user_id, session_id), item_id in bought.get(order, ()):
            yield ImportedEvent(line, item_id, moment, kind, user_id, session_id)
        return
    owner = _id(record, "userId", "user_id"), _id(record, "anonymousId", "anonymous_id")
    if owner == ("", ""):
        report.leave_out("are events without a user and without a session", line)
        return
    if not products:
        report.leave_out("are events without an item", line)
    for product in products:
        weight = read_quantity(product.get("quantity"))
        if weight is None:
            report.refuse("bad_quantity", line, shown(product.get("quantity")), right=RIGHT_QUANTITY)
            continue
        item_id = _item_id(product)
        items.add(line, item_id, **_fields(product))
        if kind == "purchase" and order:
            bought.setdefault(order, []).append((owner, item_id))
        yield ImportedEvent(line, item_id, moment, kind, *owner, weight=weight)


def _id(record: Mapping[str, Any], call: str, column: str) -> str:
    """An id under its name in calls, or under that of a warehouse's column."""
    return plain_id(record.get(call)) or plain_id(record.get(column))


def _products(properties: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The products of an event that have an id: the list `products`, or the event's own properties."""
    listed = properties.get("products")
    found = listed if isinstance(listed, list) else [properties]
    return [product for product in found if isinstance(product, Mapping) and _item_id(product)]


def _item_id(product: Mapping[str, Any]) -> str:
    return plain_id(product.get("product_id")) or plain_id(product.get("sku"))


def _fields(product: Mapping[str, Any]) -> dict[str, Any]:
    price, category = product.get("price"), plain_id(product.get("category"))
    return {
        "title": plain_id(product.get("name")),
        "brand": plain_id(product.get("brand")),
        "categories": [part for name in category.split(">") if (part := name.strip())],
        "price": price if isinstance(price, int | float) and not isinstance(price, bool) and price >= 0 else None,
        "variant": plain_id(product.get("variant")),
        "image_link": plain_id(product.get("image_url")),
        "link": plain_id(product.get("url")),
    }
