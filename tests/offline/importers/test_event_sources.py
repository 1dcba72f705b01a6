"""GA4, Segment and OpenSearch's UBI: events and the items that they name, visitors as sessions, what stayed sold."""

import json
from pathlib import Path
from typing import Any

import pytest

from isrf.contract.errors import DataError
from tests.offline.importers.import_command import Imported, import_files, json_lines, write_file
from tests.offline.stages.ingest.ingest_command import events_of, ingest, report_of

MUG: dict[str, Any] = {
    "item_id": "mug",
    "item_name": "Blue Mug",
    "item_brand": "Tassen",
    "item_variant": "blue",
    "price": 12.5,
}
MUG |= {"item_category": "Kitchen", "item_category2": "Cups", "item_category3": "(not set)", "quantity": "2"}
TEA = {"item_id": "teapot", "item_name": "Teapot", "item_category": "Kitchen", "price": 49, "quantity": "1"}


def ga4(second: int, name: str, items: Any, *, user: str | None = None, **more: Any) -> dict[str, Any]:
    """A row as BigQuery writes it: whole numbers as text."""
    session = {"key": "ga_session_id", "value": {"string_value": None, "int_value": "77", "float_value": None}}
    row: dict[str, Any] = {
        "event_date": "20251007",
        "event_timestamp": f"{1759823426 + second}500000",
        "event_name": name,
    }
    row |= {"event_params": [{"key": "page", "value": {"string_value": "x"}}, session], "user_id": user}
    return row | {"user_pseudo_id": "11.22", "items": items} | more


def test_ga4_events_are_of_users_or_of_visits(tmp_path: Path) -> None:
    rows = [
        ga4(0, "view_item", [MUG]),
        ga4(1, "view_item_list", [MUG, TEA]),
        ga4(2, "scroll", []),
        ga4(3, "add_to_cart", [{"item_id": "(not set)"}]),
        ga4(4, "view_item", [MUG], event_params=[], user_pseudo_id=None),
        ga4(5, "purchase", [MUG, TEA], user="ann", ecommerce={"transaction_id": "T1"}),
        ga4(6, "refund", [{"item_id": "mug", "quantity": "1"}], user="ann", ecommerce={"transaction_id": "T1"}),
        ga4(7, "refund", [{"item_id": "teapot"}], user="ann", ecommerce={"transaction_id": "T0"}),
        ga4(8, "refund", [], ecommerce={"transaction_id": "T9"}),
        *(ga4(10 + n, "view_item", [{"item_id": f"p{n}"}], user=user) for n in range(4) for user in ("ann", "bob")),
    ]
    imported = import_files("ga4", [write_file(tmp_path / "events.jsonl", json_lines(*rows))], tmp_path / "shop")
    visit = "11.22.77"
    assert [imported.events[0], *imported.events[-2:]] == [
        ("", "mug", "1759823426.5", "view", "2", visit),
        ("ann", "mug", "1759823431.5", "purchase", "1", visit),
        ("ann", "teapot", "1759823431.5", "purchase", "1", visit),
    ]
    assert imported.items["mug"] == {
        "item_id": "mug",
        "title": "Blue Mug",
        "brand": "Tassen",
        "categories": ["Kitchen", "Cups"],
        "price": 12.5,
        "variant": "blue",
    }
    for said in (
        'rows are events "view_item_list" (first: line 2)',
        'rows are events "scroll" (first: line 3)',
        "rows are events without an item (first: line 4)",
        "rows are events without a user and without a session (first: line 5)",
        "rows are refunds of an order that the files do not have (first: line 9)",
        "rows are refunds of an unknown order, of what its buyer also bought (first: line 8)",
    ):
        assert f"left out: 1 {said}" in imported.said
    check_ingest(tmp_path, imported)


