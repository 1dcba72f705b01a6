"""Shopify's CSV exports of products and of orders, recognised by their columns: items and events.

An item is a variant, and the product's handle is its `group_id`. Its id is the SKU; one without a SKU has the name that
orders give it in `Lineitem name`. Orders name nothing else of a variant.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from isrf.contract.item_changes import ROW_FIELDS
from isrf.contract.shown import shown
from offline.importers.importer import Imported, ImportedEvent, ImportedItem
from offline.importers.report import CAME_BACK, ImportReport
from offline.importers.rows import Table, table_rows
from offline.importers.values import (
    RIGHT_MOMENT,
    RIGHT_PRICE,
    RIGHT_QUANTITY,
    person_id,
    read_moment,
    read_money,
    read_quantity,
)

PRODUCTS = Table(
    "Shopify's products",
    {
        "handle": ("Handle", "URL handle"),
        "title": ("Title",),
        "description": ("Body (HTML)", "Description"),
        "vendor": ("Vendor",),
        "category": ("Product Category",),
        "type": ("Type",),
        "tags": ("Tags",),
        "published": ("Published", "Published on online store"),
        "status": ("Status",),
        **{f"option{n}": (f"Option{n} Name",) for n in (1, 2, 3)},
        **{f"value{n}": (f"Option{n} Value",) for n in (1, 2, 3)},
        "sku": ("Variant SKU", "SKU"),
        "price": ("Variant Price", "Price"),
        "compare_at_price": ("Variant Compare At Price", "Compare-at price"),
        "tracker": ("Variant Inventory Tracker", "Inventory tracker"),
        "quantity": ("Variant Inventory Qty", "Inventory quantity"),
        "policy": ("Variant Inventory Policy", "Continue selling when out of stock"),
        "image": ("Image Src", "Product image URL"),
    },
    ("handle", "title", "sku", "price"),
)
ORDERS = Table(
    "Shopify's orders",
    {
        "order": ("Name", "Order ID"),  # the second in Squarespace's export, which has the same form
        "email": ("Email",),
        "status": ("Financial Status",),
        "created": ("Created at",),
        "cancelled": ("Cancelled at",),
        "quantity": ("Lineitem quantity",),
        "line_name": ("Lineitem name",),
        "sku": ("Lineitem sku",),
    },
    ("order", "email", "created", "quantity", "sku"),
)
_OF_PRODUCT = ("title", "description", "vendor", "category", "type", "tags", "published", "status", "image")
_OPTION_NAMES = ("option1", "option2", "option3")
_OF_VARIANT = ("sku", "price", "value1", "value2", "value3")
_ONLY_VARIANT = ("Title", "Default Title")
"""Shopify's option for a product without options."""
_NOT_SOLD = ("voided", "expired")
_WITHOUT_SKU = "variants without a SKU have their name in orders as item_id, such as Shirt - Red / M"


class Shopify:
    """Reads exports of Shopify's admin."""

    name = "shopify"
    description = "catalogue and purchases from Shopify's CSV exports"
    reads = "the products and orders that the admin exports as CSV, in any order"

    def read(self, files: Sequence[Path], report: ImportReport) -> Iterator[Imported]:
        by_name: dict[str, str] = {}
        orders: list[Iterable[tuple[int, dict[str, str]]]] = []
        for part, path in enumerate(files):
            table, rows = table_rows(path, part, report, [ORDERS, PRODUCTS])
            if table is ORDERS:
                orders.append(rows)
            else:
                yield from _products(rows, by_name, report)
        for lines in orders:
            yield from _orders(lines, by_name, report)


def _products(
    rows: Iterable[tuple[int, dict[str, str]]], by_name: dict[str, str], report: ImportReport
) -> Iterator[ImportedItem]:
    """A product's first row holds what is the product's own; rows of an image alone are no variant.

    Adds to `by_name` the item_id of each variant under its name in orders; "" for a name of several.
    """
    product: dict[str, str] = {}
    for line, row in rows:
        if not row["handle"]:
            report.refuse("missing_handle", line, "", right="the product's handle in each of its rows")
            continue
        if row["handle"] != product.get("handle"):
            product = {"handle": row["handle"], **{name: row[name] for name in (*_OF_PRODUCT, *_OPTION_NAMES)}}
        if not any(row[name] for name in _OF_VARIANT):
            continue
        name = _name_in_orders(product, row)
        if not row["sku"]:
            report.note(_WITHOUT_SKU)
        item_id = row["sku"] or name
        by_name[name] = item_id if by_name.get(name, item_id) == item_id else ""  # of two variants: of neither
        item = _variant(line, item_id, product, row, report)
        if item is not None:
            yield item


