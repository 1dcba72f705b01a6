"""Query, path and body as a route may use them: checked ids, a list query from parameters, names that stand once."""

from collections.abc import Iterable, Sequence
from typing import Annotated
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Path, Query, Request
from pydantic import Field

from isrf.contract.errors import RequestError
from isrf.contract.ids import ID_SCHEMA, id_problem
from isrf.contract.json_object import doubled_name
from isrf.contract.shown import shown
from service.api.context import ContextDep, RequestContext
from service.api.schemas.requests import (
    MAX_EXCLUDED,
    MAX_N,
    MAX_SESSION,
    Category,
    Diversity,
    ListRequest,
    MaxPrice,
    MinPrice,
    Offset,
    RecommendationId,
)
from service.recommend.query_models import ListQuery
from service.release.catalogue import Filter

IdsText = Annotated[str, Field(json_schema_extra={"pattern": "^[^\\x00-\\x1f\\x7f-\\x9f]*$"})]
"""One id, or several with commas between them, as a query has them."""


async def checked_user_id(request: Request, user_id: Annotated[str, Path(json_schema_extra=ID_SCHEMA)]) -> str:
    """The user_id of the path; a slash in it may come encoded or plain."""
    return _checked_id(request, "user", user_id)


async def checked_item_id(request: Request, item_id: Annotated[str, Path(json_schema_extra=ID_SCHEMA)]) -> str:
    """The item_id of the path; a slash in it may come encoded or plain."""
    return _checked_id(request, "item", item_id)


def _checked_id(request: Request, kind: str, text: str) -> str:
    code = f"request.invalid_{kind}_id"
    try:
        # The server decodes leniently: two broken ids would become one.
        unquote_to_bytes(request.scope.get("raw_path") or b"").decode("utf-8")
    except UnicodeDecodeError:
        raise RequestError(code, f"the {kind}_id is not valid UTF-8.", fix="Percent-encode its UTF-8 bytes.") from None
    problem = id_problem(text)
    if problem:
        raise RequestError(code, f"the {kind}_id {problem}.", fix=f"Send the shop's own {kind} id.")
    return text


async def wanted_by_query(
    request: Request,
    context: ContextDep,
    n: Annotated[int, Query(ge=1, le=MAX_N, description="How many items are wanted.")] = 10,
    category: Category = None,
    exclude: Annotated[
        list[IdsText],
        Query(description="item_ids, repeated or separated by commas; an id with a comma in it is one id."),
    ] = [],  # noqa: B006 - FastAPI copies the default
    min_price: MinPrice = None,
    max_price: MaxPrice = None,
    diversity: Diversity = 0.0,
    include_seen: Annotated[bool, Query(description="Recommend bought items too; disliked ones never.")] = False,
    explain: Annotated[bool, Query(description="Add the reasons.")] = False,
    recommendation_id: RecommendationId = None,
    offset: Offset = 0,
) -> ListQuery:
    excluded = _named_items(
        context, "exclude", exclude, MAX_EXCLUDED, fix="Name fewer, or leave out a category or a range of prices."
    )
    only = Filter(category=category, exclude=excluded, min_price=min_price, max_price=max_price)
    return ListQuery(
        n=n,
        only=only,
        include_seen=include_seen,
        explain=explain,
        diversity=diversity,
        recommendation_id=recommendation_id,
        offset=offset,
        said=frozenset(request.query_params),
    )


async def session_by_query(
    context: ContextDep,
    session: Annotated[
        list[IdsText],
        Query(
            description="item_ids of the running session, oldest first, repeated or separated by commas: read where "
            "the user has no history of their own."
        ),
    ] = [],  # noqa: B006 - FastAPI copies the default
) -> tuple[str, ...]:
    return _named_items(context, "session", session, MAX_SESSION, fix="Send the latest of them.")


async def each_name_once(request: Request) -> None:
    """Of two equal names in the body a parser would keep the last in silence."""
    body = await request.body()
    name = doubled_name(body, await request.json()) if body else None
    if name is not None:
        raise RequestError(
            "request.duplicate_name", f"{shown(name)} stands twice in one object of the body.", fix="Send it once."
        )


NAMES_ONCE = Depends(each_name_once)
"""Of every route that takes a JSON body."""

UserIdDep = Annotated[str, Depends(checked_user_id)]
ItemIdDep = Annotated[str, Depends(checked_item_id)]
SessionDep = Annotated[tuple[str, ...], Depends(session_by_query)]
WantedDep = Annotated[ListQuery, Depends(wanted_by_query)]


def _named_items(
    context: RequestContext, parameter: str, values: Sequence[str], most: int, *, fix: str
) -> tuple[str, ...]:
    """The item_ids of a query's parameter; `RequestError` where one can be no shop's, or there are more than `most`."""
    knows = context.recommendations.release.catalogue.knows
    named: list[str] = []
    for value in values:
        named += [value] if knows(value) else [part for part in value.split(",") if part]
    checked_item_ids(named)
    if len(named) > most:
        raise RequestError("request.invalid", f"{parameter} names {len(named)} items, {most} are allowed.", fix=fix)
    return tuple(named)


def wanted_by_body(body: ListRequest) -> ListQuery:
    checked_item_ids(body.exclude)
    only = Filter(
        category=body.category, exclude=tuple(body.exclude), min_price=body.min_price, max_price=body.max_price
    )
    return ListQuery(
        n=body.n,
        only=only,
        include_seen=body.include_seen,
        explain=body.explain,
        diversity=body.diversity,
        said=frozenset(body.model_fields_set),
    )


def checked_item_ids(item_ids: Iterable[str]) -> None:
    """`RequestError` on one that can be no shop's."""
    _check_ids("item", "an item_id", item_ids)


def checked_user_ids(user_ids: Iterable[str]) -> None:
    """`RequestError` on one that can be no shop's."""
    _check_ids("user", "a user_id", user_ids)


def _check_ids(kind: str, what: str, ids: Iterable[str]) -> None:
    for one in ids:
        problem = id_problem(one)
        if problem:
            raise RequestError(
                f"request.invalid_{kind}_id", f"{what} {problem}.", fix=f"Send the shop's own {kind} ids."
            )
