"""WooCommerce's CSV of products and the order export with a row per item: variations, guests, refunds."""

import hashlib
import json
from pathlib import Path

import pytest

from isrf.contract.errors import DataError
from offline.importers.shops.woocommerce_orders import NUM_ITEMS
from tests.offline.importers.import_command import import_files, json_lines, write_file
from tests.offline.stages.ingest.ingest_command import events_of, ingest, report_of

PRODUCTS = """ID,Type,SKU,Name,Published,Short description,Description,Date sale price starts,Date sale price ends,In stock?,Sale price,Regular price,Categories,Tags,Images,Parent,Brands,Attribute 1 name,Attribute 1 value(s)
61,variation,MUG-L,Blue Mug - Large,1,,,,,1,,"12,50",,,,id:44,,Size,Large
44,variable,MUG,Blue Mug,1,Short.,<p>Holds 0.4 l.</p>\\n\\n<p>Fine.</p>,,,1,,,"Kitchen > Cups, Gifts","blue, gift",https://shop.example/a.jpg,,Tassen,Size,"Small, Large"
62,"variation, virtual",MUG-S,Blue Mug - Small,1,,,,,0,,"9,50",,,,MUG,,Size,Small
45,simple,TEA,Teapot,1,,Cast iron.,,,backorder,"39,00","49,00",Kitchen,,,,,,
46,simple,TOWEL,Tea Towel,'-1,,,2025-11-01,2025-12-01,1,"5,00","7,00","Kitchen\\, Bath > Textiles",,,,,,
"""  # noqa: E501
ORDERS = """order_id,order_number,date,status,order_currency,customer_id,billing_email,item_id,item_product_id,item_name,item_sku,item_quantity,item_total,item_refunded,item_refunded_qty
501,501,2025-10-07 07:50:26,completed,EUR,12,ann@example.com,1,61,Blue Mug - Large,MUG-L,2,25.00,0.00,0
501,501,2025-10-07 07:50:26,completed,EUR,12,ann@example.com,2,45,Teapot,TEA,1,39.00,39.00,-1
502,502,2025-10-08 16:00:00,processing,EUR,0,bob@example.com,3,45,Teapot,TEA,3,117.00,39.00,-1
503,503,2025-10-09 16:00:00,cancelled,EUR,12,ann@example.com,4,46,Tea Towel,TOWEL,1,7.00,0.00,0
504,504,2025-10-10 16:00:00,refunded,EUR,0,,5,46,Tea Towel,TOWEL,1,7.00,7.00,-1
"""  # noqa: E501
BOB = "email-" + hashlib.sha256(b"bob@example.com").hexdigest()[:24]


def test_products_and_orders_become_a_folder_that_ingest_takes(tmp_path: Path) -> None:
    more = "".join(
        f"60{day},60{day},2025-12-0{day} 10:00:00,wc-completed,EUR,12,ann@example.com,9,{item},x,x,1,1,0.00,0\n"
        for day, item in enumerate((61, 62, 44, 45, 46), start=1)
    )
    files = [write_file(tmp_path / "products.csv", PRODUCTS), write_file(tmp_path / "orders.csv", ORDERS + more)]
    imported = import_files("woocommerce", files, tmp_path / "shop")
    assert imported.events[:2] == [
        ("12", "61", "1759823426", "purchase", "2", ""),
        (BOB, "45", "1759939200", "purchase", "2", ""),
    ]
    of_mug = {
        "brand": "Tassen",
        "description": "Holds 0.4 l. Fine.",
        "categories": ["Kitchen", "Cups"],
        "group_id": "44",
        "tags": ["blue", "gift"],
        "image_link": "https://shop.example/a.jpg",
    }
    assert imported.items == {
        "45": {
            "item_id": "45",
            "title": "Teapot",
            "description": "Cast iron.",
            "categories": ["Kitchen"],
            "price": 39.0,
            "available": True,
            "sale_price": 39.0,
            "regular_price": 49.0,
            "sku": "TEA",
        },
        "46": {
            "item_id": "46",
            "title": "Tea Towel",
            "categories": ["Kitchen, Bath", "Textiles"],
            "price": 7.0,
            "available": False,
            "sale_price": 5.0,
            "regular_price": 7.0,
            "sku": "TOWEL",
        },
        "61": {
            "item_id": "61",
            "title": "Blue Mug - Large",
            "price": 12.5,
            "regular_price": 12.5,
            "available": True,
            "sku": "MUG-L",
            "Size": "Large",
            **of_mug,
        },
        "62": {
            "item_id": "62",
            "title": "Blue Mug - Small",
            "price": 9.5,
            "regular_price": 9.5,
            "available": False,
            "sku": "MUG-S",
            "Size": "Small",
            **of_mug,
        },
        "44": {
            "item_id": "44",
            "title": "Blue Mug",
            "available": False,
            "sku": "MUG",
            "Size": ["Small", "Large"],
            **of_mug,
        },
    }
    assert "left out: 1 rows are of orders with the status cancelled (first: orders.csv line 5)" in imported.said
    assert "the order export's dates have no zone and are read as UTC" in imported.said
    assert "example.com" not in (tmp_path / "shop" / "interactions.csv").read_text() + imported.said
    out = ingest(tmp_path / "shop", tmp_path / "releases")
    assert [event[1] for event in events_of(out)] == ["61", "61", "62", "44", "45", "46"]
    assert report_of(out)["counts"]["items"] == 5


