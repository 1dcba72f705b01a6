"""Shopify's CSV exports: variants, images, orders of several rows, guests, refunds."""

import gzip
import hashlib
from pathlib import Path

import pytest

from isrf.contract.errors import DataError
from tests.offline.importers.import_command import import_files, write_file
from tests.offline.stages.ingest.ingest_command import events_of, ingest, report_of

PRODUCTS = """Handle,Title,Body (HTML),Vendor,Product Category,Type,Tags,Published,Option1 Name,Option1 Value,Variant SKU,Variant Inventory Tracker,Variant Inventory Qty,Variant Inventory Policy,Variant Price,Variant Compare At Price,Image Src,Status
mug,Blue Mug,"<p>Holds 0.4 l.</p>

<p>Dishwasher-safe.</p>",Tassen,Home & Garden > Kitchen,Cups,"gift, blue",true,Size,Small,MUG-S,shopify,0,deny,9.50,12.00,https://cdn.example/mug.jpg,active
mug,,,,,,,,,Large,MUG-L,shopify,0,continue,12.50,,,
mug,,,,,,,,,,,,,,,,https://cdn.example/mug-2.jpg,
teapot,Teapot,,Tassen,Home & Garden > Kitchen,,,true,Title,Default Title,TEA,,,deny,49.00,,,active
towel,Tea Towel,,Leinen,,Textiles,,true,Title,Default Title,TOWEL,shopify,3,deny,7.00,,,draft
card,Gift Card,,,,,,true,Value,25 €,,,,deny,25.00,,,active
bag,Bag,,,,,,true,Title,Default Title,,,,deny,2.00,,,active
"""  # noqa: E501
ORDERS = """Name,Email,Financial Status,Paid at,Currency,Total,Created at,Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku,Cancelled at,Refunded Amount,Id
#1001,ann@example.com,paid,2025-10-07 09:50:30 +0200,EUR,74.00,2025-10-07 09:50:26 +0200,2,Blue Mug - Large,12.50,MUG-L,,0.00,51
#1001,,,,,,,1,Teapot,49.00,TEA,,,
#1001,,,,,,,1,Gift wrapping,2.00,,,,
#1001,,,,,,,1,Gift Card - 25 €,25.00,,,,
#1002, Ann@Example.com ,refunded,2025-10-08 18:00:05 +0200,EUR,49.00,2025-10-08 18:00:00 +0200,1,Teapot,49.00,TEA,,49.00,52
#1003,eve@example.com,voided,,EUR,49.00,2025-11-03 10:00:00 +0100,1,Teapot,49.00,TEA,,0.00,53
#1004,eve@example.com,refunded,,EUR,7.00,2025-11-03 10:00:00 +0100,1,Tea Towel,7.00,TOWEL,2025-11-03 12:00:00 +0100,7.00,54
#1005,,paid,2025-11-09 10:00:00 +0100,EUR,7.00,2025-11-09 10:00:00 +0100,1,Tea Towel,7.00,TOWEL,,0.00,55
#1006,bob@example.com,partially_refunded,,EUR,7.00,2025-11-10 10:00:00 +0100,1,Tea Towel,7.00,TOWEL,,1.00,56
"""  # noqa: E501
ANN = "email-" + hashlib.sha256(b"ann@example.com").hexdigest()[:24]
BOB = "email-" + hashlib.sha256(b"bob@example.com").hexdigest()[:24]


