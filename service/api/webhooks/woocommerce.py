"""WooCommerce's webhooks: `order.created` and `order.updated`.

https://woocommerce.github.io/woocommerce-rest-api-docs/#order-properties. An order that WooCommerce counts as paid is a
purchase of each of its lines. One that was paid and is then refunded or cancelled as a whole is a `remove` of each,
dated as the purchase: what the buyer does with the item later stays, however late the order is edited. A refund of a
part does not say of which line, and gives no event.
"""

import re
from collections.abc import Mapping
from typing import Any

from service.api.webhooks.orders import OrderEvents, line_events, moment, nothing, whole_number
from service.settings import WebhookItemId

TOPICS = frozenset({"order.created", "order.updated"})
PAID = frozenset({"processing", "completed"})
"""`wc_get_is_paid_statuses`."""
TAKEN_BACK = frozenset({"refunded", "cancelled"})
_NAMES: Mapping[WebhookItemId, str] = {"product_id": "product_id", "variant_id": "variation_id", "sku": "sku"}
_PING = re.compile(rb"webhook_id=\d{1,20}")


def is_ping(body: bytes) -> bool:
    """Whether a body is what WooCommerce sends, unsigned, when a webhook is set up; it must be answered 200."""
    return _PING.fullmatch(body) is not None


def woocommerce_events(topic: str, body: Mapping[str, Any], item_id: WebhookItemId) -> OrderEvents:
    """Returns the events of a delivery; raises `UnreadableError`."""
    if topic not in TOPICS:
        return nothing("topic")
    order_id, status = whole_number(body, "id"), body.get("status")
    paid_at = moment(body, "date_paid_gmt")
    if status in PAID:
        kind, name, at = "purchase", "woocommerce", paid_at or moment(body, "date_created_gmt")
    elif status in TAKEN_BACK and paid_at:
        kind, name, at = "remove", "woocommerce-refund", paid_at
    else:
        return nothing("not_paid")
    customer_id = whole_number(body, "customer_id")
    buyer = {"user_id": str(customer_id)} if customer_id else {"session_id": f"woocommerce:order:{order_id}"}
    shared = {**buyer, "event": kind, **at}
    return line_events(body, _NAMES, item_id, shared, event_id=f"{name}-{order_id}")
