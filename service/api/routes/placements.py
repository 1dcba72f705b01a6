"""Configures placements, the named lists of a shop's pages, and answers with their items."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, NamedTuple

import orjson
import structlog
from fastapi import APIRouter, Depends, Path, Query, Request, Response

from isrf.contract.errors import RequestError
from isrf.contract.ids import ID_SCHEMA
from service.api.conditional import NOT_MODIFIED, has_already, list_tag, not_modified, tag_headers
from service.api.context import AppContext, AppDep, RequestContext, lease
from service.api.presenters import PROBLEMS, count_shown, items_of, json_response, meta_of
from service.api.schemas.placements import MAX_CART, PlacementAnswer, PlacementItems, PlacementList
from service.api.schemas.requests import MAX_N, MAX_SESSION, Offset, RecommendationId
from service.api.validation.inputs import NAMES_ONCE, IdsText, checked_user_ids, split_item_ids
from service.auth.caller import ADMIN, READ
from service.auth.request_cost import charge
from service.recommend.placements.checks import check_placement
from service.recommend.placements.placed_query import PlacedQuery
from service.recommend.placements.placement import (
    MOST_PLACEMENTS,
    NAME_PATTERN,
    NAME_RULE,
    Placement,
    PlacementVersion,
    is_name,
    near_name,
    text_of,
)
from service.recommend.query_models import Answer, ListQuery
from service.recommend.warnings import placements_state
from service.state.list_store import PlacementChange

router = APIRouter(tags=["placements"])

ITEMS_PATH = "/placements/{placement}/items"
MOST_VERSION = 2**53

_log = structlog.get_logger("service")
_CHANGED = "Somebody changed the placement meanwhile: it has not the `expected_version`"


async def checked_name(placement: Annotated[str, Path(json_schema_extra={"pattern": NAME_PATTERN})]) -> str:
    """Returns the placement's name in the path."""
    if not is_name(placement):
        fix = f"For example {near_name(placement)}."
        if "&" in placement:
            fix = "Parameters begin with ?, as in /placements/home/items?user_id=a."
        message = f"{placement[:80]!r} is not a valid name: a name {NAME_RULE}."
        raise RequestError("request.invalid_placement", message, fix=fix)
    return placement


NameDep = Annotated[str, Depends(checked_name)]
ExpectedVersion = Annotated[
    int | None,
    Query(
        ge=0,
        le=MOST_VERSION,
        description="Change it only where this version is stored; 0: where none is stored, or the file's counts.",
    ),
]


@router.get("/placements", dependencies=[READ], response_model=PlacementList, responses=PROBLEMS)
async def list_placements(request: Request, app: AppDep) -> Response:
    """All placements: those that were put, and those of the service's file that none of them overrides."""
    shown = [_shown(name, found) for name, found in app.placements.all().items()]
    return json_response({"placements": shown, **_about(request, app)})


class PlacedParameters(NamedTuple):
    """The query parameters of a call for a placement's items: the query without items, and the items as they were sent.

    Attributes:
        cart, session: one item_id each, or several separated by commas.
    """

    query: PlacedQuery
    item_id: str | None = None
    cart: Sequence[str] = ()
    session: Sequence[str] = ()


async def placed_parameters(
    user_id: Annotated[str | None, Query(description="Whose list it is.", json_schema_extra=ID_SCHEMA)] = None,
    item_id: Annotated[str | None, Query(description="The product of the page.", json_schema_extra=ID_SCHEMA)] = None,
    cart: Annotated[list[IdsText], Query(description="item_ids of the cart, repeated or separated by commas.")] = [],  # noqa: B006 - FastAPI copies the default
    session: Annotated[
        list[IdsText],
        Query(description="item_ids of the running session, oldest first: used where the user has no history."),
    ] = [],  # noqa: B006 - FastAPI copies the default
    n: Annotated[int | None, Query(ge=1, le=MAX_N, description="Number of items; the placement's length.")] = None,
    explain: Annotated[bool, Query(description="Add the reasons.")] = False,
    recommendation_id: RecommendationId = None,
    offset: Offset = 0,
) -> PlacedParameters:
    """Reads the parameters from the query."""
    query = PlacedQuery(n=n, user_id=user_id, explain=explain, offset=offset, recommendation_id=recommendation_id)
    return PlacedParameters(query, item_id, cart, session)