def segment(second: int, event: str, user: str | None = None, **properties: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "track", "event": event, "messageId": f"m{second}", "anonymousId": "anon-1"}
    row |= {"timestamp": f"2025-10-07T07:50:{second:02d}.111Z", "properties": properties}
    return row | ({"userId": user} if user else {})


def test_segments_track_calls_are_of_users_or_of_browsers(tmp_path: Path) -> None:
    mug = {"product_id": "mug", "sku": "M-1", "name": "Blue Mug", "brand": "Tassen", "category": "Kitchen > Cups"}
    rows = [
        segment(0, "Product Viewed", **mug, price=12.5, variant="blue", image_url="https://shop.example/mug.jpg"),
        segment(1, "Product List Viewed", products=[mug]),
        {"type": "page", "name": "Home", "anonymousId": "anon-1"},
        segment(2, "Order Completed", "ann", order_id="O1", products=[{**mug, "quantity": 2}, {"sku": "T-1"}]),
        segment(3, "Order Refunded", "ann", order_id="O1", products=[{"product_id": "mug", "quantity": 1}]),
        segment(4, "Order Cancelled", "ann", order_id="O0", products=[{"product_id": "cup", "price": "1.50"}]),
        segment(5, "Order Refunded", order_id="O9"),
        segment(6, "Product Added"),
        *(segment(10 + n, "Product Added", user, product_id=f"p{n}") for n in range(4) for user in ("ann", "bob")),
    ]
    imported = import_files("segment", [write_file(tmp_path / "track.jsonl", json_lines(*rows))], tmp_path / "shop")
    assert [imported.events[0], *imported.events[-3:]] == [
        ("", "mug", "1759823400.111", "view", "1", "anon-1"),
        ("ann", "cup", "1759823404.111", "remove", "1", "anon-1"),
        ("ann", "mug", "1759823402.111", "purchase", "1", "anon-1"),
        ("ann", "T-1", "1759823402.111", "purchase", "1", "anon-1"),
    ]
    assert imported.items["cup"] == {"item_id": "cup", "price": 1.5}
    assert imported.items["mug"] == {
        "item_id": "mug",
        "title": "Blue Mug",
        "brand": "Tassen",
        "categories": ["Kitchen", "Cups"],
        "price": 12.5,
        "variant": "blue",
        "image_link": "https://shop.example/mug.jpg",
    }
    for said in (
        'are events "Product List Viewed" (first: line 2)',
        'are calls of "page" (first: line 3)',
        "are refunds of an order that the files do not have (first: line 7)",
        "are events without an item (first: line 8)",
    ):
        assert f"left out: 1 rows {said}" in imported.said
    check_ingest(tmp_path, imported)


def ubi(second: int, action: str, item: Any = None, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "application": "shop",
        "action_name": action,
        "query_id": "q1",
        "client_id": "c1",
        "message_type": "INFO",
    }
    row |= {"timestamp": 1759823400 + second, "event_attributes": {"position": {"ordinal": 3}}}
    if item is not None:
        described = {"object_id": item, "object_id_field": "sku", "description": f"Thing {item}"}
        row["event_attributes"] = {"object": described}
    return row | more


def test_ubi_events_keep_their_actions_names(tmp_path: Path) -> None:
    rows = [
        ubi(0, "on_search"),
        ubi(1, "item_click", "mug", session_id="s1"),
        ubi(2, "item_impression", "teapot"),
        ubi(3, "add_to_cart", 7, user_id="ann"),
        {"_index": "ubi_events", "_id": "x", "_source": ubi(4, "purchase", "mug", timestamp="2025-10-07T07:50:04.5Z")},
        ubi(5, "purchase", "mug", timestamp=1759823405000, user_id="ann"),
        ubi(6, "watch", "mug", client_id=None),
        *(ubi(10 + n, "item_click", f"p{n}", user_id=user) for n in range(4) for user in ("ann", "bob")),
    ]
    imported = import_files(
        "opensearch-ubi", [write_file(tmp_path / "ubi.jsonl", json_lines(*rows))], tmp_path / "shop"
    )
    assert imported.events[:4] == [
        ("", "mug", "1759823401", "item_click", "1", "s1"),
        ("ann", "7", "1759823403", "add_to_cart", "1", "c1"),
        ("", "mug", "1759823404.5", "purchase", "1", "c1"),
        ("ann", "mug", "1759823405", "purchase", "1", "c1"),
    ]
    assert imported.items["7"] == {"item_id": "7", "title": "Thing 7"}
    assert 'left out: 1 rows are actions "on_search" without an object (first: line 1)' in imported.said
    assert 'left out: 1 rows are actions "item_impression", which only show an object' in imported.said
    check_ingest(tmp_path, imported)


