"""Recommendations for a user, for a session, and for everybody."""

from fastapi import APIRouter, Request, Response

from isrf.errors import RequestError
from service.catalogue import Filter
from service.doors.caller import READ
from service.identifiers import id_problem
from service.recommendations import Wanted
from service.routes.dependencies import PROBLEMS, ServiceDep, UserIdDep, WantedDep, items_of, json_response, meta_of
from service.schemas import PopularItems, Recommendations, SessionRequest

router = APIRouter(tags=["recommend"], dependencies=[READ])


@router.get("/recommend/{user_id:path}", response_model=Recommendations, responses=PROBLEMS)
async def recommend_user(request: Request, user_id: UserIdDep, wanted: WantedDep, service: ServiceDep) -> Response:
    """Items for a user. Always `n` of them while that many are allowed; an unknown user gets the popular ones."""
    user = await service.recommendations.view(user_id)
    answer = await service.recommendations.for_user(user, wanted)
    return json_response(
        {
            "user_id": user_id,
            "items": items_of(answer, service),
            "meta": meta_of(request, service, answer.source, user.state.version),
            "warnings": answer.warnings,
        }
    )


@router.post("/recommend", response_model=Recommendations, responses=PROBLEMS)
async def recommend_session(request: Request, body: SessionRequest, service: ServiceDep) -> Response:
    """Items for an anonymous session, from the items it holds. Nothing is stored."""
    for item_id in (*body.history, *body.exclude):
        problem = id_problem(item_id)
        if problem:
            raise RequestError("request.invalid_item_id", f"an item_id {problem}.", fix="Send the shop's own item ids.")
    wanted = Wanted(
        n=body.n,
        only=Filter(
            category=body.category,
            exclude=tuple(body.exclude),
            min_price=body.min_price,
            max_price=body.max_price,
        ),
        diversity=body.diversity,
        include_seen=body.include_seen,
        explain=body.explain,
    )
    answer = await service.recommendations.for_session(body.history, wanted)
    return json_response(
        {
            "user_id": None,
            "items": items_of(answer, service),
            "meta": meta_of(request, service, answer.source),
            "warnings": answer.warnings,
        }
    )


@router.get("/popular", response_model=PopularItems, responses=PROBLEMS)
async def popular(request: Request, wanted: WantedDep, service: ServiceDep) -> Response:
    """The most popular items, in a category or in all."""
    answer = await service.recommendations.popular(wanted)
    return json_response(
        {
            "items": items_of(answer, service),
            "meta": meta_of(request, service, answer.source),
            "warnings": answer.warnings,
        }
    )
