"""Shopify's webhooks: `orders/create`, `orders/paid`, `orders/updated` and `refunds/create`.

https://shopify.dev/docs/api/admin-rest/latest/resources/webhook. An order is a purchase of each of its lines, and a
refund of a whole line a `remove`. A refund does not name the buyer (its `user_id` is a member of the staff): it is
known for a guest's order, and for others `orders/updated` brings the same refund with the buyer.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from service.api.webhooks.orders import (
    Ignored,
    OrderEvents,
    UnreadableError,
    item_of,
    line_events,
    moment,
    nothing,
    objects,
    whole_number,
)
from service.settings import WebhookItemId

PURCHASES = frozenset({"orders/create", "orders/paid"})
UPDATED, REFUND = "orders/updated", "refunds/create"
_NAMES: Mapping[WebhookItemId, str] = {"product_id": "product_id", "variant_id": "variant_id", "sku": "sku"}


def session_of_order(order_id: int) -> str:
    """The session of a guest's order; no browser can name it, as a page's session_id has no colon."""
    return f"shopify:order:{order_id}"


def shopify_events(topic: str, body: Mapping[str, Any], item_id: WebhookItemId) -> OrderEvents:
    """Returns the events of a delivery; of a refund as if its order were a guest's. Raises `UnreadableError`."""
    if topic in PURCHASES:
        return _purchases(body, item_id)
    if topic == UPDATED:
        return _refunds(whole_number(body, "id"), _buyer(body), list(objects(body, "refunds")), item_id)
    if topic == REFUND:
        order_id = whole_number(body, "order_id")
        return _refunds(order_id, {"session_id": session_of_order(order_id)}, [body], item_id)
    return nothing("topic")


def _purchases(order: Mapping[str, Any], item_id: WebhookItemId) -> OrderEvents:
    order_id = whole_number(order, "id")
    shared = {**_buyer(order), "event": "purchase", **moment(order, "created_at")}
    return line_events(order, _NAMES, item_id, shared, event_id=f"shopify-{order_id}")


def _refunds(
    order_id: int, buyer: Mapping[str, str], refunds: list[Mapping[str, Any]], item_id: WebhookItemId
) -> OrderEvents:
    refunded: Counter[int] = Counter()  # pieces by line
    lines: dict[int, tuple[Mapping[str, Any], dict[str, float]]] = {}
    for refund in refunds:
        at = moment(refund, "created_at")
        for one in objects(refund, "refund_line_items"):
            line_id, line = whole_number(one, "line_item_id"), one.get("line_item")
            if not isinstance(line, dict):
                raise UnreadableError("line_item is no object")
            refunded[line_id] += whole_number(one, "quantity")
            lines[line_id] = line, at
    events: list[dict[str, Any]] = []
    ignored: Counter[Ignored] = Counter()
    for line_id, (line, at) in lines.items():
        item = item_of(line, _NAMES, item_id)
        if item is None or refunded[line_id] < whole_number(line, "quantity"):
            ignored["no_item" if item is None else "partial"] += 1
            continue
        event_id = f"shopify-refund-{order_id}-{line_id}"
        events.append({**buyer, "item_id": item, "event": "remove", **at, "event_id": event_id})
    return OrderEvents(events, ignored)


def _buyer(order: Mapping[str, Any]) -> dict[str, str]:
    customer = order.get("customer")
    if customer is None:
        return {"session_id": session_of_order(whole_number(order, "id"))}
    if not isinstance(customer, dict):
        raise UnreadableError("customer is no object")
    return {"user_id": str(whole_number(customer, "id"))}
