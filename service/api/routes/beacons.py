"""Takes events from browsers: by `navigator.sendBeacon`, and by an image where scripts may not send.

A browser can neither read an answer nor send again. So a beacon is 204 whatever became of its events in the state
(accepted, a duplicate, an unknown item: counted in `isrf_events_total`), 400 where it is junk, and never a guess.
"""

import base64
import hashlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from isrf.contract.errors import RequestError
from isrf.contract.ids import ExternalId
from isrf.contract.json_object import doubled_name
from isrf.contract.known_fields import message_of
from isrf.contract.shown import shown
from service.api.context import AppContext, AppDep
from service.api.presenters import PROBLEMS
from service.api.routes.interactions import accept_events, check_stored
from service.api.schemas.beacons import MAX_BEACON_BYTES, Beacon, BeaconEvent, BeaconType, SessionId, whole_body_of
from service.api.validation.calls import HEAD_ONLY
from service.api.validation.json_bounds import check_json
from service.auth.beacon_access import BEACON, PIXEL
from service.auth.caller import BROWSER
from service.auth.request_cost import charge_events


class _BeaconRoute(APIRoute):
    """A route whose wrong parameters are junk as a wrong body is."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_beacon(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise _invalid(_complaint(error.errors()[0])) from None

        return handle_beacon


router = APIRouter(tags=["beacons"], dependencies=[BROWSER], route_class=_BeaconRoute)

GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
"""A transparent picture of one pixel."""
_HEADERS = {"Cross-Origin-Resource-Policy": "cross-origin"}
_HARMLESS = frozenset({"unknown_item", "before_erasure", "event_id_reused"})
"""Reasons of refusals that a page can do nothing about."""
_PIXEL_RESPONSES: dict[int | str, dict[str, Any]] = {
    **PROBLEMS,
    200: {"description": "One transparent pixel.", "content": {"image/gif": {}}},
}


def _described(schema: type[BaseModel], field: str) -> str:
    return schema.model_fields[field].description or ""


Key = Annotated[str, Query(description="The browser's key, where no header X-API-Key can be sent.")]


@router.post(
    BEACON,
    status_code=204,
    response_class=Response,
    responses=PROBLEMS,
    openapi_extra=whole_body_of({"$ref": "#/components/schemas/Beacon"}, "text/plain", "application/json"),
)
async def post_beacon(request: Request, context: AppDep, key: Key = "") -> Response:  # noqa: ARG001 - checked before
    """Accepts up to 100 events of one session, as JSON in a body of any type: `sendBeacon` sends text/plain."""
    beacon = _read(await request.body())
    await charge_events(request.scope, len(beacon.events))
    await _accept(beacon, context)
    return Response(status_code=204, headers=_HEADERS)


@router.get(PIXEL, response_class=Response, responses=_PIXEL_RESPONSES)
async def get_pixel(
    request: Request,
    context: AppDep,
    session_id: Annotated[SessionId, Query(description=_described(Beacon, "session_id"))],
    item_id: Annotated[ExternalId, Query(description=_described(BeaconEvent, "item_id"))],
    event: Annotated[BeaconType, Query(description=_described(BeaconEvent, "event"))],
    event_id: Annotated[ExternalId, Query(description=_described(BeaconEvent, "event_id"))] = "",
    recommendation_id: Annotated[
        str, Query(max_length=64, description=_described(BeaconEvent, "recommendation_id"))
    ] = "",
    key: Key = "",  # noqa: ARG001 - checked before
) -> Response:
    """Accepts one event of a session, and answers with an image of one transparent pixel."""
    optional = {"event_id": event_id or None, "recommendation_id": recommendation_id or None}
    beacon = _checked({"session_id": session_id, "events": [{"item_id": item_id, "event": event, **optional}]})
    if HEAD_ONLY not in request.scope:
        await _accept(beacon, context)
    return Response(GIF, media_type="image/gif", headers=_HEADERS)


def _read(body: bytes) -> Beacon:
    if len(body) > MAX_BEACON_BYTES:
        raise RequestError(
            "request.too_large", f"the beacon has more than {MAX_BEACON_BYTES} bytes.", fix="Send fewer events in one."
        )
    check_json(body)
    try:
        sent = orjson.loads(body)
    except ValueError:
        raise _invalid("it is not JSON in UTF-8") from None
    name = doubled_name(body, sent) if isinstance(sent, dict) else None
    if name is not None:
        raise _invalid(f"{shown(name)} stands twice in one object")
    return _checked(sent)


def _checked(sent: Any) -> Beacon:
    try:
        return Beacon.model_validate(sent)
    except ValidationError as error:
        raise _invalid(_complaint(error.errors(include_input=False, include_url=False)[0])) from None


def _complaint(error: ErrorDetails) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "the body"
    return f"{where[:80]}: {message_of(error)[:300]}"


async def _accept(beacon: Beacon, context: AppContext) -> None:
    """Stores a beacon's events; raises `RequestError` or `StoreError` where some could not be."""
    events = [_event(beacon.session_id, one.model_dump(exclude_none=True)) for one in beacon.events]
    with context.admission.writes:
        results = await accept_events(events, context)
    _check(results)


def _event(session_id: str, sent: Mapping[str, str]) -> dict[str, str]:
    """An event as the service takes it. Its id stays among its session's: it can take no id that an order will have."""
    event = {**sent, "session_id": session_id}
    if "event_id" in event:
        parts = f"{session_id}\n{event['event_id']}".encode("utf-8", "surrogatepass")
        event["event_id"] = "beacon-" + hashlib.blake2b(parts, digest_size=16).hexdigest()
    return event


def _check(results: Sequence[Mapping[str, str]]) -> None:
    check_stored(results)
    for place, result in enumerate(results):
        reason = result.get("reason")
        if reason is None or reason in _HARMLESS:
            continue
        raise _invalid(f"events.{place}: {result['detail']}; of the others none is lost")


def _invalid(what: str) -> RequestError:
    return RequestError(
        "beacon.invalid",
        f"the beacon cannot be read: {what}.",
        fix='Send {"session_id": …, "events": [{"item_id": …, "event": "view"}]}, and no user_id.',
    )
