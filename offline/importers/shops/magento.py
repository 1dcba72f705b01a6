"""Magento 2's (Adobe Commerce's) CSV export of products; orders from its REST API or its database.

An item is a product of its own SKU, as orders name it. A configurable product is the group of those that it is sold as,
and stays in the catalogue, not offered. The orders that the admin exports have no line items.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from isrf.contract.item_changes import ROW_FIELDS
from isrf.contract.shown import shown
from offline.importers.importer import Imported, ImportedItem
from offline.importers.report import ImportReport
from offline.importers.rows import Table, first_character, table_rows
from offline.importers.shops.magento_orders import ORDER_TABLES, events_of, rest_lines, table_lines
from offline.importers.values import RIGHT_PRICE, read_money

PRODUCTS = Table(
    "Magento's products",
    {
        name: (name,)
        for name in (
            "sku", "store_view_code", "product_type", "categories", "name", "description", "short_description",
            "product_online", "visibility", "price", "special_price", "special_price_from_date",
            "special_price_to_date", "base_image", "url_key", "additional_attributes", "is_in_stock",
            "configurable_variations",
        )
    },
    ("sku", "product_type", "name", "product_online"),
)  # fmt: skip
_CONFIGURABLE = "configurable"
_INVISIBLE = "not visible individually"
_INHERITED = ("categories", "description", "short_description", "base_image", "url_key")
_VARIATION = re.compile(r"(?:^|\|)sku=([^,|]+)")
_ATTRIBUTE = re.compile(r",(?=\w+=)")
_LEVEL = re.compile(r"(?<!\\)/")
Row = dict[str, str]


class Magento:
    """Reads exports of Magento 2."""

    name = "magento"
    description = "catalogue and purchases from Magento 2's exports"
    reads = "the product export as CSV, and orders: JSON of the REST API, or CSV of the order items; in any order"

    def read(self, files: Sequence[Path], report: ImportReport) -> Iterator[Imported]:
        for part, path in enumerate(files):
            if first_character(path) in ("{", "["):
                yield from events_of(rest_lines(path, part, report), report)
                continue
            table, rows = table_rows(path, part, report, [*ORDER_TABLES, PRODUCTS])
            if table is PRODUCTS:
                yield from _products(rows, report)
            else:
                yield from events_of(table_lines(path, table, rows), report)


def _products(rows: Iterable[tuple[int, Row]], report: ImportReport) -> Iterator[ImportedItem]:
    """The items at the end of the file, since a configurable product follows those that it is sold as."""
    products: list[tuple[int, Row]] = []
    parents: dict[str, Row] = {}  # by the SKU of the variation
    for line, row in rows:
        if row["store_view_code"]:
            report.leave_out("are the texts of one store view", line)
            continue
        products.append((line, row))
        if row["product_type"] == _CONFIGURABLE:
            parents |= dict.fromkeys(_VARIATION.findall(row["configurable_variations"]), row)
    groups = {parent["sku"] for parent in parents.values()}
    for line, row in products:
        item = _item(line, row, parents.get(row["sku"]), report)
        if item is not None and row["sku"] in groups:
            item = item._replace(fields=item.fields | {"group_id": row["sku"], "available": False})
        if item is not None:
            yield item


def _item(line: int, own: Row, parent: Row | None, report: ImportReport) -> ImportedItem | None:
    row = own if parent is None else own | {name: own[name] or parent[name] for name in _INHERITED}
    fields: dict[str, Any] = {
        "item_id": row["sku"],
        "title": row["name"],
        "description": row["description"] or row["short_description"],
        "categories": _categories(row["categories"]),
        "group_id": parent["sku"] if parent else "",
        "available": own["product_online"] == "1" and own["is_in_stock"] != "0",
    }
    is_shown = own["visibility"].casefold() != _INVISIBLE if parent is None else parent["product_online"] == "1"
    fields["available"] = fields["available"] and is_shown
    for name in ("price", "special_price"):
        if row[name]:
            money = read_money(row[name])
            if money is None:
                report.refuse("bad_price", line, shown(row[name]), right=RIGHT_PRICE)
                return None
            fields[name] = money.amount
    if "special_price" in fields and not row["special_price_from_date"] and not row["special_price_to_date"]:
        fields["regular_price"], fields["price"] = fields.get("price"), fields["special_price"]
    for name in ("base_image", "url_key"):
        if row[name]:
            fields[name] = row[name]
    for name, value in _attributes(row["additional_attributes"]).items():
        fields[f"attribute_{name}" if name.casefold() in ROW_FIELDS or name in fields else name] = value
    return ImportedItem(line, fields)


def _categories(text: str) -> list[str]:
    """The deepest of the paths, the first of equally deep ones, without the root, which is no category of the shop."""
    paths = [[name.strip().replace("\\/", "/") for name in _LEVEL.split(path)] for path in text.split(",")]
    return max(paths, key=len)[1:]


def _attributes(text: str) -> Mapping[str, Any]:
    """The values of `color=Black,activity=Gym|Hiking`; a text or a list."""
    found: dict[str, Any] = {}
    for pair in _ATTRIBUTE.split(text):
        name, _, value = pair.strip('"').partition("=")
        values = [plain for part in value.split("|") if (plain := part.strip().strip('"'))]
        if name and values:
            found[name] = values[0] if len(values) == 1 else values
    return found
