"""WooCommerce's orders: CSV as export plugins write it, or JSON of the REST API.

Plugins write a row for each line item, or a row for each order with its items in columns `line_item_1`, ….
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from isrf.contract.errors import DataError
from isrf.contract.shown import shown
from offline.importers.importer import ImportedEvent
from offline.importers.report import CAME_BACK, ImportReport
from offline.importers.rows import Table, json_rows
from offline.importers.values import RIGHT_MOMENT, RIGHT_QUANTITY, person_id, plain_id, read_moment, read_quantity

NUM_ITEMS = 200
"""Columns `line_item_1`, … that are read."""
_OF_ORDER = {
    "order": ("order_id", "Order ID", "Order Number"),
    "date": ("date", "order_date", "Date", "Order Date"),
    "status": ("status", "Status", "Order Status"),
    "customer": ("customer_id", "Customer ID", "Customer User ID"),
    "email": ("billing_email", "Billing Email", "Email (Billing)"),
}
_OF_LINE = {
    "product": ("item_product_id", "Item Product ID", "Product ID"),
    "variation": ("item_variation_id", "Variation ID"),
    "sku": ("item_sku", "Item SKU", "SKU"),
    "quantity": ("item_quantity", "Item Quantity", "Quantity"),
    "refunded": ("item_refunded_qty", "Item Refunded Quantity"),
    "kept": ("Quantity (- Refund)",),
}
_NEEDED = ("order", "date", "status")
_IN_COLUMNS = Table(
    "WooCommerce's orders with a row for each order",
    {**_OF_ORDER, **{f"item{number}": (f"line_item_{number}",) for number in range(1, NUM_ITEMS + 2)}},
    (*_NEEDED, "item1"),
)
_ANALYTICS = Table("Analytics' orders", {"order": ("Order #",), "products": ("Product(s)",)}, ("order", "products"))
ORDER_TABLES = (
    _IN_COLUMNS,
    _ANALYTICS,
    Table("WooCommerce's orders", {**_OF_ORDER, **_OF_LINE}, (*_NEEDED, "product", "quantity")),
    *(
        Table("WooCommerce's orders by SKU", {**_OF_ORDER, **_OF_LINE}, (*_NEEDED, "sku", quantity))
        for quantity in ("quantity", "kept")
    ),
)
"""What a file of orders may be, the first that fits."""
SOLD = ("completed", "processing", "refunded")


class OrderLine(NamedTuple):
    """A line item with its order's values, as texts; `quantity` as it stands in JSON."""

    order: str
    date: str
    status: str
    customer: str
    email: str
    product: str = ""
    sku: str = ""
    quantity: Any = ""
    refunded: str = ""


def table_lines(
    path: Path, table: Table, rows: Iterable[tuple[int, dict[str, str]]], report: ImportReport
) -> Iterator[tuple[int, OrderLine]]:
    """The line items of one of `ORDER_TABLES`.

    Raises:
        DataError: `import.no_line_items`.
    """
    if table is _ANALYTICS:
        raise DataError(
            "import.no_line_items",
            f"{path} is an export of Analytics, whose orders name products in words, without ids.",
            fix="Take the orders from the REST API or an export plugin: the docs page From WooCommerce says how.",
        )
    report.note("the order export's dates have no zone and are read as UTC")
    for line, row in rows:
        order = OrderLine(*(row[name] for name in _OF_ORDER))
        if table is _IN_COLUMNS:
            if row[f"item{NUM_ITEMS + 1}"]:
                report.leave_out(f"have more line items than the {NUM_ITEMS} that are read", line)
            for number in range(1, NUM_ITEMS + 1):
                if text := row[f"item{number}"]:
                    values = dict(pair.partition(":")[::2] for pair in text.split("|"))
                    product, sku, quantity = (values.get(name, "") for name in ("product_id", "sku", "quantity"))
                    yield line, order._replace(product=product, sku=sku, quantity=quantity)
            continue
        product = row["product"] if row["variation"] in ("", "0") else row["variation"]
        quantity, refunded = row["quantity"], row["refunded"]
        if row["kept"] and not refunded:
            quantity, refunded = _with_refunds(quantity, row["kept"])
        yield line, order._replace(product=product, sku=row["sku"], quantity=quantity, refunded=refunded)


