"""Dependencies that read and check the ids of a path, the parameters of a list, and the names in a body."""

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
    MAX_CONTEXT,
    MAX_CONTEXT_VALUE,
    MAX_EXCLUDED,
    MAX_N,
    MAX_SESSION,
    Categories,
    Diversity,
    ExcludeVariants,
    FilterText,
    ListRequest,
    MaxPrice,
    MinPrice,
    NotCategories,
    Offset,
    RecommendationId,
)
from service.recommend.query_models import ListQuery
from service.release.catalogue import Filter
from service.release.conditions import CONTEXT

IdsText = Annotated[str, Field(json_schema_extra={"pattern": "^[^\\x00-\\x1f\\x7f-\\x9f]*$"})]
"""One id, or several ids separated by commas, in a query."""


async def checked_user_id(request: Request, user_id: Annotated[str, Path(json_schema_extra=ID_SCHEMA)]) -> str:
    """Returns the user_id of the path; a slash in it may be percent-encoded or not."""
    return _checked_id(request, "user", user_id)


async def checked_item_id(request: Request, item_id: Annotated[str, Path(json_schema_extra=ID_SCHEMA)]) -> str:
    """Returns the item_id of the path; a slash in it may be percent-encoded or not."""
    return _checked_id(request, "item", item_id)


def _checked_id(request: Request, kind: str, text: str) -> str:
    code = f"request.invalid_{kind}_id"
    try:
        # The server decodes leniently: two different invalid ids would become equal.
        unquote_to_bytes(request.scope.get("raw_path") or b"").decode("utf-8")
    except UnicodeDecodeError:
        raise RequestError(code, f"the {kind}_id is not valid UTF-8.", fix="Percent-encode its UTF-8 bytes.") from None
    problem = id_problem(text)
    if problem:
        raise RequestError(code, f"the {kind}_id {problem}.", fix=f"Send the shop's own {kind} id.")
    return text


async def query_by_parameters(
    request: Request,
    context: ContextDep,
    n: Annotated[int, Query(ge=1, le=MAX_N, description="Number of items.")] = 10,
    category: Annotated[Categories, Query()] = [],  # noqa: B006 - FastAPI copies the default
    exclude_category: Annotated[NotCategories, Query()] = [],  # noqa: B006
    filter: FilterText = None,
    exclude: Annotated[
        list[IdsText],
        Query(description="item_ids, repeated or separated by commas; an id with a comma in it is one id."),
    ] = [],  # noqa: B006 - FastAPI copies the default
    min_price: MinPrice = None,
    max_price: MaxPrice = None,
    diversity: Diversity = 0.0,
    include_seen: Annotated[bool, Query(description="Recommend bought items too; disliked ones never.")] = False,
    exclude_variants: ExcludeVariants = False,
    explain: Annotated[bool, Query(description="Add the reasons.")] = False,
    recommendation_id: RecommendationId = None,
    offset: Offset = 0,
) -> ListQuery:
    """Reads the list query from the query parameters, all but the session."""
    excluded = split_item_ids(
        context, "exclude", exclude, MAX_EXCLUDED, fix="Name fewer, or leave out a category or a range of prices."
    )
    context_values = _context(request)
    item_filter = Filter(
        categories=tuple(category),
        exclude_categories=tuple(exclude_category),
        exclude=excluded,
        exclude_variants=exclude_variants,
        min_price=min_price,
        max_price=max_price,
        condition=filter,
        context=context_values,
    )
    return ListQuery(
        n=n,
        item_filter=item_filter,
        include_seen=include_seen,
        explain=explain,
        diversity=diversity,
        recommendation_id=recommendation_id,
        offset=offset,
        named_parameters=frozenset((*request.query_params, *(["context"] if context_values else []))),
    )


