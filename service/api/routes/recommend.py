"""Recommendations for users, for a session, and for everybody; the order of given candidates; similar items."""

import asyncio
from dataclasses import replace
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Body, Request, Response

from isrf.contract.errors import RequestError
from service.api.context import AppDep, ContextDep, RequestContext, lease
from service.api.presenters import PROBLEMS, items_of, json_response, meta_of
from service.api.schemas.answers import ManyRecommendations, PopularItems, Recommendations, SimilarItems
from service.api.schemas.requests import MAX_N, RankRequest, RecommendRequest, UsersRequest
from service.api.validation.calls import HEAD_ONLY
from service.api.validation.inputs import (
    NAMES_ONCE,
    ItemIdDep,
    SessionDep,
    UserIdDep,
    WantedDep,
    checked_item_ids,
    checked_user_ids,
    wanted_by_body,
)
from service.auth.caller import READ
from service.auth.request_cost import charge, check_cost
from service.inference.deadline import renew_deadline
from service.recommend.query_models import Answer, ListQuery, owner_of

router = APIRouter(tags=["recommend"], dependencies=[READ])

USER_PATH = "/recommend/{user_id:path}"

AT_ONCE = 8
"""Users of one request that are answered at the same time: others shall have their turn in between."""


@router.get(USER_PATH, response_model=Recommendations, responses=PROBLEMS)
async def recommend_user(
    request: Request, user_id: UserIdDep, wanted: WantedDep, session: SessionDep, context: ContextDep
) -> Response:
    """Items for a user. Always `n` of them while that many are allowed; an unknown user gets the popular ones."""
    if session:
        wanted = replace(wanted, session=session, said=wanted.said | {"session"})
    request.app.state.queries.learn(request.scope["query_string"], wanted)
    await charge(request.scope, 1, wanted.n, explain=wanted.explain)
    return json_response(await user_body(request, user_id, wanted, context))


@router.post(
    "/recommend",
    dependencies=[NAMES_ONCE],
    response_model=Recommendations | ManyRecommendations,
    responses=PROBLEMS,
)
async def recommend_many(request: Request, body: Annotated[RecommendRequest, Body()], app: AppDep) -> Response:
    """Items for a session, from the items it holds; or for up to 256 users. Nothing is stored of a session."""
    wanted = wanted_by_body(body)
    num_lists = len(body.users) if isinstance(body, UsersRequest) else 1
    check_cost(num_lists, wanted.n, explain=wanted.explain)
    await charge(request.scope, num_lists, wanted.n, explain=wanted.explain)
    if isinstance(body, UsersRequest):
        return json_response(await _for_users(request, body.users, wanted, app))
    checked_item_ids(body.history)
    wanted = replace(
        wanted,
        session=tuple(body.history),
        said=wanted.said | {"session"},
        offset=body.offset,
        recommendation_id=body.recommendation_id,
    )
    if body.user_id is not None:
        checked_user_ids([body.user_id])
    with lease(app, body.user_id) as context:
        if body.user_id is not None:
            return json_response(await user_body(request, body.user_id, wanted, context))
        recommendations = context.recommendations
        if wanted.recommendation_id is None:
            answer = await recommendations.for_session(body.history, wanted)
        else:
            answer = await recommendations.next_page(owner_of("session"), wanted)
        return json_response({"user_id": None, **_body(request, answer, wanted, context)})


@router.post("/rank", dependencies=[NAMES_ONCE], response_model=Recommendations, responses=PROBLEMS)
async def rank(request: Request, body: RankRequest, app: AppDep) -> Response:
    """The candidates in their order for a user, or for a history; those seen already stay, unknown ones are named."""
    checked_item_ids((*body.history, *body.candidates))
    if body.user_id is not None:
        checked_user_ids([body.user_id])
    n = body.n or len(body.candidates)
    if body.explain and n > MAX_N:
        raise RequestError(
            "request.too_much",
            f"{n} candidates are more than can be explained in one request, {MAX_N} are.",
            fix=f"Send n={MAX_N} or less, or leave `explain` out.",
        )
    await charge(request.scope, 1, n, explain=body.explain)
    wanted = ListQuery(n=n, explain=body.explain, diversity=body.diversity)
    with lease(app, body.user_id) as context:
        recommendations = context.recommendations
        user = None if body.user_id is None else await recommendations.users.view(body.user_id)
        answer = await recommendations.rank(user, body.history, body.candidates, wanted)
        version = None if user is None else user.state.version
        told = _body(request, answer, wanted, context, version)
        # The rest of the candidates is asked for with a larger n.
        told["meta"].pop("next_offset", None)
        return json_response({"user_id": body.user_id, **told})


