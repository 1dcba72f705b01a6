"""What every shop system's orders have in common: lines with a product, a buyer, and moments.

Of a body only ids, quantities and moments are read. Names, addresses, mails and money are not read, not stored and not
logged. It knows no store.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from service.settings import WebhookItemId

Ignored = Literal["topic", "unreadable", "no_item", "not_paid", "partial", "unknown_order"]
"""Why a delivery, or a line of it, gives no event: `topic` is not handled; `unreadable` has not the documented form;
`no_item` is a line without a product; `not_paid` an order that is no purchase (yet); `partial` a line of which a part
was refunded; `unknown_order` a refund of an order whose buyer it does not name."""


class OrderEvents(NamedTuple):
    """What a delivery means."""

    events: list[dict[str, Any]]  # as POST /interactions takes them
    ignored: Counter[Ignored]


class UnreadableError(ValueError):
    """A body has not the documented form; the message names the field, and no value."""


def nothing(why: Ignored) -> OrderEvents:
    return OrderEvents([], Counter({why: 1}))


def whole_number(body: Mapping[str, Any], field: str) -> int:
    """Returns an id or a quantity; raises `UnreadableError`."""
    value = body.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UnreadableError(f"{field} is no whole number")
    return value


def objects(body: Mapping[str, Any], field: str) -> Iterator[Mapping[str, Any]]:
    """Yields the objects of a list; none where the list is missing. Raises `UnreadableError`."""
    values = body.get(field)
    if values is None:
        return
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise UnreadableError(f"{field} is no list of objects")
    yield from values


def moment(body: Mapping[str, Any], field: str) -> dict[str, float]:
    """Returns the `timestamp` of an event, in seconds; empty, so that the service dates it, where there is none.

    A time without an offset is UTC. Raises `UnreadableError`.
    """
    text = body.get(field)
    if text is None:
        return {}
    try:
        at = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise UnreadableError(f"{field} is no ISO 8601 time") from None
    return {"timestamp": (at.replace(tzinfo=UTC) if at.tzinfo is None else at).timestamp()}


def line_events(
    order: Mapping[str, Any],
    names: Mapping[WebhookItemId, str],
    item_id: WebhookItemId,
    shared: Mapping[str, Any],
    *,
    event_id: str,
) -> OrderEvents:
    """Returns an event for each line of an order that has a product; raises `UnreadableError`.

    Args:
        names, item_id: as `item_of`.
        shared: fields that are equal in all events: the buyer, the type, the moment.
        event_id: the beginning of each event's id; the id of its line follows.
    """
    events: list[dict[str, Any]] = []
    ignored: Counter[Ignored] = Counter()
    for line in objects(order, "line_items"):
        item = item_of(line, names, item_id)
        if item is None:
            ignored["no_item"] += 1
            continue
        events.append({**shared, "item_id": item, "event_id": f"{event_id}-{whole_number(line, 'id')}"})
    return OrderEvents(events, ignored)


def item_of(line: Mapping[str, Any], names: Mapping[WebhookItemId, str], item_id: WebhookItemId) -> str | None:
    """Returns the item_id of a line; None for a line without a product, such as a gift card or a fee.

    Args:
        names: the shop system's field for each way to name an item.
        item_id: the way that the catalogue uses.
    """
    value = line.get(names[item_id])
    if item_id == "variant_id" and not value:
        value = line.get(names["product_id"])  # a product without variants is its own only one
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return str(value)
    return value if isinstance(value, str) and value else None
