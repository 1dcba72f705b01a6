"""WooCommerce's CSV of products; orders as CSV with a row per line item, or from the REST API as JSON Lines.

A variation is an item, and its parent's id the `group_id`. The parent stays in the catalogue, not offered: orders may
name it.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from isrf.contract.item_changes import ROW_FIELDS
from isrf.contract.shown import shown
from offline.importers.importer import Imported, ImportedEvent, ImportedItem
from offline.importers.report import ImportReport
from offline.importers.rows import Table, first_character, json_rows, table_rows
from offline.importers.values import (
    RIGHT_MOMENT,
    RIGHT_PRICE,
    RIGHT_QUANTITY,
    person_id,
    plain_id,
    read_moment,
    read_money,
    read_quantity,
)

NUM_ATTRIBUTES = 20
PRODUCTS = Table(
    "WooCommerce's products",
    {
        "id": ("ID",),
        "type": ("Type",),
        "sku": ("SKU",),
        "name": ("Name",),
        "published": ("Published",),
        "description": ("Description",),
        "short": ("Short description",),
        "in_stock": ("In stock?",),
        "sale_price": ("Sale price",),
        "regular_price": ("Regular price",),
        "sale_starts": ("Date sale price starts",),
        "sale_ends": ("Date sale price ends",),
        "categories": ("Categories",),
        "tags": ("Tags",),
        "brands": ("Brands",),
        "images": ("Images",),
        "parent": ("Parent",),
        **{f"name{n}": (f"Attribute {n} name",) for n in range(1, NUM_ATTRIBUTES + 1)},
        **{f"value{n}": (f"Attribute {n} value(s)",) for n in range(1, NUM_ATTRIBUTES + 1)},
    },
    ("id", "type", "name", "published"),
)
ORDERS = Table(
    "WooCommerce's orders",
    {
        "order": ("order_id", "Order ID"),
        "date": ("date", "order_date", "Date", "Order Date"),
        "status": ("status", "Status", "Order Status"),
        "customer": ("customer_id", "Customer ID"),
        "email": ("billing_email", "Billing Email", "customer_email"),
        "product": ("item_product_id", "Item Product ID"),
        "quantity": ("item_quantity", "Item Quantity"),
        "refunded": ("item_refunded_qty", "Item Refunded Quantity"),
    },
    ("order", "date", "status", "product", "quantity"),
)
SOLD = ("completed", "processing", "refunded")
_INHERITED = ("description", "short", "categories", "tags", "brands", "images")
_FLAGS = {"1": True, "0": False, "yes": True, "no": False, "backorder": True, "-1": False}
Row = dict[str, str]


class WooCommerce:
    """Reads WooCommerce's exports."""

    name = "woocommerce"
    description = "catalogue and purchases from WooCommerce's CSV exports"
    reads = "the product export, and orders: CSV with a row per item, or JSON Lines of the REST API; in any order"

    def read(self, files: Sequence[Path], report: ImportReport) -> Iterator[Imported]:
        for part, path in enumerate(files):
            if first_character(path) == "{":
                yield from _orders(_rest_rows(path, part, report), report)
                continue
            table, rows = table_rows(path, part, report, [ORDERS, PRODUCTS])
            if table is ORDERS:
                report.note("the order export's dates have no zone and are read as UTC")
            yield from _orders(rows, report) if table is ORDERS else _products(rows, report)


def _products(rows: Iterable[tuple[int, Row]], report: ImportReport) -> Iterator[ImportedItem]:
    """Items as they come; variations before their parent, and parents, at the end."""
    parents: dict[str, tuple[int, Row]] = {}  # by SKU, and by `id:44`
    waiting: list[tuple[int, Row]] = []
    with_variations: set[str] = set()

    def variation(line: int, row: Row) -> ImportedItem | None:
        parent = parents[row["parent"]][1]
        with_variations.add(parent["id"])
        inherited = {name: row[name] or parent[name] for name in _INHERITED}
        return _item(line, row | inherited, report, group=parent["id"], published=parent["published"])

    for line, row in rows:
        kind = row["type"].casefold()
        if "variation" in kind and row["parent"] not in parents:
            waiting.append((line, row))
            continue
        if "variable" in kind:
            parents |= {key: (line, row) for key in (row["sku"], f"id:{row['id']}") if key}
            continue
        item = variation(line, row) if "variation" in kind else _item(line, row, report)
        if item is not None:
            yield item
    for line, row in waiting:
        if row["parent"] not in parents:
            right = "the id (id:44) or the SKU of a variable product in the file"
            report.refuse("unknown_parent", line, shown(row["parent"]), right=right)
        elif (item := variation(line, row)) is not None:
            yield item
    for line, row in dict(parents.values()).items():
        item = _item(line, row, report, group=row["id"] if row["id"] in with_variations else "")
        if item is not None:
            yield item._replace(fields=item.fields | ({"available": False} if row["id"] in with_variations else {}))