@router.get(ITEMS_PATH, dependencies=[READ], response_model=PlacementItems, responses=PROBLEMS | NOT_MODIFIED)
async def placement_items(
    request: Request, name: NameDep, app: AppDep, parameters: Annotated[PlacedParameters, Depends(placed_parameters)]
) -> Response:
    """A placement's items: those of its kind, then those of its fallbacks, never the given items themselves.

    `warnings` says which kinds found nothing. A later page (`recommendation_id`, `offset`) is read from the list as it
    was made, even where the placement was changed or removed since. Where the placement has `cache_s`, the answer has
    an `ETag`; with it in `If-None-Match`, 304 says that the list is still the same. It counts as shown.
    """
    asked, names_items = parameters.query, any(parameters[1:])
    if asked.user_id is not None:
        checked_user_ids([asked.user_id])
    with lease(app, asked.user_id) as context:
        if names_items:
            asked = _with_items(parameters, context)
        else:
            request.app.state.queries.learn_placed(request.scope["query_string"], asked)
        found = app.placements.find(name)
        if asked.recommendation_id is None and found is None:
            # Another replica may have stored it a moment ago.
            await app.placements.try_look()
            found = app.placements.find(name)
            if found is None:
                raise _unknown(name)
        query = asked.list_query(None if found is None else found.placement)
        await charge(request.scope, 1, query.n, explain=asked.explain)
        answer, version = await _answer(name, found, asked, query, context)
        tag = _tag(found, asked, answer, context)
        if tag is not None and has_already(request, tag):
            count_shown(request, context, answer.release_id, answer.source, answer.channels)
            return not_modified(tag)
        body = _body(request, name, found, query, answer, context, version)
        return json_response(body, headers=None if tag is None else tag_headers(tag))


def _with_items(parameters: PlacedParameters, context: RequestContext) -> PlacedQuery:
    """Returns the query with the items that the call names."""
    query, item_id, cart, session = parameters
    given = split_item_ids(context, "cart", cart, MAX_CART, fix="Send the latest of them.")
    if item_id is not None:
        given = (*split_item_ids(context, "item_id", [item_id], 1, fix="Name one item."), *given)
    of_session = split_item_ids(context, "session", session, MAX_SESSION, fix="Send the latest of them.")
    return replace(query, given=given, session=of_session)


@router.get("/placements/{placement}", dependencies=[READ], response_model=PlacementAnswer, responses=PROBLEMS)
async def show_placement(request: Request, name: NameDep, app: AppDep) -> Response:
    """A placement as it counts now."""
    await app.placements.try_look()
    found = app.placements.find(name)
    if found is None:
        raise _unknown(name)
    return json_response({**_shown(name, found), **_about(request, app)})


@router.put(
    "/placements/{placement}",
    dependencies=[ADMIN, NAMES_ONCE],
    response_model=PlacementAnswer,
    responses={**PROBLEMS, 409: {**PROBLEMS[422], "description": f"{_CHANGED}; or there are too many placements."}},
)
async def put_placement(
    request: Request, name: NameDep, body: Placement, app: AppDep, expected_version: ExpectedVersion = None
) -> Response:
    """Puts a placement: all of its fields, and nothing of one that was there before.

    `warnings` says what is valid and would do nothing at present, such as a rule that holds for no item.
    It is on disk when the answer arrives, counts here at once, and on every replica within a second. With
    `expected_version` a change that somebody made meanwhile is not overwritten: 409 `placement.changed`.
    """
    warnings = await checked_placement(body, app)
    change = await app.placements.put(name, body, expected=expected_version)
    if change.outcome != "done":
        raise _refusal(name, change, expected_version)
    _audit("put", name, request, version=change.version, fields=body.model_dump(exclude_defaults=True))
    shown, about = _shown(name, PlacementVersion(body, change.version, text_of(body))), _about(request, app)
    return json_response({**shown, **about, "warnings": warnings + about["warnings"]})