def check_ingest(folder: Path, imported: Imported) -> None:
    """`ingest` takes the folder as it is, with all events of users."""
    out = ingest(folder / "shop", folder / "releases")
    assert {event[0] for event in events_of(out)} == {"ann"}
    report = report_of(out)
    assert report["bad_rows"] == {"items.jsonl": {}, "interactions.csv": {}}
    assert report["counts"]["items"] == len(imported.items)


@pytest.mark.parametrize(
    ("source", "row", "said"),
    [
        ("ga4", ga4(0, "view_item", [MUG]) | {"event_timestamp": "now"}, 'bad_timestamp 1 (line 1: "now"'),
        ("ga4", ga4(0, "view_item", [MUG | {"quantity": "-1"}]), 'bad_quantity 1 (line 1: "-1"'),
        ("segment", segment(0, "Product Viewed", product_id="a") | {"timestamp": 17}, "bad_timestamp 1 (line 1: 17"),
        ("segment", segment(0, "Product Added", product_id="a", quantity="x"), 'bad_quantity 1 (line 1: "x"'),
        ("segment", segment(0, "Product Added", product_id="a", price=-1), "bad_price 1 (line 1: -1"),
        ("segment", segment(0, "Product Added", product_id="a", price="1,299"), 'bad_price 1 (line 1: "1,299"'),
        ("segment", segment(0, "Product Added", product_id="a") | {"userId": 1.5}, "bad_user_id 1 (line 1: float"),
        ("ga4", ga4(0, "view_item", [MUG | {"price": True}]), "bad_price 1 (line 1: true"),
        ("ga4", ga4(0, "view_item", [MUG]) | {"user_id": ["ann"]}, "bad_user_id 1 (line 1: list"),
        ("opensearch-ubi", ubi(0, "click", "a", user_id=False), "bad_user_id 1 (line 1: bool"),
        ("opensearch-ubi", ubi(0, "click", "a", timestamp="soon"), 'bad_timestamp 1 (line 1: "soon"'),
        ("opensearch-ubi", ubi(0, "", "a"), 'bad_event 1 (line 1: ""'),
        ("opensearch-ubi", [1], "1 of 1 rows cannot be used, more than the allowed share of 0.001: malformed_json 1"),
        ("ga4", ga4(0, "view_item", [{"item_id": "a\tb"}]), 'bad_item_id 2 (line 1: "a\\tb"'),
        ("ga4", ga4(0, "view_item", [MUG], user="x" * 600), "bad_user_id 1 (line 1: 600 characters"),
    ],
)
def test_an_event_that_cannot_be_read_is_counted_with_its_value(
    tmp_path: Path, source: str, row: Any, said: str
) -> None:
    with pytest.raises(DataError) as caught:
        import_files(source, [write_file(tmp_path / "events.jsonl", json_lines(row))], tmp_path / "shop")
    assert caught.value.code == "data.too_many_bad_rows"
    assert said in caught.value.message
    assert list((tmp_path / "shop").iterdir()) == []


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"event_name": None, "items": None},
        {
            "event_name": "purchase",
            "event_timestamp": "1",
            "items": [None, 3, {"item_id": []}],
            "event_params": [7, {}],
        },
        {"event_name": "purchase", "event_timestamp": "1", "items": "x", "ecommerce": 3},
        {"type": "track", "event": "Order Completed", "timestamp": "2025-10-07", "properties": {"products": [3, None]}},
        {"event": "Product Viewed", "timestamp": "2025-10-07", "properties": "x"},
        {"action_name": "click", "event_attributes": {"object": {"object_id": {}}}},
        {"action_name": "click", "event_attributes": 3},
        {"_source": 3},
    ],
)
@pytest.mark.parametrize("source", ["ga4", "segment", "opensearch-ubi"])
def test_an_event_of_another_shape_is_left_out_or_refused(tmp_path: Path, source: str, row: Any) -> None:
    with pytest.raises(DataError) as caught:
        import_files(source, [write_file(tmp_path / "events.jsonl", json_lines(row))], tmp_path / "shop")
    assert caught.value.code in ("import.nothing", "data.too_many_bad_rows")


