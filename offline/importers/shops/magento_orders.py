"""Magento 2's orders: JSON of its REST API, or a table of its database's order items with their order's columns.

A configurable product is one line item with the SKU of what was sold, and below it that product again. A bundle is one
with a SKU that no product has, and below it the products in it.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from isrf.contract.errors import DataError
from isrf.contract.shown import shown
from offline.importers.importer import ImportedEvent
from offline.importers.report import CAME_BACK, ImportReport
from offline.importers.rows import Table, json_rows
from offline.importers.values import RIGHT_MOMENT, RIGHT_QUANTITY, person_id, plain_id, read_moment

_OF_ORDER = {
    "increment_id": ("increment_id", "order_increment_id"),
    "state": ("state",),
    "status": ("status",),
    "created_at": ("created_at", "order_created_at"),
    "customer_id": ("customer_id",),
    "customer_email": ("customer_email",),
}
_PIECES = ("qty_ordered", "qty_canceled", "qty_refunded")
_OF_ITEM = ("item_id", "parent_item_id", "product_type", "sku", *_PIECES)
_GRID = Table("the admin's orders", {"date": ("Purchase Date",), "total": ("Grand Total (Base)",)}, ("date", "total"))
ORDER_TABLES = (
    Table(
        "Magento's order items",
        {**_OF_ORDER, **{name: (name,) for name in _OF_ITEM}},
        ("increment_id", "created_at", "status", "item_id", "parent_item_id", "product_type", "sku", "qty_ordered"),
    ),
    _GRID,
)
"""What a file of orders may be."""
SOLD = ("complete", "processing", "closed")
_BUNDLE = "bundle"
Row = dict[str, str]


def table_lines(path: Path, table: Table, rows: Iterable[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
    """The line items of one of `ORDER_TABLES`.

    Raises:
        DataError: `import.no_line_items`.
    """
    if table is _GRID:
        raise DataError(
            "import.no_line_items",
            f"{path} is the export of the admin's list of orders, which does not say what was bought.",
            fix="Take the orders from the REST API or from the database: the docs page From Magento says how.",
        )
    for line, row in rows:
        yield line, {name: "" if text in ("NULL", "\\N") else text for name, text in row.items()}


def rest_lines(path: Path, part: int, report: ImportReport) -> Iterator[tuple[int, Row]]:
    """The line items of orders as the REST API answers them (`/rest/V1/orders`): pages, or an order a line."""
    for line, record in json_rows(path, part, report):
        orders = [record] if "increment_id" in record else record.get("items")
        for order in orders if isinstance(orders, list) else [record]:
            items = order.get("items") if isinstance(order, Mapping) else None
            if not isinstance(items, list):
                report.refuse("bad_line_items", line, shown(items), right="an order with a list of items")
                continue
            known = {name: plain_id(order.get(name)) for name in _OF_ORDER}
            for item in items:
                if isinstance(item, Mapping):
                    pieces = {name: _number(item.get(name)) for name in _PIECES}
                    yield line, known | {name: plain_id(item.get(name)) for name in _OF_ITEM} | pieces


def _number(value: Any) -> str:
    """A number as text; a value that is none stays what it is, to be refused."""
    return "" if value is None else str(value)


def events_of(lines: Iterable[tuple[int, Row]], report: ImportReport) -> Iterator[ImportedEvent]:
    """Purchases that stayed, less the pieces that came back."""
    order, bundles = "", set[str]()
    for line, row in lines:
        if row["increment_id"] != order:
            order, bundles = row["increment_id"], set()
        status = row["state"] or row["status"]
        if status not in SOLD:
            report.leave_out(f"are of orders with the status {status}", line)
            continue
        if row["product_type"] == _BUNDLE:
            bundles.add(row["item_id"])
            report.leave_out("are bundles, whose parts count", line)
            continue
        if row["parent_item_id"] and row["parent_item_id"] not in bundles:
            report.leave_out("repeat the product of the line item that they are part of", line)
            continue
        moment = read_moment(row["created_at"])
        if moment is None:
            report.refuse("bad_timestamp", line, shown(row["created_at"]), right=RIGHT_MOMENT)
            continue
        pieces = [_pieces(row[name]) for name in _PIECES]
        ordered, cancelled, refunded = pieces
        if ordered is None or cancelled is None or refunded is None:
            wrong = row[_PIECES[pieces.index(None)]]
            report.refuse("bad_quantity", line, shown(wrong), right=RIGHT_QUANTITY)
            continue
        if ordered <= cancelled:
            report.leave_out("are cancelled line items", line)
            continue
        weight = ordered - cancelled - refunded
        if status == "closed" or weight <= 0:
            report.leave_out(CAME_BACK, line)
            continue
        user_id = row["customer_id"] if row["customer_id"] != "0" else ""
        user_id = user_id or (person_id(row["customer_email"]) if row["customer_email"] else "")
        session_id = "" if user_id else f"order-{order}"
        yield ImportedEvent(line, row["sku"], moment, "purchase", user_id, session_id, weight)


def _pieces(text: str) -> float | None:
    """A number of pieces, 0 for an empty text; None where it is none."""
    try:
        number = float(text or 0)
    except ValueError:
        return None
    return number if 0 <= number < 1e9 else None