def test_products_and_orders_become_a_folder_that_ingest_takes(tmp_path: Path) -> None:
    more = "".join(
        f"#20{day},ann@example.com,paid,,EUR,7.00,2025-12-0{day} 10:00:00 +0100,1,x,7.00,{sku},,0.00,{day}\n"
        for day, sku in enumerate(("MUG-S", "MUG-L", "TEA", "TOWEL"), start=1)
    )
    files = [write_file(tmp_path / "orders.csv", ORDERS + more), write_file(tmp_path / "products.csv", PRODUCTS)]
    imported = import_files("shopify", files, tmp_path / "shop")
    assert imported.events[:5] == [
        (ANN, "MUG-L", "1759823426", "purchase", "2", ""),
        (ANN, "TEA", "1759823426", "purchase", "1", ""),
        (ANN, "Gift Card - 25 €", "1759823426", "purchase", "1", ""),
        ("", "TOWEL", "1762678800", "purchase", "1", "order-#1005"),
        (BOB, "TOWEL", "1762765200", "purchase", "1", ""),
    ]
    assert imported.items == {
        "MUG-S": {
            "item_id": "MUG-S",
            "title": "Blue Mug",
            "brand": "Tassen",
            "description": "Holds 0.4 l. Dishwasher-safe.",
            "categories": ["Cups"],
            "price": 9.5,
            "compare_at_price": 12.0,
            "group_id": "mug",
            "available": False,
            "tags": ["gift", "blue"],
            "image_link": "https://cdn.example/mug.jpg",
            "Size": "Small",
        },
        "MUG-L": {
            "item_id": "MUG-L",
            "title": "Blue Mug",
            "brand": "Tassen",
            "description": "Holds 0.4 l. Dishwasher-safe.",
            "categories": ["Cups"],
            "price": 12.5,
            "group_id": "mug",
            "available": True,
            "tags": ["gift", "blue"],
            "image_link": "https://cdn.example/mug.jpg",
            "Size": "Large",
        },
        "TEA": {
            "item_id": "TEA",
            "title": "Teapot",
            "brand": "Tassen",
            "categories": ["Home & Garden", "Kitchen"],
            "price": 49.0,
            "group_id": "teapot",
            "available": True,
        },
        "TOWEL": {
            "item_id": "TOWEL",
            "title": "Tea Towel",
            "brand": "Leinen",
            "categories": ["Textiles"],
            "price": 7.0,
            "group_id": "towel",
            "available": False,
        },
        "Gift Card - 25 €": {
            "item_id": "Gift Card - 25 €",
            "title": "Gift Card",
            "price": 25.0,
            "group_id": "card",
            "available": True,
            "Value": "25 €",
        },
        "Bag": {"item_id": "Bag", "title": "Bag", "price": 2.0, "group_id": "bag", "available": True},
    }
    for said in (
        "1 rows are line items without a SKU whose name is no variant of the product export (first: orders.csv line 4)",
        "left out: 1 rows are of orders with the financial status voided (first: orders.csv line 7)",
        "left out: 1 rows are purchases that came back (first: orders.csv line 6)",
        "left out: 1 rows are of cancelled orders (first: orders.csv line 8)",
        "variants without a SKU have their name in orders as item_id",
        "partly refunded ones count as sold",
    ):
        assert said in imported.said
    assert "example.com" not in (tmp_path / "shop" / "interactions.csv").read_text() + imported.said
    out = ingest(tmp_path / "shop", tmp_path / "releases")
    assert [event[1] for event in events_of(out)] == [
        "MUG-L", "TEA", "Gift Card - 25 €", "MUG-S", "MUG-L", "TEA", "TOWEL",
    ]  # fmt: skip
    assert report_of(out)["counts"]["items"] == 6


def test_all_rows_of_an_order_are_refunded_or_cancelled_with_its_first(tmp_path: Path) -> None:
    orders = """Name,Email,Financial Status,Created at,Lineitem quantity,Lineitem name,Lineitem sku,Cancelled at
#1,a@example.com,paid,2025-01-07 09:50:26 +0200,1,Coffee,COFFEE,
#2,a@example.com,refunded,2025-02-07 09:50:26 +0200,1,Coffee,COFFEE,
#2,,,2025-02-07 09:50:26 +0200,1,Tea,TEA,
#3,a@example.com,paid,2025-03-07 09:50:26 +0200,1,Mug,MUG,2025-03-08 09:50:26 +0200
#3,,,2025-03-07 09:50:26 +0200,1,Pot,POT,
"""
    imported = import_files("shopify", [write_file(tmp_path / "orders.csv", orders)], tmp_path / "shop")
    assert [event[1:4] for event in imported.events] == [("COFFEE", "1736236226", "purchase")]
    assert "left out: 2 rows are purchases that came back (first: line 3)" in imported.said
    assert "left out: 2 rows are of cancelled orders (first: line 5)" in imported.said


def test_the_newer_names_of_the_product_columns_are_the_same_columns(tmp_path: Path) -> None:
    names = {
        "Handle": "URL handle", "Body (HTML)": "Description", "Published": "Published on online store",
        "Option1 Name": "Option1 name", "Option1 Value": "Option1 value", "Variant SKU": "SKU",
        "Variant Inventory Tracker": "Inventory tracker", "Variant Inventory Qty": "Inventory quantity",
        "Variant Inventory Policy": "Continue selling when out of stock", "Variant Price": "Price",
        "Variant Compare At Price": "Compare-at price", "Image Src": "Product image URL",
    }  # fmt: skip
    header, _, rows = PRODUCTS.partition("\n")
    newer = ",".join(names.get(name, name) for name in header.split(","))
    old = import_files("shopify", [write_file(tmp_path / "old.csv", PRODUCTS)], tmp_path / "1")
    new = import_files("shopify", [write_file(tmp_path / "new.csv", f"{newer}\n{rows}")], tmp_path / "2")
    assert new.items == old.items
    assert len(new.items) == 6