def test_categories_without_a_name_are_none(tmp_path: Path) -> None:
    products = PRODUCTS.splitlines()[0] + "\n45,simple,TEA,Teapot,1,,,,,1,,49," + '", ,",,,,,,\n'
    imported = import_files("woocommerce", [write_file(tmp_path / "products.csv", products)], tmp_path / "shop")
    assert "categories" not in imported.items["45"]


def test_orders_of_the_rest_api_are_the_same_events(tmp_path: Path) -> None:
    def order(number: int, status: str, customer: int, *items: tuple[int, int, int]) -> dict[str, object]:
        listed = [{"product_id": one, "variation_id": other, "quantity": count} for one, other, count in items]
        about = {"status": status, "date_created_gmt": "2025-10-07T07:50:26", "customer_id": customer}
        return {"id": number, **about, "billing": {"email": "Bob@example.com"}, "line_items": listed}

    orders = [
        order(501, "completed", 12, (44, 61, 2), (45, 0, 1)),
        order(502, "processing", 0, (45, 0, 1)),
        order(503, "pending", 12, (46, 0, 1)),
        order(504, "refunded", 12, (46, 0, 1)),
    ]
    imported = import_files("woocommerce", [write_file(tmp_path / "o.jsonl", json_lines(*orders))], tmp_path / "shop")
    assert imported.events == [
        ("12", "61", "1759823426", "purchase", "2", ""),
        ("12", "45", "1759823426", "purchase", "1", ""),
        (BOB, "45", "1759823426", "purchase", "1", ""),
    ]
    assert "left out: 1 rows are of orders with the status pending (first: line 3)" in imported.said
    assert "left out: 1 rows are purchases that came back (first: line 4)" in imported.said
    assert "zone" not in imported.said
    listed = import_files(
        "woocommerce", [write_file(tmp_path / "o.json", json.dumps(orders, indent=1))], tmp_path / "2"
    )
    assert listed.events == imported.events
    odd = order(505, "completed", 12) | {"refunds": [{"id": 7, "total": "-1.00"}]}
    odd["line_items"] = [{"product_id": 45.0, "quantity": 2.5}, {"product_id": 46, "quantity": [1]}]
    some = import_files(
        "woocommerce", [write_file(tmp_path / "odd.jsonl", json_lines(odd))], tmp_path / "3", "--max-bad-rows", "1"
    )
    assert [(event[1], event[4]) for event in some.events] == [("45", "2.5")]
    assert "bad_quantity 1 (line 1: [1]" in some.said
    assert "partly refunded orders count as sold" in some.said
    assert "partly refunded" not in imported.said
    with pytest.raises(DataError) as caught:
        import_files("woocommerce", [write_file(tmp_path / "x.jsonl", json_lines({"id": 1}))], tmp_path / "x")
    assert "bad_line_items 1 (line 1: null" in caught.value.message


ONE_ROW = """order_id,order_number,order_date,paid_date,status,customer_id,customer_email,billing_email,line_item_1,line_item_2
501,501,2025-10-07 07:50:26,,completed,12,ann@example.com,ann@example.com,name:Mug|product_id:61|sku:MUG-L|quantity:2|total:25.00|sub_total:25.00,name:Teapot|product_id:45|sku:TEA|quantity:1|total:39.00|sub_total:39.00
502,502,2025-10-08 16:00:00,,failed,0,,bob@example.com,name:Teapot|product_id:45|sku:TEA|quantity:1|total:39.00|sub_total:39.00,
"""  # noqa: E501
BY_SKU = """Order Number,Order Status,Order Date,Email (Billing),SKU,Item #,Item Name,Quantity (- Refund)
501,Completed,2025-10-07 07:50,bob@example.com,MUG-L,1,Blue Mug - Large,2
501,Completed,2025-10-07 07:50,bob@example.com,TEA,2,Teapot,0
502,On hold,2025-10-07 07:50,bob@example.com,TEA,1,Teapot,1
503,Completed,2025-10-07 07:50,bob@example.com,GONE,1,Old pot,1
504,Completed,2025-10-07 07:50,bob@example.com,,1,Old can,1
"""