def _with_refunds(quantity: str, kept: str) -> tuple[str, str]:
    """The pieces that were bought and those that came back, of a column of the pieces that stayed."""
    stayed, bought = _number(kept), _number(quantity or kept)
    if stayed is None or bought is None:
        return (kept if stayed is None else quantity), ""  # which is refused with its value
    bought = bought or 1.0  # of a line that says only that nothing stayed
    return f"{bought:g}", f"{bought - stayed:g}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def rest_lines(path: Path, part: int, report: ImportReport) -> Iterator[tuple[int, OrderLine]]:
    """The line items of orders as the REST API answers them (`/wp-json/wc/v3/orders`)."""
    for line, order in json_rows(path, part, report):
        billing, items = order.get("billing"), order.get("line_items")
        if not isinstance(items, list):
            report.refuse("bad_line_items", line, shown(items), right="a list of line items")
            continue
        known = OrderLine(
            plain_id(order.get("id")),
            plain_id(order.get("date_created_gmt")),
            plain_id(order.get("status")),
            plain_id(order.get("customer_id")),
            plain_id(billing.get("email")) if isinstance(billing, dict) else "",
        )
        if order.get("refunds") and known.status != "refunded":
            report.note("the REST API does not say which lines are refunded: partly refunded orders count as sold")
        for item in items:
            if isinstance(item, dict):
                variation, product = plain_id(item.get("variation_id")), plain_id(item.get("product_id"))
                product = product if variation in ("", "0") else variation
                yield line, known._replace(product=product, quantity=item.get("quantity"))


def events_of(
    lines: Iterable[tuple[int, OrderLine]], by_sku: Mapping[str, str], report: ImportReport
) -> Iterator[ImportedEvent]:
    """Purchases that stayed, less the pieces that came back.

    Args:
        lines: with the lines of the file that they stand in.
        by_sku: SKU → product id, of the product export; "" for a SKU of several products.
    """
    for line, row in lines:
        status = row.status.casefold().strip().removeprefix("wc-").replace(" ", "-")
        if status not in SOLD:
            report.leave_out(f"are of orders with the status {status}", line)
            continue
        moment, weight = read_moment(row.date), read_quantity(row.quantity)
        returned = read_quantity(row.refunded.removeprefix("-")) if row.refunded.strip("-0.") else 0.0
        if moment is None:
            report.refuse("bad_timestamp", line, shown(row.date), right=RIGHT_MOMENT)
            continue
        if weight is None or returned is None:
            wrong = row.quantity if weight is None else row.refunded
            report.refuse("bad_quantity", line, shown(wrong), right=RIGHT_QUANTITY)
            continue
        if status == "refunded" or returned >= weight:
            report.leave_out(CAME_BACK, line)
            continue
        item_id = _item_id(line, row, by_sku, report)
        if not item_id:
            continue
        user_id = row.customer if row.customer != "0" else ""
        user_id = user_id or (person_id(row.email) if row.email else "")
        session_id = "" if user_id else f"order-{row.order}"
        yield ImportedEvent(line, item_id, moment, "purchase", user_id, session_id, weight - returned)


def _item_id(line: int, row: OrderLine, by_sku: Mapping[str, str], report: ImportReport) -> str:
    """The id of a line's product; "" where it has none."""
    if row.product not in ("", "0"):
        return row.product
    if not row.sku:
        report.leave_out("are line items without a product, as those of deleted products are", line)
        return ""
    if row.sku in by_sku:
        if not by_sku[row.sku]:
            report.leave_out("are line items whose SKU several products have", line)
        return by_sku[row.sku]
    if by_sku:
        report.leave_out("are line items whose SKU the product export lacks", line)
    else:
        right = "the product's id, or the product export in the same command: it has the ids of SKUs"
        report.refuse("unknown_sku", line, shown(row.sku), right=right)
    return ""
