"""Recommends items to users and sessions, ranks candidates, and lists similar and popular items."""

import asyncio
from dataclasses import replace
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Body, Request, Response

from isrf.contract.errors import RequestError
from service.api.conditional import NOT_MODIFIED, has_already, list_tag, not_modified, tag_headers
from service.api.context import AppDep, ContextDep, RequestContext, lease
from service.api.presenters import PROBLEMS, count_shown, items_of, json_response, meta_of
from service.api.schemas.answers import ManyRecommendations, PopularItems, Recommendations, SimilarItems
from service.api.schemas.requests import MAX_N, RankRequest, RecommendRequest, UsersRequest
from service.api.validation.inputs import (
    NAMES_ONCE,
    ItemIdDep,
    QueryDep,
    SessionDep,
    UserIdDep,
    checked_item_ids,
    checked_user_ids,
    query_by_body,
)
from service.auth.caller import READ
from service.auth.request_cost import charge, check_cost
from service.inference.deadline import renew_deadline
from service.recommend.query_models import Answer, ListQuery, owner_of
from service.recommend.response_cache import CachedResponse
from service.release.catalogue import Filter

router = APIRouter(tags=["recommend"], dependencies=[READ])

USER_PATH = "/recommend/{user_id:path}"

AT_ONCE = 8
"""Users of one request that are answered concurrently; a limit, so that other requests are not delayed."""


@router.get(USER_PATH, response_model=Recommendations, responses=PROBLEMS | NOT_MODIFIED)
async def recommend_user(
    request: Request, user_id: UserIdDep, query: QueryDep, session: SessionDep, context: ContextDep
) -> Response:
    """Items for a user: `n` of them where the filter allows so many. An unknown user gets popular items.

    With the `ETag` of an earlier answer in `If-None-Match`, 304 says that it is still the answer. It counts as shown.
    """
    if session:
        query = replace(query, session=session, named_parameters=query.named_parameters | {"session"})
    request.app.state.queries.learn(request.scope["query_string"], query)
    await charge(request.scope, 1, query.n, explain=query.explain)
    if query.recommendation_id is not None:
        return json_response(await user_body(request, user_id, query, context))
    version, served, about = await _served(user_id, query, context)
    tag = list_tag(about["recommendation_id"])
    if has_already(request, tag):
        release_id = context.recommendations.release.manifest.release_id
        count_shown(request, context, release_id, served.source, about["channels"])
        return not_modified(tag)
    body = _served_body(request, user_id, context, version, served, about)
    return json_response(body, headers=tag_headers(tag))


@router.post(
    "/recommend",
    dependencies=[NAMES_ONCE],
    response_model=Recommendations | ManyRecommendations,
    responses=PROBLEMS,
)
async def recommend_many(request: Request, body: Annotated[RecommendRequest, Body()], app: AppDep) -> Response:
    """Items for a session, from the session's items; or for up to 256 users. The service stores no session."""
    query = query_by_body(body)
    num_lists = len(body.users) if isinstance(body, UsersRequest) else 1
    check_cost(num_lists, query.n, explain=query.explain)
    await charge(request.scope, num_lists, query.n, explain=query.explain)
    if isinstance(body, UsersRequest):
        return json_response(await _for_users(request, body.users, query, app))
    checked_item_ids(body.history)
    query = replace(
        query,
        session=tuple(body.history),
        named_parameters=query.named_parameters | {"session"},
        offset=body.offset,
        recommendation_id=body.recommendation_id,
    )
    if body.user_id is not None:
        checked_user_ids([body.user_id])
    with lease(app, body.user_id) as context:
        if body.user_id is not None:
            return json_response(await user_body(request, body.user_id, query, context))
        recommendations = context.recommendations
        if query.recommendation_id is None:
            answer = await recommendations.for_session(body.history, query)
        else:
            answer = await recommendations.next_page(owner_of("session"), query)
        return json_response({"user_id": None, **_body(request, answer, query, context)})


@router.post("/rank", dependencies=[NAMES_ONCE], response_model=Recommendations, responses=PROBLEMS)
async def rank(request: Request, body: RankRequest, app: AppDep) -> Response:
    """Ranks candidates for a user or a history. Seen candidates stay; unknown ones are named in a warning."""
    checked_item_ids((*body.history, *body.candidates))
    if body.user_id is not None:
        checked_user_ids([body.user_id])
    n = body.n or len(body.candidates)
    if body.explain and n > MAX_N:
        raise RequestError(
            "request.too_much",
            f"one request can explain {MAX_N} candidates, not {n}.",
            fix=f"Send n={MAX_N} or less, or leave `explain` out.",
        )
    await charge(request.scope, 1, n, explain=body.explain)
    item_filter = Filter(condition=body.filter, context=tuple(sorted(body.context.items())))
    query = ListQuery(n=n, item_filter=item_filter, explain=body.explain, diversity=body.diversity)
    with lease(app, body.user_id) as context:
        recommendations = context.recommendations
        user = None if body.user_id is None else await recommendations.users.view(body.user_id)
        answer = await recommendations.rank(user, body.history, body.candidates, query)
        version = None if user is None else user.state.version
        ranked = _body(request, answer, query, context, version)
        # Ranked candidates have no pages: the caller asks for more with a larger n.
        ranked["meta"].pop("next_offset", None)
        return json_response({"user_id": body.user_id, **ranked})


