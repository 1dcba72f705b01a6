"""What the service knows of a user, and forgetting it."""

from fastapi import APIRouter, Request, Response

from service.catalogue import group_words, words
from service.doors.caller import READ, WRITE
from service.routes.dependencies import PROBLEMS, ServiceDep, UserIdDep, json_response, meta_of
from service.schemas import UserAnswer

router = APIRouter(tags=["users"])

SHOWN_WORDS = 8


@router.get("/users/{user_id:path}", dependencies=[READ], response_model=UserAnswer, responses=PROBLEMS)
async def show_user(request: Request, user_id: UserIdDep, service: ServiceDep) -> Response:
    """History (oldest first), version and interests. A user nobody knows has an empty history."""
    ours = service.recommendations
    user = await ours.users.view(user_id)
    items = ours.release.catalogue.items
    explicit = words((items[row] for row in dict.fromkeys(user.rows)), limit=SHOWN_WORDS)
    group, num_similar = [], 0
    if user.rows:
        interests = await ours.users.interests(user)
        group = group_words(
            ([items[row] for row in rows] for rows in ours.users.similar_items(interests, user.crowd)),
            limit=SHOWN_WORDS,
        )
        num_similar = int((interests.neighbours.users >= 0).sum())
    state = user.state
    warnings = []
    if not user.store_was_read:
        message = "User state could not be read; this is the release alone."
        warnings.append({"code": "store_unavailable", "message": message})
    return json_response(
        {
            "user_id": user_id,
            "known": user.known,
            "version": state.version,
            "history": [entry.item_id for entry in state.history],
            "timestamps": [entry.timestamp for entry in state.history],
            "excluded": sorted(state.bought | state.disliked),
            "interests": {"explicit": explicit, "group": group, "similar_users": num_similar},
            "meta": meta_of(request, ours.release.manifest.release_id, "state" if user.store_was_read else "bundle"),
            "warnings": warnings,
        }
    )


@router.delete(
    "/users/{user_id:path}", dependencies=[WRITE], status_code=204, response_class=Response, responses=PROBLEMS
)
async def erase_user(user_id: UserIdDep, service: ServiceDep) -> Response:
    """Erases everything about a user, what the release knows of their history included. New events start afresh."""
    await service.store.erase(user_id)
    # Here at once; every other replica learns it in the next epoch.
    await service.releases.forget(user_id)
    return Response(status_code=204)