def _context(request: Request) -> tuple[tuple[str, str], ...]:
    """Returns the names and values of the parameters `context.NAME`, by name."""
    values = {
        name.removeprefix(CONTEXT): value
        for name, value in request.query_params.multi_items()
        if name.startswith(CONTEXT)
    }
    if len(values) > MAX_CONTEXT or any(len(value) > MAX_CONTEXT_VALUE for value in values.values()):
        message = f"a call has at most {MAX_CONTEXT} context values, of {MAX_CONTEXT_VALUE} characters each."
        raise RequestError("request.invalid", message, fix="Send those that the filter reads.")
    return tuple(sorted(values.items()))


async def session_by_query(
    context: ContextDep,
    session: Annotated[
        list[IdsText],
        Query(
            description="item_ids of the running session, oldest first, repeated or separated by commas: used where "
            "the user has no history."
        ),
    ] = [],  # noqa: B006 - FastAPI copies the default
) -> tuple[str, ...]:
    """Reads the session's item_ids from the query."""
    return split_item_ids(context, "session", session, MAX_SESSION, fix="Send the latest of them.")


async def each_name_once(request: Request) -> None:
    """Refuses a body with the same name twice in one object: a parser would silently use the last."""
    body = await request.body()
    name = doubled_name(body, await request.json()) if body else None
    if name is not None:
        raise RequestError(
            "request.duplicate_name", f"{shown(name)} stands twice in one object of the body.", fix="Send it once."
        )


NAMES_ONCE = Depends(each_name_once)
"""A dependency of every route that accepts a JSON body."""

UserIdDep = Annotated[str, Depends(checked_user_id)]
ItemIdDep = Annotated[str, Depends(checked_item_id)]
SessionDep = Annotated[tuple[str, ...], Depends(session_by_query)]
QueryDep = Annotated[ListQuery, Depends(query_by_parameters)]


def split_item_ids(
    context: RequestContext, parameter: str, values: Sequence[str], most: int, *, fix: str
) -> tuple[str, ...]:
    """Returns the item_ids of a query parameter; a value with commas is split unless the catalogue has it as an id.

    Raises:
        RequestError: an id is not valid, or there are more than `most`.
    """
    knows = context.recommendations.release.catalogue.knows
    item_ids: list[str] = []
    for value in values:
        item_ids += [value] if knows(value) else [part for part in value.split(",") if part]
    checked_item_ids(item_ids)
    if len(item_ids) > most:
        raise RequestError("request.invalid", f"{parameter} names {len(item_ids)} items, {most} are allowed.", fix=fix)
    return tuple(item_ids)


def query_by_body(body: ListRequest) -> ListQuery:
    """Reads the list query from a body."""
    checked_item_ids(body.exclude)
    item_filter = Filter(
        categories=_names(body.category),
        exclude_categories=_names(body.exclude_category),
        exclude=tuple(body.exclude),
        exclude_variants=body.exclude_variants,
        min_price=body.min_price,
        max_price=body.max_price,
        condition=body.filter,
        context=tuple(sorted(body.context.items())),
    )
    return ListQuery(
        n=body.n,
        item_filter=item_filter,
        include_seen=body.include_seen,
        explain=body.explain,
        diversity=body.diversity,
        named_parameters=frozenset(body.model_fields_set),
    )


def _names(value: str | Sequence[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def checked_item_ids(item_ids: Iterable[str]) -> None:
    """Raises `RequestError` where an item_id is not valid."""
    _check_ids("item", "an item_id", item_ids)


def checked_user_ids(user_ids: Iterable[str]) -> None:
    """Raises `RequestError` where a user_id is not valid."""
    _check_ids("user", "a user_id", user_ids)


def _check_ids(kind: str, what: str, ids: Iterable[str]) -> None:
    for external_id in ids:
        problem = id_problem(external_id)
        if problem:
            raise RequestError(
                f"request.invalid_{kind}_id", f"{what} {problem}.", fix=f"Send the shop's own {kind} ids."
            )