def _item(line: int, row: Row, report: ImportReport, *, group: str = "", published: str = "1") -> ImportedItem | None:
    fields: dict[str, Any] = {
        "item_id": row["id"],
        "title": row["name"],
        "brand": row["brands"].split(",")[0].strip(),
        "description": row["description"] or row["short"],
        "group_id": group,
    }
    if row["categories"]:  # of several paths the first
        fields["categories"] = [name.strip() for name in _listed(row["categories"])[0].split(">")]
    if not _add_prices(fields, line, row, report):
        return None
    flags = {name: _FLAGS.get(row[name].casefold()) for name in ("published", "in_stock") if row[name]}
    for name, flag in flags.items():
        if flag is None:
            report.refuse("bad_available", line, shown(row[name]), right="1, 0, or backorder")
            return None
    fields["available"] = all(flags.values()) and published == "1"
    if row["tags"]:
        fields["tags"] = _listed(row["tags"])
    if row["images"]:
        fields["image_link"] = row["images"].split(",")[0].strip()
    if row["sku"]:
        fields["sku"] = row["sku"]
    for number in range(1, NUM_ATTRIBUTES + 1):
        name, values = row[f"name{number}"], _listed(row[f"value{number}"])
        if name and values:
            own = f"attribute_{name}" if name.casefold() in ROW_FIELDS or name in fields else name
            fields[own] = values[0] if len(values) == 1 else values
    return ImportedItem(line, fields)


def _add_prices(fields: dict[str, Any], line: int, row: Row, report: ImportReport) -> bool:
    """Adds prices; False where one cannot be read. Whether a comma or a point stands before decimals is the shop's
    setting; the export has no other mark in a number."""
    for name in ("regular_price", "sale_price"):
        if row[name]:
            money = read_money(row[name].replace(",", "."))
            if money is None:
                report.refuse("bad_price", line, shown(row[name]), right=RIGHT_PRICE)
                return False
            fields[name] = money.amount
    always = "sale_price" in fields and not row["sale_starts"] and not row["sale_ends"]
    fields["price"] = fields.get("sale_price" if always else "regular_price")
    return True


def _listed(text: str) -> list[str]:
    """The parts of a list with commas; a comma inside a part is written `\\,`."""
    parts = text.replace("\\,", "\x00").split(",")
    return [plain for part in parts if (plain := part.replace("\x00", ",").strip())]


def _rest_rows(path: Path, part: int, report: ImportReport) -> Iterator[tuple[int, Row]]:
    """The line items of orders as the REST API answers them (`/wp-json/wc/v3/orders`), as rows of `ORDERS`."""
    for line, order in json_rows(path, part, report):
        billing, items = order.get("billing"), order.get("line_items")
        if not isinstance(items, list):
            report.refuse("bad_line_items", line, shown(items), right="a list of line items")
            continue
        row = {
            "order": plain_id(order.get("id")),
            "date": plain_id(order.get("date_created_gmt")),
            "status": plain_id(order.get("status")),
            "customer": plain_id(order.get("customer_id")),
            "email": plain_id(billing.get("email")) if isinstance(billing, dict) else "",
            "refunded": "",
        }
        for item in items:
            if isinstance(item, dict):
                variation, product = plain_id(item.get("variation_id")), plain_id(item.get("product_id"))
                quantity = plain_id(item.get("quantity"))
                yield line, row | {"product": product if variation in ("", "0") else variation, "quantity": quantity}


def _orders(rows: Iterable[tuple[int, Row]], report: ImportReport) -> Iterator[ImportedEvent]:
    for line, row in rows:
        status = row["status"].casefold().removeprefix("wc-")
        if status not in SOLD:
            report.leave_out(f"are of orders with the status {status}", line)
            continue
        moment, weight = read_moment(row["date"]), read_quantity(row["quantity"])
        returned = read_quantity(row["refunded"].removeprefix("-")) if row["refunded"].strip("-0.") else 0.0
        if moment is None:
            report.refuse("bad_timestamp", line, shown(row["date"]), right=RIGHT_MOMENT)
            continue
        if weight is None or returned is None:
            wrong = row["quantity"] if weight is None else row["refunded"]
            report.refuse("bad_quantity", line, shown(wrong), right=RIGHT_QUANTITY)
            continue
        user_id = row["customer"] if row["customer"] != "0" else ""
        user_id = user_id or (person_id(row["email"]) if row["email"] else "")
        session_id = "" if user_id else f"order-{row['order']}"
        is_back = status == "refunded" or returned >= weight
        event = ImportedEvent(line, row["product"], moment, "purchase", user_id, session_id, weight)
        yield event if is_back else event._replace(weight=weight - returned)
        if is_back:
            yield event._replace(event="remove", weight=1.0)
