"""Shows a user's state, and erases it."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api.context import ContextDep
from service.api.presenters import PROBLEMS, json_response, meta_of
from service.api.schemas.answers import UserAnswer
from service.api.validation.inputs import UserIdDep
from service.auth.caller import READ, WRITE
from service.recommend.warnings import store_unavailable
from service.release.wording import group_words, words

router = APIRouter(tags=["users"])

SHOWN_WORDS = 8
SHOWN_ENTRIES, MOST_ENTRIES = 200, 1000
"""Entries of the history, and excluded items: the default and the limit, as a single account can have any number."""
Last = Annotated[
    int,
    Query(
        ge=0, le=MOST_ENTRIES, description="How many of the latest entries of the history, and of the excluded items."
    ),
]


@router.get("/users/{user_id:path}", dependencies=[READ], response_model=UserAnswer, responses=PROBLEMS)
async def show_user(request: Request, user_id: UserIdDep, context: ContextDep, last: Last = SHOWN_ENTRIES) -> Response:
    """The latest history (oldest first), version and interests. An unknown user has an empty history."""
    recommendations = context.recommendations
    user = await recommendations.users.view(user_id)
    items = recommendations.release.catalogue.items
    explicit = words((items[row] for row in dict.fromkeys(user.rows)), limit=SHOWN_WORDS)
    group, num_similar = [], 0
    if user.rows:
        interests = await recommendations.users.interests(user)
        group = group_words(
            ([items[row] for row in rows] for rows in recommendations.users.similar_items(interests, user.snapshot)),
            limit=SHOWN_WORDS,
        )
        num_similar = int((interests.neighbours.users >= 0).sum())
    state = user.state
    history = state.history[max(0, len(state.history) - last) :]
    excluded = sorted(state.bought | state.disliked)
    warnings = [] if user.store_was_read else [store_unavailable()]
    return json_response(
        {
            "user_id": user_id,
            "known": user.known,
            "version": state.version,
            "history": [entry.item_id for entry in history],
            "timestamps": [entry.timestamp for entry in history],
            "history_total": len(state.history),
            "excluded": excluded[:last],
            "excluded_total": len(excluded),
            "interests": {"explicit": explicit, "group": group, "similar_users": num_similar},
            "meta": meta_of(
                request, recommendations.release.manifest.release_id, "state" if user.store_was_read else "bundle"
            ),
            "warnings": warnings,
        }
    )


@router.delete(
    "/users/{user_id:path}", dependencies=[WRITE], status_code=204, response_class=Response, responses=PROBLEMS
)
async def erase_user(user_id: UserIdDep, context: ContextDep) -> Response:
    """Erases everything about a user, including their history in the release. New events start a new history."""
    await context.store.erase(user_id)
    # This replica forgets the user at once; the others do in the next epoch.
    await context.releases.forget(user_id)
    return Response(status_code=204)
