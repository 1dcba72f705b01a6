"""The operator's calls: reload the release, read the statistics."""

from fastapi import APIRouter, Response

from service.api.context import AppDep
from service.api.presenters import PROBLEMS, json_response
from service.api.schemas.answers import Reloaded, Stats
from service.auth.caller import ADMIN

router = APIRouter(prefix="/admin", tags=["admin"], dependencies=[ADMIN])

_PROBLEMS = {
    **PROBLEMS,
    409: {**PROBLEMS[422], "description": "The new release cannot be served; the previous one still is."},
}


@router.post("/reload", response_model=Reloaded, responses=_PROBLEMS)
async def reload(context: AppDep) -> Response:
    """Serves the release that `current` points to now. Other workers and replicas follow within seconds."""
    switched = await context.releases.reload()
    return json_response(
        {
            "status": "unchanged" if switched.before == switched.after else "switched",
            "release_id": switched.after,
            "previous_release_id": switched.before,
            "seconds": round(switched.seconds, 3),
        }
    )


@router.get("/stats", response_model=Stats, responses=PROBLEMS)
async def stats(context: AppDep) -> Response:
    """Answers, shown items, clicks and purchases, by release, answer source and channel. No user ids."""
    return json_response({"releases": await context.click_stats.stats()})
