"""Takes orders from shop systems, which sign the raw body in place of an API key.

A shop system switches a webhook off that fails several times. So a delivery that is valid and means nothing here (an
unknown item, another topic) is 200, with counts; only what must be sent again is refused: 503 while the store fails.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import orjson
import structlog
from fastapi import APIRouter, Header, Request, Response
from pydantic import SecretStr

from isrf.contract.errors import AccessError, RequestError
from isrf.contract.ids import session_owner
from service.api.context import AppContext, AppDep
from service.api.presenters import PROBLEMS, json_response
from service.api.routes.interactions import accept_events, check_stored
from service.api.schemas.beacons import whole_body_of
from service.api.schemas.requests import MAX_EVENTS
from service.api.validation.json_bounds import check_json
from service.api.webhooks.orders import OrderEvents, UnreadableError, nothing
from service.api.webhooks.shopify import REFUND, shopify_events
from service.api.webhooks.woocommerce import is_ping, woocommerce_events
from service.auth.signatures import COUNT_FAILURE, SHOPIFY, WOOCOMMERCE, check_signature
from service.settings import WebhookItemId

router = APIRouter(tags=["webhooks"])

_BODY = whole_body_of({"type": "object", "description": "As the shop system documents it."}, "application/json")
_TOPIC = "The topic of the delivery."
_log = structlog.get_logger("service")


class Delivery(NamedTuple):
    """A delivery whose signature is valid."""

    system: str
    topic: str
    body: bytes
    read: Callable[[str, Mapping[str, Any], WebhookItemId], OrderEvents]


@router.post(SHOPIFY, responses=PROBLEMS, openapi_extra=_BODY)
async def shopify_webhook(
    request: Request,
    context: AppDep,
    x_shopify_topic: Annotated[str, Header(max_length=100, description=_TOPIC)] = "",
) -> Response:
    """Accepts Shopify's `orders/create`, `orders/paid`, `orders/updated` and `refunds/create`; needs no API key."""
    body, sent = await request.body(), request.headers.getlist("x-shopify-hmac-sha256")
    await _check(request, body, sent, context.webhooks.shopify_secret)
    return await _take(request, context, Delivery("shopify", x_shopify_topic, body, shopify_events))


@router.post(WOOCOMMERCE, responses=PROBLEMS, openapi_extra=_BODY)
async def woocommerce_webhook(
    request: Request,
    context: AppDep,
    x_wc_webhook_topic: Annotated[str, Header(max_length=100, description=_TOPIC)] = "",
) -> Response:
    """Accepts WooCommerce's `order.created` and `order.updated`; needs no API key."""
    body, sent = await request.body(), request.headers.getlist("x-wc-webhook-signature")
    if not sent and is_ping(body):
        return json_response({"meta": {"request_id": request.state.request_id}})
    await _check(request, body, sent, context.webhooks.woocommerce_secret)
    return await _take(request, context, Delivery("woocommerce", x_wc_webhook_topic, body, woocommerce_events))


async def _check(request: Request, body: bytes, sent: Sequence[str], secret: SecretStr | None) -> None:
    """Raises `AccessError` for a body without a valid signature, and counts it for its address."""
    try:
        check_signature(request.url.path, body, sent, secret)
    except AccessError:
        await request.scope["state"][COUNT_FAILURE]()
        raise


async def _take(request: Request, context: AppContext, delivery: Delivery) -> Response:
    found = await _known(_read(delivery, context.webhooks.item_id), delivery, context)
    counts: Counter[str] = Counter()
    for start in range(0, len(found.events), MAX_EVENTS):
        with context.admission.writes:
            results = await accept_events(found.events[start : start + MAX_EVENTS], context)
        check_stored(results)
        counts.update(result["status"] for result in results)
    for outcome, count in (*counts.items(), *found.ignored.items()):
        context.metrics.webhooks.labels(delivery.system, outcome).inc(count)
    return json_response(
        {
            "accepted": counts["accepted"],
            "duplicates": counts["duplicate"],
            "refused": counts["refused"],
            "ignored": dict(found.ignored),
            "meta": {"request_id": request.state.request_id},
        }
    )


def _read(delivery: Delivery, item_id: WebhookItemId) -> OrderEvents:
    """Returns the events of a delivery; logs what has not the documented form, without its values."""
    try:
        check_json(delivery.body)
        body = orjson.loads(delivery.body)
        if not isinstance(body, dict):
            raise UnreadableError("the body is no object")
        return delivery.read(delivery.topic, body, item_id)
    except (RequestError, ValueError) as error:
        what = str(error) if isinstance(error, UnreadableError) else "the body is no JSON"
        _log.warning("webhook_unreadable", system=delivery.system, what=what)
        return nothing("unreadable")


async def _known(found: OrderEvents, delivery: Delivery, context: AppContext) -> OrderEvents:
    """Leaves out a refund that does not name its buyer, unless the order was a guest's."""
    if delivery.topic != REFUND or not found.events:
        return found
    record = await context.store.read(session_owner(found.events[0]["session_id"]))
    if record.history:
        return found
    return OrderEvents([], found.ignored + Counter({"unknown_order": len(found.events)}))
