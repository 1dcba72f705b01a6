"""Magento 2's product export and order items: configurable products, store views, bundles, refunds, guests."""

import hashlib
from pathlib import Path

import pytest

from isrf.contract.errors import DataError
from tests.offline.importers.import_command import import_files, json_lines, write_file
from tests.offline.stages.ingest.ingest_command import ingest, report_of

PRODUCTS = """sku,store_view_code,attribute_set_code,product_type,categories,product_websites,name,description,short_description,weight,product_online,visibility,price,special_price,special_price_from_date,special_price_to_date,url_key,base_image,created_at,additional_attributes,qty,is_in_stock,configurable_variations
HOOD-S,,Top,simple,,base,Hoodie-S,,,0.5,1,Not Visible Individually,52.000000,,,,hoodie-s,,"10/7/25, 9:50 AM","color=Black,size=S",100.0000,1,
HOOD-M,,Top,simple,,base,Hoodie-M,,,0.5,1,Not Visible Individually,1052.000000,,,,,,"10/7/25, 9:50 AM","color=Black,size=M",0.0000,0,
HOOD,,Top,configurable,"Default Category/Men,Default Category/Men/Tops,Default Category/Sale",base,Hoodie,"<p>Soft,</p>
<p>warm.</p>",,,1,"Catalog, Search",,,,,hoodie,/h/o.jpg,"10/7/25, 9:50 AM",,0.0000,1,"sku=HOOD-S,size=S,color=Black|sku=HOOD-M,size=M,color=Black"
HOOD,german,Top,configurable,,,Kapuzenpulli,,,,,,,,,,,,,,,,
BAG,,Bag,simple,Default Category/Gear,base,Bag,,A bag.,1,1,"Catalog, Search",34.0000,30.0000,,,bag,,"10/7/25, 9:50 AM","activity=Gym|Hiking,material=Nylon, cotton,price=low",5.0000,1,
PACK,,Bag,simple,Default Category,base,Pack,,,1,2,"Catalog, Search",32.0000,30.0000,10/7/25,,,,"10/7/25, 9:50 AM",,5.0000,1,
GIFT,,Bag,simple,Default Category,base,Gift,,,1,1,Not Visible Individually,1.0000,,,,,,"10/7/25, 9:50 AM",,5.0000,1,
"""  # noqa: E501
ORDERS = """increment_id,status,created_at,customer_id,customer_email,item_id,parent_item_id,product_type,sku,qty_ordered,qty_canceled,qty_refunded
000000001,complete,2025-10-07 07:50:26,12,ann@example.com,1,NULL,configurable,HOOD-S,2.0000,0.0000,0.0000
000000001,complete,2025-10-07 07:50:26,12,ann@example.com,2,1,simple,HOOD-S,2.0000,0.0000,0.0000
000000001,complete,2025-10-07 07:50:26,12,ann@example.com,3,NULL,simple,BAG,3.0000,1.0000,1.0000
000000001,complete,2025-10-07 07:50:26,12,ann@example.com,4,NULL,simple,PACK,1.0000,1.0000,0.0000
000000002,closed,2025-10-08 16:00:00,NULL,bob@example.com,5,NULL,bundle,SET-BAG-PACK,1.0000,0.0000,0.0000
000000002,closed,2025-10-08 16:00:00,NULL,bob@example.com,6,5,simple,BAG,1.0000,0.0000,1.0000
000000003,canceled,2025-10-08 16:00:00,12,ann@example.com,7,NULL,simple,BAG,1.0000,1.0000,0.0000
000000004,processing,2025-10-09 16:00:00,NULL,NULL,8,NULL,simple,PACK,1.0000,0.0000,0.0000
"""  # noqa: E501
BOB = "email-" + hashlib.sha256(b"bob@example.com").hexdigest()[:24]
EVENTS = [
    ("12", "HOOD-S", "1759823426", "purchase", "2", ""),
    ("12", "BAG", "1759823426", "purchase", "1", ""),
    ("", "PACK", "1760025600", "purchase", "1", "order-000000004"),
]