def test_orders_with_their_items_in_columns_are_the_same_events(tmp_path: Path) -> None:
    imported = import_files("woocommerce", [write_file(tmp_path / "o.csv", "\ufeff" + ONE_ROW)], tmp_path / "shop")
    assert imported.events == [
        ("12", "61", "1759823426", "purchase", "2", ""),
        ("12", "45", "1759823426", "purchase", "1", ""),
    ]
    assert "left out: 1 rows are of orders with the status failed" in imported.said


def test_line_items_beyond_the_last_column_that_is_read_are_counted(tmp_path: Path) -> None:
    columns = range(1, NUM_ITEMS + 3)
    header = "order_id,date,status,customer_id,billing_email," + ",".join(f"line_item_{number}" for number in columns)
    items = ",".join(f"product_id:{number}|quantity:1" for number in columns)
    file = write_file(tmp_path / "o.csv", f"{header}\n501,2025-10-07 07:50:26,completed,12,,{items}\n")
    imported = import_files("woocommerce", [file], tmp_path / "shop")
    assert len(imported.events) == NUM_ITEMS
    assert f"left out: 1 rows have more line items than the {NUM_ITEMS} that are read (first: line 2)" in imported.said


def test_orders_that_name_skus_take_the_ids_of_the_product_export(tmp_path: Path) -> None:
    orders, products = write_file(tmp_path / "o.csv", BY_SKU), write_file(tmp_path / "products.csv", PRODUCTS)
    imported = import_files("woocommerce", [orders, products], tmp_path / "shop")
    assert imported.events == [
        (BOB, "61", "1759823400", "purchase", "2", ""),
    ]
    assert "1 rows are of orders with the status on-hold" in imported.said
    assert "1 rows are line items whose SKU the product export lacks (first: o.csv line 5)" in imported.said
    assert "1 rows are line items without a product" in imported.said
    twice = write_file(tmp_path / "twice.csv", PRODUCTS.replace("46,simple,TOWEL", "46,simple,MUG-L"))
    ambiguous = import_files("woocommerce", [write_file(tmp_path / "o2.csv", BY_SKU), twice], tmp_path / "2")
    assert ambiguous.events == []
    assert "1 rows are line items whose SKU several products have (first: o2.csv line 2)" in ambiguous.said
    for wrong, said in ((BY_SKU, 'unknown_sku 2 (line 2: "MUG-L"'), (BY_SKU.replace("Mug - Large,2", "Mug,x"), '"x"')):
        with pytest.raises(DataError) as caught:
            import_files("woocommerce", [write_file(tmp_path / "x.csv", wrong)], tmp_path / "x")
        assert said in caught.value.message


def test_orders_without_ids_of_products_are_refused_with_where_to_take_them(tmp_path: Path) -> None:
    analytics = "Date,Order #,N. Revenue (formatted),Status,Customer,Customer type,Product(s),Items sold\n"
    file = write_file(tmp_path / "orders.csv", analytics + "2025-10-07,501,64,completed,Ann,new,2× Mug,2\n")
    with pytest.raises(DataError) as caught:
        import_files("woocommerce", [file], tmp_path / "shop")
    assert caught.value.code == "import.no_line_items"
    assert "REST API" in caught.value.fix


def test_values_that_cannot_be_read_are_refused_with_their_lines(tmp_path: Path) -> None:
    products = (
        PRODUCTS.replace("MUG,,Size,Small", "CUP,,Size,Small")
        .replace('"39,00"', "soon")
        .replace("'-1,,,2025", "x,,,2025")
    )
    orders = ORDERS.replace("2025-10-07 07", "7.10.2025 07").replace("TEA,3,", "TEA,many,")
    files = [write_file(tmp_path / "products.csv", products), write_file(tmp_path / "orders.csv", orders)]
    with pytest.raises(DataError) as caught:
        import_files("woocommerce", files, tmp_path / "shop")
    for said in (
        'unknown_parent 1 (products.csv line 4: "CUP"',
        'bad_price 1 (products.csv line 5: "soon"',
        'bad_available 1 (products.csv line 6: "x"',
        'bad_timestamp 2 (orders.csv line 2: "7.10.2025 07:50:26"',
        'bad_quantity 1 (orders.csv line 4: "many"',
    ):
        assert said in caught.value.message


def test_an_export_in_another_language_is_refused_with_the_names_that_it_lacks(tmp_path: Path) -> None:
    german = write_file(tmp_path / "products.csv", "ID,Typ,Artikelnummer,Name,Veröffentlicht\n1,simple,A,B,1\n")
    with pytest.raises(DataError) as caught:
        import_files("woocommerce", [german], tmp_path / "shop")
    assert caught.value.code == "import.unknown_table"
    assert 'WooCommerce\'s products have "ID", "Type", "Name", "Published"' in caught.value.message
    assert "in English" in caught.value.fix