def test_products_without_an_id_beside_others_are_counted(tmp_path: Path) -> None:
    products = [{"product_id": "mug"}, {"product_id": 7.0}, {"name": "Gift"}, {"product_id": 7.5}, None]
    row = segment(0, "Order Completed", order_id="O1", products=products) | {"userId": 12.0}
    imported = import_files("segment", [write_file(tmp_path / "t.jsonl", json_lines(row))], tmp_path / "1")
    assert [event[:2] for event in imported.events] == [("12", "mug"), ("12", "7")]
    assert "left out: 3 rows are products without an id, beside others (first: line 1)" in imported.said
    rows = [MUG, {"item_id": "(not set)", "item_name": "Gift"}]
    imported = import_files(
        "ga4", [write_file(tmp_path / "g.jsonl", json_lines(ga4(0, "purchase", rows)))], tmp_path / "2"
    )
    assert "left out: 1 rows are products without an id, beside others (first: line 1)" in imported.said


def test_user_ids_that_are_addresses_are_pointed_out(tmp_path: Path) -> None:
    row = segment(0, "Product Viewed", "ann@example.com", product_id="mug")
    imported = import_files("segment", [write_file(tmp_path / "t.jsonl", json_lines(row, row))], tmp_path / "shop")
    assert imported.said.count("some user ids look like e-mail addresses") == 1
    assert "ann@" not in imported.said


def test_a_json_list_is_read_as_its_objects_a_line(tmp_path: Path) -> None:
    """As the console of BigQuery, and a page of an API, saves it."""
    call = {"event": "Product Viewed", "timestamp": "2025-10-07T07:50:26.5Z", "properties": {"product_id": "A"}}
    rows = [call | {"user_id": "u1"}, call | {"anonymous_id": "a1"}]
    listed = write_file(tmp_path / "calls.json", b"\xef\xbb\xbf" + json.dumps(rows, indent=2).encode())
    imported = import_files("segment", [listed], tmp_path / "shop")
    assert imported.events == [
        ("u1", "A", "1759823426.5", "view", "1", ""),
        ("", "A", "1759823426.5", "view", "1", "a1"),
    ]
    for content, code, said in (
        (json.dumps(rows)[:-1], "import.json_list", "begins as a JSON list"),
        (json.dumps([*rows, 7]), "data.too_many_bad_rows", "malformed_json 1 (line 3: a number;"),
    ):
        with pytest.raises(DataError) as caught:
            import_files("segment", [write_file(tmp_path / "x.json", content)], tmp_path / "x")
        assert caught.value.code == code
        assert said in caught.value.message


@pytest.mark.parametrize("line", ['{"userId": "ann@example.com"', '"ann@example.com"', '["ann@example.com"]'])
def test_a_line_that_cannot_be_read_is_not_quoted(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match="malformed_json 1 ") as caught:
        import_files("segment", [write_file(tmp_path / "t.jsonl", f"{line}\n")], tmp_path / "shop")
    assert "example" not in caught.value.message
