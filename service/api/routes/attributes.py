"""Lists the attributes of the items, for people and pages that write conditions on them."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api.context import ContextDep
from service.api.presenters import PROBLEMS, json_response
from service.api.schemas.answers import AttributesAnswer
from service.auth.caller import READ
from service.release.conditions.summaries import LONGEST_EXAMPLE, LOOKED_AT, MOST_EXAMPLES, summaries

router = APIRouter(tags=["items"])

Examples = Annotated[int, Query(ge=0, le=MOST_EXAMPLES, description="Most examples of each attribute.")]


@router.get(
    "/attributes",
    dependencies=[READ],
    response_model=AttributesAnswer,
    responses=PROBLEMS,
    description=f"""The attributes that a condition may name, with their types and some of their values.

Our own fields come first, then the shop's, those of most items first. The examples are from {LOOKED_AT:,} items at
most; texts of more than {LONGEST_EXAMPLE} characters are left out.""",
)
async def list_attributes(request: Request, context: ContextDep, limit: Examples = 20) -> Response:
    """The attributes that a condition may name, with their types and some of their values."""
    release = context.recommendations.release
    found = await asyncio.to_thread(lambda: summaries(release.catalogue.attributes.table()))
    shown = [{**one._asdict(), "examples": one.examples[:limit]} for one in found]
    meta = {"release_id": release.manifest.release_id, "request_id": request.state.request_id}
    return json_response({"attributes": shown, "meta": meta})
