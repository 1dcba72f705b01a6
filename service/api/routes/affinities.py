"""Shows what a user's history has in common."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api.context import ContextDep
from service.api.presenters import PROBLEMS, json_response, meta_of
from service.api.schemas.placements import AffinitiesAnswer
from service.api.validation.inputs import UserIdDep
from service.auth.caller import READ
from service.recommend.affinities import DEFAULT_ATTRIBUTES, affinities, recency_of
from service.recommend.warnings import user_warnings

router = APIRouter(tags=["users"])

Last = Annotated[int, Query(ge=1, le=200, description="How many values of each attribute.")]
MOST_ATTRIBUTES = 20
Attributes = Annotated[
    list[Annotated[str, Query(min_length=1, max_length=512)]],
    Query(
        default_factory=lambda: list(DEFAULT_ATTRIBUTES),
        max_length=MOST_ATTRIBUTES,
        description="The attributes, in place of `categories` and `brand`: these, or the shop's own that hold a text "
        "or a list of texts. May be given several times.",
    ),
]


@router.get(
    "/users/{user_id:path}/affinities", dependencies=[READ], response_model=AffinitiesAnswer, responses=PROBLEMS
)
async def show_affinities(
    request: Request,
    user_id: UserIdDep,
    context: ContextDep,
    attribute: Attributes,
    limit: Last = 20,
) -> Response:
    """The user's categories, brands and other attributes, ranked, with their evidence.

    An attribute that no item of the history has is left out: all of them for a user without a history.

    A user_id that ends in `/affinities` cannot be shown: the path names the user before it.
    """
    recommendations = context.recommendations
    user = await recommendations.users.view(user_id)
    release = user.snapshot.release
    found = affinities(
        (release.catalogue.items[row] for row in user.rows),
        recency=recency_of(release.manifest.config),
        limit=limit,
        names=dict.fromkeys(attribute),
    )
    return json_response(
        {
            "user_id": user_id,
            "affinities": found,
            "events": len(user.rows),
            "meta": meta_of(
                request,
                release.manifest.release_id,
                "state" if user.store_was_read else "bundle",
                user.state.version,
            ),
            "warnings": user_warnings(user),
        }
    )
