"""WooCommerce's CSV of products, and orders (`offline.importers.shops.woocommerce_orders`).

A variation is an item, and its parent's id the `group_id`. The parent stays in the catalogue, not offered: orders may
name it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from isrf.contract.item_changes import ROW_FIELDS
from isrf.contract.shown import shown
from offline.importers.importer import Imported, ImportedItem
from offline.importers.report import ImportReport
from offline.importers.rows import Table, first_character, table_rows
from offline.importers.shops.woocommerce_orders import ORDER_TABLES, OrderLine, events_of, rest_lines, table_lines
from offline.importers.values import RIGHT_PRICE, read_money

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
_INHERITED = ("description", "short", "categories", "tags", "brands", "images")
_FLAGS = {"1": True, "0": False, "yes": True, "no": False, "backorder": True, "-1": False}
_FORMULA = re.compile(r"^'(?=[=+\-@\t\r])")
_LINE_END = re.compile(r"(?<!\\)\\n")
Row = dict[str, str]


class WooCommerce:
    """Reads WooCommerce's exports."""

    name = "woocommerce"
    description = "catalogue and purchases from WooCommerce's CSV exports"
    reads = "the product export, and orders: CSV of an export plugin, or JSON of the REST API; in any order"

    def read(self, files: Sequence[Path], report: ImportReport) -> Iterator[Imported]:
        by_sku: dict[str, str] = {}
        orders: list[Iterable[tuple[int, OrderLine]]] = []
        for part, path in enumerate(files):
            if first_character(path) in ("{", "["):
                orders.append(rest_lines(path, part, report))
                continue
            table, rows = table_rows(path, part, report, [*ORDER_TABLES, PRODUCTS])
            if table is PRODUCTS:
                yield from _products(_plain_rows(rows), report, by_sku)
            else:
                orders.append(table_lines(path, table, rows, report))
        for lines in orders:
            yield from events_of(lines, by_sku, report)


def _plain_rows(rows: Iterable[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
    """Rows without what the export adds: an apostrophe before what spreadsheets calculate, `\\n` for line ends."""
    for line, row in rows:
        plain = {name: _FORMULA.sub("", text) for name, text in row.items()}
        yield line, plain | {name: _LINE_END.sub("\n", plain[name]) for name in ("description", "short")}


def _products(rows: Iterable[tuple[int, Row]], report: ImportReport, by_sku: dict[str, str]) -> Iterator[ImportedItem]:
    """Items as they come; variations before their parent, and parents, at the end. Adds to `by_sku` the ids;
    "" for a SKU of several products."""
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
        if row["sku"]:
            by_sku[row["sku"]] = row["id"] if by_sku.get(row["sku"], row["id"]) == row["id"] else ""
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
    if paths := _listed(row["categories"]):  # of several paths the first
        fields["categories"] = [name.strip() for name in paths[0].split(">")]
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