def test_values_that_cannot_be_read_are_refused_with_their_lines(tmp_path: Path) -> None:
    orders = ORDERS.replace("2025-10-07 09:50:26 +0200", "07.10.2025").replace(
        ",1,Tea Towel,7.00,TOWEL,,1.00", ",x,T,9,TOWEL,,1.00"
    )
    products = PRODUCTS.replace("12.50", "twelve").replace("shopify,3", "shopify,many")
    files = [write_file(tmp_path / "orders.csv", orders), write_file(tmp_path / "products.csv", products)]
    with pytest.raises(DataError) as caught:
        import_files("shopify", files, tmp_path / "shop")
    for said in (
        'bad_timestamp 1 (orders.csv line 2: "07.10.2025"',
        'bad_quantity 2 (orders.csv line 10: "x", products.csv line 8: "many"',
        'bad_price 1 (products.csv line 5: "twelve"',
    ):
        assert said in caught.value.message
    assert import_files("shopify", files, tmp_path / "shop", "--max-bad-rows", "0.9", "--only", "items").events == []


def test_a_file_that_a_spreadsheet_saved_and_packed_is_the_same_file(tmp_path: Path) -> None:
    plain = import_files("shopify", [write_file(tmp_path / "orders.csv", ORDERS)], tmp_path / "1")
    saved = ORDERS.replace(",", ";").replace("Blue Mug", "Blaue Tasse für Tee").encode("cp1252")
    packed = write_file(tmp_path / "orders.csv.gz", gzip.compress(saved))
    assert import_files("shopify", [packed], tmp_path / "2").events == plain.events


def test_rows_that_are_none_count_as_rows_of_the_file(tmp_path: Path) -> None:
    broken = write_file(tmp_path / "orders.csv", ORDERS + "#1007,ann@example.com\n" * 3 + "#1008,x\n")
    with pytest.raises(DataError) as caught:
        import_files("shopify", [broken], tmp_path / "shop")
    assert "4 of 13 rows cannot be used" in caught.value.message
    assert "malformed_row 4 (line 11: 2 fields, not 14" in caught.value.message


def test_a_name_of_two_variants_names_neither(tmp_path: Path) -> None:
    twice = PRODUCTS + "pot,Teapot,,,,,,true,Title,Default Title,TEA-2,,,deny,9.00,,,active\n"
    orders = ORDERS.replace("Teapot,49.00,TEA,", "Teapot,49.00,,")
    for products, sold in ((PRODUCTS, {"TEA"}), (twice, set())):
        files = [write_file(tmp_path / "orders.csv", orders), write_file(tmp_path / "products.csv", products)]
        events = import_files("shopify", files, tmp_path / f"{len(sold)}").events
        assert {event[1] for event in events} & {"TEA", "TEA-2", "Teapot"} == sold


def test_sold_items_that_the_catalogue_lacks_are_named_with_the_option_to_take_them(tmp_path: Path) -> None:
    orders = write_file(tmp_path / "orders.csv", ORDERS.replace(",TOWEL,", ",GONE,"))
    imported = import_files("shopify", [orders, write_file(tmp_path / "products.csv", PRODUCTS)], tmp_path / "shop")
    said = '2 interactions are of 1 items that the catalogue lacks (first: orders.csv line 9, "GONE")'
    assert f"{said}: give inspect and run --unknown-items drop" in imported.said
    alone = import_files("shopify", [orders], tmp_path / "2")
    assert "the catalogue lacks" not in alone.said
    assert "are line items without a SKU" in alone.said


def test_a_table_that_is_neither_is_named_with_what_both_have(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        import_files("shopify", [write_file(tmp_path / "x.csv", "Titel,Preis\na,1\n")], tmp_path / "shop")
    assert caught.value.code == "import.unknown_table"
    assert 'the columns "Titel", "Preis": Shopify\'s orders have "Name", "Email"' in caught.value.message