@router.get("/similar/{item_id:path}", response_model=SimilarItems, responses=PROBLEMS)
async def similar(request: Request, item_id: ItemIdDep, wanted: WantedDep, context: ContextDep) -> Response:
    """Items like this one: taken together with it, described like it, or near it to the model. New items have some."""
    recommendations = context.recommendations
    if not recommendations.release.catalogue.knows(item_id):
        # Another replica may have taken it in a moment ago.
        await context.releases.look_for_items()
    if not recommendations.release.catalogue.knows(item_id):
        raise RequestError(
            "request.unknown_item", "the catalogue has no such item.", fix="Send an item_id of the catalogue."
        )
    await charge(request.scope, 1, wanted.n, explain=wanted.explain)
    if wanted.recommendation_id is None:
        answer = await recommendations.similar(item_id, wanted)
    else:
        answer = await recommendations.next_page(owner_of("similar", item_id), wanted, item_id=item_id)
    return json_response({"item_id": item_id, **_body(request, answer, wanted, context)})


@router.get("/popular", response_model=PopularItems, responses=PROBLEMS)
async def popular(request: Request, wanted: WantedDep, context: ContextDep) -> Response:
    """The most popular items, in a category or in all."""
    recommendations = context.recommendations
    await charge(request.scope, 1, wanted.n, explain=wanted.explain)
    if wanted.recommendation_id is None:
        answer = await recommendations.popular(wanted)
    else:
        answer = await recommendations.next_page(owner_of("popular"), wanted)
    return json_response(_body(request, answer, wanted, context))


async def user_body(request: Request, user_id: str, wanted: ListQuery, context: RequestContext) -> dict[str, Any]:
    """A user's answer as it leaves."""
    recommendations = context.recommendations
    if wanted.recommendation_id is not None:
        user = await recommendations.users.view(user_id)
        answer = await recommendations.next_page(owner_of("user", user_id), wanted, user)
        return {"user_id": user_id, **_body(request, answer, wanted, context, user.state.version)}
    version, served = await recommendations.recommend(user_id, wanted, lambda answer: items_of(answer, context))
    about = orjson.loads(served.about)
    release_id = recommendations.release.manifest.release_id
    return {
        "user_id": user_id,
        "items": orjson.Fragment(served.items),
        "meta": _meta(request, context, release_id, served.source, about, version),
        "warnings": orjson.Fragment(served.warnings),
    }


async def _for_users(request: Request, user_ids: list[str], wanted: ListQuery, app: AppDep) -> dict[str, Any]:
    """Each as if asked for alone; those that wait at the same time share the model's runs."""
    checked_user_ids(user_ids)
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(user_id: str) -> dict[str, Any]:
        async with turn:
            renew_deadline()
            with lease(app, user_id) as context:
                return await user_body(request, user_id, wanted, context)

    tasks = [asyncio.create_task(one(user_id)) for user_id in user_ids]
    try:
        return {"answers": await asyncio.gather(*tasks)}
    finally:
        # Where one is refused, nobody gets the others' answers.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _body(
    request: Request, answer: Answer, wanted: ListQuery, context: RequestContext, version: str | None = None
) -> dict[str, Any]:
    return {
        "items": items_of(answer, context),
        "meta": _meta(request, context, answer.release_id, answer.source, answer.about(wanted), version),
        "warnings": answer.warnings,
    }


def _meta(
    request: Request, context: RequestContext, release_id: str, source: str, about: dict[str, Any], version: str | None
) -> dict[str, Any]:
    """What an answer tells of itself, which is then counted as shown."""
    if HEAD_ONLY not in request.scope:
        context.click_stats.shown(release_id, source, about["channels"])
    told = {name: about[name] for name in ("recommendation_id", "next_offset")}
    return meta_of(request, release_id, source, version, **told)
