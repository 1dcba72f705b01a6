"""How an answer leaves: items and `meta` as plain dicts, JSON, and the problems that every route documents."""

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import Request, Response

from service.api.context import RequestContext
from service.api.openapi import PROBLEM
from service.recommend.query_models import Answer

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": PROBLEM}
    for status, text in {
        400: "The body is not JSON.",
        401: "No API key, or an unknown one.",
        403: "The key's role may not do this.",
        404: "There is no such resource, or not any more.",
        408: "The body came too slowly.",
        413: "The body is too large.",
        415: "The body comes as something that is not taken here; `fix` says what is.",
        422: "Cannot be answered as asked.",
        429: "Too often; see Retry-After.",
        431: "The head is too large.",
        503: "Not now; see Retry-After.",
    }.items()
}


def meta_of(request: Request, release_id: str, source: str, version: str | None = None, **more: Any) -> dict[str, Any]:
    """`more` that is None is left out."""
    meta = {
        "release_id": release_id,
        "source": source,
        "request_id": request.state.request_id,
        **{name: value for name, value in more.items() if value is not None},
    }
    if version is not None:
        meta["user_version"] = version
    return meta


def items_of(answer: Answer, context: RequestContext) -> list[dict[str, Any]]:
    """The items of an answer as they leave."""
    release = context.recommendations.release
    items: list[dict[str, Any]] = []
    for at, (place, item) in enumerate(zip(answer.places, answer.items, strict=True)):
        row = {
            "item_id": release.catalogue.item_id(item.item_index),
            "rank": place,
            "score": item.score,
            "source": item.source,
        }
        if answer.reasons is not None:
            row["reasons"] = answer.reasons[at]
        items.append(row)
    return items


def json_response(body: Mapping[str, Any], status: int = 200) -> Response:
    return Response(json_body(body), status, media_type="application/json")


def json_body(body: Mapping[str, Any]) -> bytes:
    """Our own output, not validated again."""
    return orjson.dumps(body)
