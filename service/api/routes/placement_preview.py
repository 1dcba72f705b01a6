"""Shows what a placement would do before it is put: its list beside the list as it is now."""

from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.context import AppDep, RequestContext, lease
from service.api.presenters import PROBLEMS, items_of, json_response, meta_of
from service.api.routes.placements import checked_placement
from service.api.schemas.placements import PlacementPreviewAnswer, PreviewRequest
from service.api.validation.inputs import NAMES_ONCE, checked_item_ids, checked_user_ids
from service.auth.caller import ADMIN
from service.auth.request_cost import charge
from service.recommend.placements.placed_query import PlacedQuery
from service.recommend.query_models import Answer
from service.recommend.warnings import placements_state, unknown_placement

router = APIRouter(tags=["placements"])


@router.post(
    "/placements/preview",
    dependencies=[ADMIN, NAMES_ONCE],
    response_model=PlacementPreviewAnswer,
    responses=PROBLEMS,
)
async def preview_placement(request: Request, body: PreviewRequest, app: AppDep) -> Response:
    """Shows a placement's list before it is put, beside the list as it is now, and what each rule does.

    It changes nothing: no placement is put, no list is stored or cached, and nothing counts as shown. A placement that
    `PUT` would refuse is refused here in the same way.
    """
    given = (*(() if body.item_id is None else (body.item_id,)), *body.cart)
    checked_item_ids((*given, *body.session))
    if body.user_id is not None:
        checked_user_ids([body.user_id])
    warnings = await checked_placement(body.placement, app)
    asked = PlacedQuery(n=body.n, user_id=body.user_id, given=given, session=tuple(body.session), explain=True)
    if body.name is not None:
        await app.placements.try_look()
    stored = None if body.name is None else app.placements.find(body.name)
    if body.name is not None and stored is None:
        warnings.append(unknown_placement(body.name))
    with lease(app, body.user_id) as context:
        await charge(request.scope, 2, asked.list_query(body.placement).n, explain=True)
        user, preview = await context.recommendations.placed.preview(body.placement, stored, asked)
        version = None if user is None else user.state.version

        def shown(answer: Answer, placement_version: int | None) -> dict[str, Any]:
            meta = meta_of(
                request,
                answer.release_id,
                answer.source,
                version,
                placement=body.name,
                placement_version=placement_version,
            )
            return {"items": items_of(answer, context), "meta": meta, "warnings": _warnings(answer, context)}

        item_id = context.recommendations.release.catalogue.item_id
        return json_response(
            {
                "before_is": preview.before_is,
                "before": shown(preview.before, None if stored is None else stored.version),
                "after": shown(preview.after, None),
                "moves": [
                    {
                        "item_id": item_id(move.row),
                        "before": move.before,
                        "after": move.after,
                        "cause": move.cause,
                        "rules": [
                            {"rule": one["rule"], "kind": one["kind"], "places": one["moved"]} for one in move.rules
                        ],
                    }
                    for move in preview.moves
                ],
                "rules": preview.rules,
                "warnings": warnings,
            }
        )


def _warnings(answer: Answer, context: RequestContext) -> list[dict[str, Any]]:
    return answer.warnings + placements_state(is_current=context.placements.is_current)