def _name_in_orders(product: dict[str, str], row: dict[str, str]) -> str:
    """`Shirt - Red / M`, or the title of a product without options."""
    values = [row[name] for name in ("value1", "value2", "value3") if row[name]]
    is_only = (product["option1"], *values) == _ONLY_VARIANT or not values
    return product["title"] if is_only else f"{product['title']} - {' / '.join(values)}"


def _variant(
    line: int, item_id: str, product: dict[str, str], row: dict[str, str], report: ImportReport
) -> ImportedItem | None:
    fields: dict[str, Any] = {
        "item_id": item_id,
        "title": product["title"],
        "brand": product["vendor"],
        "description": product["description"],
        "group_id": product["handle"],
    }
    if category := product["type"] or product["category"]:
        fields["categories"] = [category] if product["type"] else [name.strip() for name in category.split(">")]
    for name in ("price", "compare_at_price"):
        if row[name]:
            money = read_money(row[name])
            if money is None:
                report.refuse("bad_price", line, shown(row[name]), right=RIGHT_PRICE)
                return None
            fields[name] = money.amount
    stock = _in_stock(row)
    if stock is None:
        report.refuse("bad_quantity", line, shown(row["quantity"]), right="a whole number of pieces in stock")
        return None
    is_offered = product["status"].casefold() in ("", "active") and product["published"].casefold() != "false"
    fields["available"] = stock and is_offered
    if tags := [tag.strip() for tag in product["tags"].split(",") if tag.strip()]:
        fields["tags"] = tags
    if product["image"]:
        fields["image_link"] = product["image"]
    for number in (1, 2, 3):
        name, value = product[f"option{number}"], row[f"value{number}"]
        if name and value and (name, value) != _ONLY_VARIANT:
            fields[f"option_{name}" if name.casefold() in ROW_FIELDS or name in fields else name] = value
    return ImportedItem(line, fields)


def _in_stock(row: dict[str, str]) -> bool | None:
    """Whether a variant can be bought; None where its stock is no number."""
    if not row["tracker"] or row["policy"].casefold() in ("continue", "true") or not row["quantity"]:
        return True
    try:
        return int(row["quantity"]) > 0
    except ValueError:
        return None


class _Order(NamedTuple):
    """What the first row of an order says of all its rows; `reason`: why the order is left out, else ""."""

    name: str
    user_id: str = ""
    session_id: str = ""
    moment: float = 0.0
    reason: str = ""


def _orders(
    rows: Iterable[tuple[int, dict[str, str]]], by_name: dict[str, str], report: ImportReport
) -> Iterator[ImportedEvent]:
    """An order's first row holds what is the order's own, and its first line item."""
    order: _Order | None = None
    for line, row in rows:
        if order is None or not row["order"] or row["order"] != order.name:
            order = _order(line, row, report)
        if order.reason:
            report.leave_out(order.reason, line)
            continue
        item_id = row["sku"] or by_name.get(row["line_name"], "")
        if not item_id:
            report.leave_out("are line items without a SKU whose name is no variant of the product export", line)
            continue
        weight = read_quantity(row["quantity"])
        if weight is None:
            report.refuse("bad_quantity", line, shown(row["quantity"]), right=RIGHT_QUANTITY)
            continue
        yield ImportedEvent(line, item_id, order.moment, "purchase", order.user_id, order.session_id, weight)


def _order(line: int, row: dict[str, str], report: ImportReport) -> _Order:
    name, status = row["order"], row["status"].casefold()
    moment = read_moment(row["created"])
    if moment is None:
        report.refuse("bad_timestamp", line, shown(row["created"]), right=f"{RIGHT_MOMENT}, in an order's first row")
        return _Order(name, reason="are of orders without a time that can be read")
    if row["cancelled"]:
        return _Order(name, reason="are of cancelled orders")
    if status == "refunded":
        return _Order(name, reason=CAME_BACK)
    if status in _NOT_SOLD:
        return _Order(name, reason=f"are of orders with the financial status {status}")
    if status == "partially_refunded":
        report.note("the export does not say which lines of an order are refunded: partly refunded ones count as sold")
    user_id = person_id(row["email"]) if row["email"] else ""
    session_id = "" if user_id else f"order-{name}"
    return _Order(name, user_id, session_id, moment)