@router.get("/similar/{item_id:path}", response_model=SimilarItems, responses=PROBLEMS)
async def similar(request: Request, item_id: ItemIdDep, query: QueryDep, context: ContextDep) -> Response:
    """Items like this one: taken together with it, with a similar text or a near vector. New items have some too."""
    recommendations = context.recommendations
    if not recommendations.release.catalogue.knows(item_id):
        # Another replica may have added the item a moment ago.
        await context.releases.look_for_items()
    if not recommendations.release.catalogue.knows(item_id):
        raise RequestError(
            "request.unknown_item", "the catalogue has no such item.", fix="Send an item_id of the catalogue."
        )
    await charge(request.scope, 1, query.n, explain=query.explain)
    if query.recommendation_id is None:
        answer = await recommendations.similar(item_id, query)
    else:
        answer = await recommendations.next_page(owner_of("similar", item_id), query, item_id=item_id)
    return json_response({"item_id": item_id, **_body(request, answer, query, context)})


@router.get("/popular", response_model=PopularItems, responses=PROBLEMS)
async def popular(request: Request, query: QueryDep, context: ContextDep) -> Response:
    """The most popular items, in a category or in all."""
    recommendations = context.recommendations
    await charge(request.scope, 1, query.n, explain=query.explain)
    if query.recommendation_id is None:
        answer = await recommendations.popular(query)
    else:
        answer = await recommendations.next_page(owner_of("popular"), query)
    return json_response(_body(request, answer, query, context))


async def user_body(request: Request, user_id: str, query: ListQuery, context: RequestContext) -> dict[str, Any]:
    """Returns the body of a user's answer."""
    recommendations = context.recommendations
    if query.recommendation_id is not None:
        user = await recommendations.users.view(user_id)
        answer = await recommendations.next_page(owner_of("user", user_id), query, user)
        return {"user_id": user_id, **_body(request, answer, query, context, user.state.version)}
    return _served_body(request, user_id, context, *await _served(user_id, query, context))


async def _served(
    user_id: str, query: ListQuery, context: RequestContext
) -> tuple[str, CachedResponse, dict[str, Any]]:
    """Returns the version of the user's state, the answer, and what it says about its list."""
    recommendations = context.recommendations
    version, served = await recommendations.recommend(user_id, query, lambda answer: items_of(answer, context))
    return version, served, orjson.loads(served.about)


def _served_body(
    request: Request,
    user_id: str,
    context: RequestContext,
    version: str,
    served: CachedResponse,
    about: dict[str, Any],
) -> dict[str, Any]:
    release_id = context.recommendations.release.manifest.release_id
    return {
        "user_id": user_id,
        "items": orjson.Fragment(served.items),
        "meta": _meta(request, context, release_id, served.source, about, version),
        "warnings": orjson.Fragment(served.warnings),
    }


async def _for_users(request: Request, user_ids: list[str], query: ListQuery, app: AppDep) -> dict[str, Any]:
    """Answers each user as in a request of its own; users that wait at the same time share the model's runs."""
    checked_user_ids(user_ids)
    concurrency = asyncio.Semaphore(AT_ONCE)

    async def answer_user(user_id: str) -> dict[str, Any]:
        async with concurrency:
            renew_deadline()
            with lease(app, user_id) as context:
                return await user_body(request, user_id, query, context)

    tasks = [asyncio.create_task(answer_user(user_id)) for user_id in user_ids]
    try:
        return {"answers": await asyncio.gather(*tasks)}
    finally:
        # Where one user is refused, the request fails, and nobody needs the other answers.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _body(
    request: Request, answer: Answer, query: ListQuery, context: RequestContext, version: str | None = None
) -> dict[str, Any]:
    return {
        "items": items_of(answer, context),
        "meta": _meta(request, context, answer.release_id, answer.source, answer.about(query), version),
        "warnings": answer.warnings,
    }


def _meta(
    request: Request, context: RequestContext, release_id: str, source: str, about: dict[str, Any], version: str | None
) -> dict[str, Any]:
    """Returns the `meta` of an answer, and counts the answer as shown."""
    count_shown(request, context, release_id, source, about["channels"])
    return meta_of(
        request,
        release_id,
        source,
        version,
        recommendation_id=about["recommendation_id"],
        next_offset=about["next_offset"],
    )