@router.delete(
    "/placements/{placement}",
    dependencies=[ADMIN],
    status_code=204,
    response_class=Response,
    responses={**PROBLEMS, 409: {**PROBLEMS[422], "description": f"{_CHANGED}."}},
)
async def delete_placement(
    request: Request, name: NameDep, app: AppDep, expected_version: ExpectedVersion = None
) -> Response:
    """Removes a placement; one of the service's file with the same name counts again. Pages being read go on.

    With `expected_version` a change that somebody made meanwhile is not removed unseen: 409 `placement.changed`.
    """
    change = await app.placements.delete(name, expected=expected_version)
    if change.outcome != "done":
        raise _refusal(name, change, expected_version)
    _audit("delete", name, request)
    return Response(status_code=204)


def _refusal(name: str, change: PlacementChange, expected: int | None) -> RequestError:
    """Returns the error of a change that was not made."""
    if change.outcome == "too_many":
        return RequestError(
            "placement.too_many",
            f"there are {MOST_PLACEMENTS} placements, and no more are kept.",
            fix="DELETE those that no page shows.",
        )
    if change.outcome == "other_version":
        now = f"version {change.version}" if change.version else "not stored"
        return RequestError(
            "placement.changed",
            f"the placement {name!r} is {now} by now, and the call expects version {expected}.",
            fix="GET the placement, make your change to it, and send its version.",
        )
    return _unknown(name)


async def checked_placement(placement: Placement, app: AppContext) -> list[dict[str, Any]]:
    """Returns the warnings of `check_placement`; raises `RequestError` where it does not fit the current release."""
    catalogue = app.releases.current.release.catalogue
    return await asyncio.to_thread(check_placement, placement, catalogue, time.time())


async def _answer(
    name: str, found: PlacementVersion | None, asked: PlacedQuery, query: ListQuery, context: RequestContext
) -> tuple[Answer, str | None]:
    """Returns a new list's first page or a stored list's later page, and the version of the user's state."""
    recommendations = context.recommendations
    if asked.recommendation_id is None and found is not None:
        user, answer = await recommendations.placed.items(name, found, asked)
    else:
        user = None if asked.user_id is None else await recommendations.users.view(asked.user_id)
        first = asked.given[0] if asked.given else None
        answer = await recommendations.next_page(asked.owner(name), query, user, item_id=first)
    return answer, None if user is None else user.state.version


def _tag(found: PlacementVersion | None, asked: PlacedQuery, answer: Answer, context: RequestContext) -> str | None:
    """Returns the tag of an answer that may be given again; None for every other one."""
    is_cached = found is not None and found.placement.cache_s > 0 and asked.recommendation_id is None
    return list_tag(answer.recommendation_id) if is_cached and context.placements.is_current else None


def _body(
    request: Request,
    name: str,
    found: PlacementVersion | None,
    query: ListQuery,
    answer: Answer,
    context: RequestContext,
    version: str | None,
) -> dict[str, Any]:
    about = answer.about(query)
    count_shown(request, context, answer.release_id, answer.source, answer.channels)
    meta = meta_of(
        request,
        answer.release_id,
        answer.source,
        version,
        placement=name,
        placement_version=None if found is None else found.version,
        recommendation_id=about["recommendation_id"],
        next_offset=about["next_offset"],
    )
    warnings = answer.warnings + placements_state(is_current=context.placements.is_current)
    return {"items": items_of(answer, context), "meta": meta, "warnings": warnings}


def _shown(name: str, found: PlacementVersion) -> dict[str, Any]:
    return {"name": name, "version": found.version, "placement": orjson.Fragment(found.text)}


def _about(request: Request, app: AppContext) -> dict[str, Any]:
    warnings = placements_state(is_current=app.placements.is_current)
    return {"meta": {"request_id": request.state.request_id}, "warnings": warnings}


def _audit(action: str, name: str, request: Request, **more: Any) -> None:
    """Writes who changed what to the log: the key's id and what the operator called it, never the key."""
    caller = request.state.caller
    _log.info(
        "placement_changed",
        action=action,
        placement=name,
        key_id=caller.key_id,
        key_name=caller.label,
        request_id=request.state.request_id,
        **more,
    )


def _unknown(name: str) -> RequestError:
    return RequestError(
        "placement.unknown", f"there is no placement {name!r}.", fix="PUT it, or choose one of GET /placements."
    )
