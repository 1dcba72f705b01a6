"""Takes events from browsers: by `navigator.sendBeacon`, and by an image where scripts may not send.

A browser can neither read an answer nor send again. So a beacon is 204 whatever became of its events in the state
(accepted, a duplicate, an unknown item: counted in `isrf_events_total`), 400 where it is junk, and never a guess.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError

from isrf.contract.errors import RequestError
from isrf.contract.json_object import doubled_name
from isrf.contract.known_fields import message_of
from isrf.contract.shown import shown
from service.api.context import AppContext, AppDep
from service.api.presenters import PROBLEMS
from service.api.routes.interactions import accept_events, check_stored
from service.api.schemas.beacons import MAX_BEACON_BYTES, Beacon, pixel_parameters, whole_body_of
from service.api.validation.calls import HEAD_ONLY
from service.api.validation.json_bounds import check_json
from service.auth.beacon_access import BEACON, PIXEL
from service.auth.caller import BROWSER

router = APIRouter(tags=["beacons"], dependencies=[BROWSER])

GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
"""A transparent picture of one pixel."""
_HEADERS = {"Cross-Origin-Resource-Policy": "cross-origin"}
_HARMLESS = frozenset({"unknown_item", "before_erasure", "event_id_reused"})
"""Reasons of refusals that a page can do nothing about."""
_PIXEL_RESPONSES: dict[int | str, dict[str, Any]] = {
    **PROBLEMS,
    200: {"description": "One transparent pixel.", "content": {"image/gif": {}}},
}

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
    await _accept(beacon, context)
    return Response(status_code=204, headers=_HEADERS)


@router.get(PIXEL, response_class=Response, responses=_PIXEL_RESPONSES, openapi_extra=pixel_parameters())
async def get_pixel(request: Request, context: AppDep, key: Key = "") -> Response:  # noqa: ARG001 - checked before
    """Accepts one event of a session, and answers with an image of one transparent pixel."""
    event = {name: value for name, value in request.query_params.items() if name not in ("key", "session_id")}
    session_id = request.query_params.get("session_id")
    beacon = _checked({"events": [event]} | ({} if session_id is None else {"session_id": session_id}))
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
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise _invalid(f"{where[:80]}: {message_of(first)[:300]}") from None


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
