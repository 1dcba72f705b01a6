"""Orders of shop systems, in the form that they document, as events: what was bought, what was taken back, by whom."""

from collections import Counter
from typing import Any

import pytest

from service.api.webhooks.orders import UnreadableError
from service.api.webhooks.shopify import shopify_events
from service.api.webhooks.woocommerce import is_ping, woocommerce_events

LINE = {"id": 866550311766439020, "product_id": 632910392, "variant_id": 808950810, "sku": "IPOD2008", "quantity": 2}
SHOPIFY_ORDER: dict[str, Any] = {
    "id": 820982911946154508, "email": "jon@example.com", "created_at": "2021-12-31T19:00:00-05:00",
    "total_price": "398.00", "customer": {"id": 115310627314723954, "email": "john@example.com"},
    "billing_address": {"address1": "123 Billing Street"}, "refunds": [],
    "line_items": [LINE, {**LINE, "id": 2, "product_id": None, "variant_id": None, "title": "Gift card"}],
}  # fmt: skip
REFUND: dict[str, Any] = {
    "id": 890088186047892319, "order_id": 820982911946154508, "created_at": "2022-01-01T19:00:00-05:00",
    "user_id": 548380009,
    "refund_line_items": [{"id": 1, "line_item_id": LINE["id"], "quantity": 2, "line_item": LINE}],
}  # fmt: skip
WOO_LINE = {"id": 315, "product_id": 93, "variation_id": 0, "sku": "", "quantity": 2, "total": "6.00"}
WOO_ORDER: dict[str, Any] = {
    "id": 727, "status": "processing", "customer_id": 26, "date_created_gmt": "2017-03-22T19:28:02",
    "date_paid_gmt": "2017-03-22T19:28:08", "date_modified_gmt": "2017-03-23T00:00:00",
    "billing": {"email": "john.doe@example.com"},
    "line_items": [WOO_LINE, {**WOO_LINE, "id": 316, "product_id": 22, "variation_id": 23, "sku": "Bar3"}],
}  # fmt: skip
NOTHING: Counter[Any] = Counter()


def test_shopifys_order_is_a_purchase_of_each_product() -> None:
    purchase = {
        "user_id": "115310627314723954", "item_id": "632910392", "event": "purchase", "timestamp": 1640995200.0,
        "event_id": "shopify-820982911946154508-866550311766439020",
    }  # fmt: skip
    for topic in ("orders/create", "orders/paid"):
        assert shopify_events(topic, SHOPIFY_ORDER, "product_id") == ([purchase], Counter(no_item=1))
    assert shopify_events("orders/paid", SHOPIFY_ORDER, "variant_id").events[0]["item_id"] == "808950810"
    assert shopify_events("orders/paid", SHOPIFY_ORDER, "sku").events[0]["item_id"] == "IPOD2008"


def test_a_guests_order_is_a_session_of_its_own() -> None:
    (event,) = shopify_events("orders/paid", {**SHOPIFY_ORDER, "customer": None}, "product_id").events
    assert event["session_id"] == "shopify:order:820982911946154508"
    assert "user_id" not in event
    events = woocommerce_events("order.created", {**WOO_ORDER, "customer_id": 0}, "product_id").events
    assert {event["session_id"] for event in events} == {"woocommerce:order:727"}


def test_a_refund_takes_back_a_whole_line_once() -> None:
    (guests,) = shopify_events("refunds/create", REFUND, "product_id").events
    assert guests["session_id"] == "shopify:order:820982911946154508", "user_id is a member of the staff"
    (known,) = shopify_events("orders/updated", {**SHOPIFY_ORDER, "refunds": [REFUND]}, "product_id").events
    assert known["user_id"] == "115310627314723954"
    for event in (guests, known):
        assert (event["event"], event["item_id"], event["timestamp"]) == ("remove", "632910392", 1641081600.0)
        assert event["event_id"] == "shopify-refund-820982911946154508-866550311766439020"


def test_what_is_kept_of_a_line_was_bought() -> None:
    half = {**REFUND, "refund_line_items": [{**REFUND["refund_line_items"][0], "quantity": 1}]}
    assert shopify_events("refunds/create", half, "product_id") == ([], Counter(partial=1))
    both = {**SHOPIFY_ORDER, "refunds": [half, half]}
    assert len(shopify_events("orders/updated", both, "product_id").events) == 1


@pytest.mark.parametrize(
    ("status", "paid", "kinds"),
    [
        ("processing", True, {"purchase"}), ("completed", True, {"purchase"}), ("pending", False, set()),
        ("on-hold", False, set()), ("refunded", True, {"remove"}), ("cancelled", True, {"remove"}),
        ("cancelled", False, set()), ("failed", False, set()), ("shipped-by-plugin", True, set()),
    ],
)  # fmt: skip
def test_woocommerces_status_says_what_an_order_is(status: str, paid: bool, kinds: set[str]) -> None:
    order = {**WOO_ORDER, "status": status, "date_paid_gmt": WOO_ORDER["date_paid_gmt"] if paid else None}
    found = woocommerce_events("order.updated", order, "product_id")
    assert {event["event"] for event in found.events} == kinds
    assert found.ignored == (NOTHING if kinds else Counter(not_paid=1))


def test_woocommerces_order_is_a_purchase_of_each_line() -> None:
    events = woocommerce_events("order.created", WOO_ORDER, "variant_id").events
    assert [event["item_id"] for event in events] == ["93", "23"], "a product without variants is its own"
    assert {event["timestamp"] for event in events} == {1490210888.0}
    assert [event["event_id"] for event in events] == ["woocommerce-727-315", "woocommerce-727-316"]
    assert woocommerce_events("order.created", WOO_ORDER, "sku").ignored == Counter(no_item=1)


def test_woocommerces_refund_takes_back_nothing_that_was_bought_later() -> None:
    for edited in ("2017-03-23T00:00:00", "2019-01-01T00:00:00"):
        order = {**WOO_ORDER, "status": "refunded", "date_modified_gmt": edited}
        removes = woocommerce_events("order.updated", order, "product_id").events
        assert {event["timestamp"] for event in removes} == {1490210888.0}, "the moment of the purchase itself"


def test_other_topics_are_nothing() -> None:
    assert shopify_events("products/update", {}, "product_id").ignored == Counter(topic=1)
    assert woocommerce_events("product.updated", {}, "product_id").ignored == Counter(topic=1)


@pytest.mark.parametrize(
    "change",
    [
        {"id": None}, {"id": "x"}, {"id": True}, {"line_items": {}}, {"line_items": [1]}, {"customer": 5},
        {"customer": {"id": None}}, {"created_at": "yesterday"}, {"created_at": 5},
        {"line_items": [{**LINE, "id": -1}]},
    ],
)  # fmt: skip
def test_another_form_is_not_guessed_at(change: dict[str, Any]) -> None:
    with pytest.raises(UnreadableError) as refused:
        shopify_events("orders/paid", SHOPIFY_ORDER | change, "product_id")
    assert "yesterday" not in str(refused.value)


def test_the_ping_of_woocommerce_is_known() -> None:
    assert is_ping(b"webhook_id=12")
    assert not is_ping(b"webhook_id=12&x=1")
    assert not is_ping(b'{"webhook_id": 12}')