def test_products_and_orders_become_a_folder_that_ingest_takes(tmp_path: Path) -> None:
    more = "".join(
        f"00{day},complete,2025-12-0{day} 10:00:00,12,x@example.com,{day}0,,simple,{sku},1,0,0\n"
        for day, sku in enumerate(("HOOD-M", "BAG", "PACK", "GIFT", "HOOD"), start=1)
    )
    more += "007,complete,2025-12-07 10:00:00,,bob@example.com,70,,simple,PACK,1,0,0\n"
    files = [write_file(tmp_path / "orders.csv", ORDERS + more), write_file(tmp_path / "products.csv", PRODUCTS)]
    imported = import_files("magento", files, tmp_path / "shop")
    assert imported.events[:3] == EVENTS
    of_hoodie = {
        "description": "Soft, warm.",
        "categories": ["Men", "Tops"],
        "group_id": "HOOD",
        "base_image": "/h/o.jpg",
    }
    assert imported.items == {
        "HOOD-S": {
            "item_id": "HOOD-S", "title": "Hoodie-S", "price": 52.0, "available": True, "url_key": "hoodie-s",
            "color": "Black", "size": "S", **of_hoodie,
        },
        "HOOD-M": {
            "item_id": "HOOD-M", "title": "Hoodie-M", "price": 1052.0, "available": False, "url_key": "hoodie",
            "color": "Black", "size": "M", **of_hoodie,
        },
        "HOOD": {"item_id": "HOOD", "title": "Hoodie", "available": False, "url_key": "hoodie", **of_hoodie},
        "BAG": {
            "item_id": "BAG", "title": "Bag", "description": "A bag.", "categories": ["Gear"], "price": 30.0,
            "special_price": 30.0, "regular_price": 34.0, "available": True, "url_key": "bag",
            "activity": ["Gym", "Hiking"], "material": "Nylon, cotton", "attribute_price": "low",
        },
        "PACK": {"item_id": "PACK", "title": "Pack", "price": 32.0, "special_price": 30.0, "available": False},
        "GIFT": {"item_id": "GIFT", "title": "Gift", "price": 1.0, "available": False},
    }  # fmt: skip
    for said in (
        "1 rows are the texts of one store view (first: products.csv line 6)",
        "1 rows are of orders with the status canceled (first: orders.csv line 8)",
        "1 rows are bundles, whose parts count",
        "1 rows are cancelled line items",
        "1 rows are purchases that came back (first: orders.csv line 7)",
        "1 rows repeat the product of the line item that they are part of (first: orders.csv line 3)",
    ):
        assert said in imported.said
    assert "example.com" not in (tmp_path / "shop" / "interactions.csv").read_text() + imported.said
    assert report_of(ingest(tmp_path / "shop", tmp_path / "releases"))["counts"]["items"] == 6


def test_orders_of_the_rest_api_are_the_same_events(tmp_path: Path) -> None:
    header, *rows = [line.split(",") for line in ORDERS.splitlines()]
    orders: dict[str, dict[str, object]] = {}
    for row in rows:
        cells = {name: None if text == "NULL" else text for name, text in zip(header, row, strict=True)}
        names = ("increment_id", "status", "created_at", "customer_id", "customer_email")
        order = orders.setdefault(row[0], {name: cells[name] for name in names} | {"items": []})
        numbers = {name: float(cells[name] or 0) for name in header if name.startswith("qty")}
        ids = {name: int(cells[name] or 0) or None for name in ("item_id", "parent_item_id")}
        items = order["items"]
        assert isinstance(items, list)
        items.append({"sku": cells["sku"], "product_type": cells["product_type"], **ids, **numbers})
    lines = write_file(tmp_path / "o.jsonl", json_lines(*orders.values()))
    page = write_file(tmp_path / "page.json", json_lines({"items": [*orders.values()], "total_count": 4}))
    assert import_files("magento", [lines], tmp_path / "1").events == EVENTS
    assert import_files("magento", [page], tmp_path / "2").events == EVENTS
    first = next(iter(orders.values()))
    odd = first | {
        "customer_id": 1234567.0,
        "items": [{"sku": "A", "qty_ordered": 1.5}, {"sku": "B", "qty_ordered": []}],
    }
    some = import_files(
        "magento", [write_file(tmp_path / "odd.json", json_lines(odd))], tmp_path / "3", "--max-bad-rows", "1"
    )
    assert [(event[0], event[1], event[4]) for event in some.events] == [("1234567", "A", "1.5")]
    assert 'bad_quantity 1 (line 1: "[]"' in some.said
    with pytest.raises(DataError) as caught:
        import_files("magento", [write_file(tmp_path / "x.jsonl", json_lines({"message": "no"}))], tmp_path / "x")
    assert "bad_line_items 1 (line 1: null" in caught.value.message


def test_values_that_cannot_be_read_are_refused_with_their_lines(tmp_path: Path) -> None:
    orders = ORDERS.replace("2025-10-07 07:50:26,12,ann@example.com,1", "7.10.2025,12,ann@example.com,1").replace(
        "BAG,3.0000,1.0000,1.0000", "BAG,3.0000,1.0000,some"
    )
    products = PRODUCTS.replace("34.0000", "cheap")
    files = [write_file(tmp_path / "products.csv", products), write_file(tmp_path / "orders.csv", orders)]
    with pytest.raises(DataError) as caught:
        import_files("magento", files, tmp_path / "shop")
    for said in (
        'bad_price 1 (products.csv line 7: "cheap"',
        'bad_timestamp 1 (orders.csv line 2: "7.10.2025"',
        'bad_quantity 1 (orders.csv line 4: "some"',
    ):
        assert said in caught.value.message


def test_what_databases_write_for_nothing_is_no_user(tmp_path: Path) -> None:
    orders = write_file(tmp_path / "o.csv", ORDERS.replace("NULL", "\\N"))
    assert import_files("magento", [orders], tmp_path / "shop").events == EVENTS


def test_the_admins_list_of_orders_is_refused_with_where_to_take_them(tmp_path: Path) -> None:
    grid = '"ID","Purchase Point","Purchase Date","Grand Total (Base)","Status"\n"1","Main","Oct 7, 2025","1.00","x"\n'
    with pytest.raises(DataError) as caught:
        import_files("magento", [write_file(tmp_path / "grid.csv", grid)], tmp_path / "shop")
    assert caught.value.code == "import.no_line_items"
