"""Turns answers into response bodies (items, `meta`, JSON), and lists the problems that every route documents."""

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import Request, Response

from service.api.context import RequestContext
from service.api.openapi import PROBLEM
from service.api.validation.calls import HEAD_ONLY
from service.recommend.query_models import Answer

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": PROBLEM}
    for status, text in {
        400: "The body is not JSON, or not the gzip that it is said to be.",
        401: "No API key, an unknown one or several.",
        403: "The key's role may not do this.",
        404: "There is no such resource, or it is gone.",
        408: "The body arrives too slowly.",
        413: "The body is too large.",
        415: "The service does not accept this type of body; `fix` names the type that it accepts.",
        422: "The request is not valid.",
        429: "Too many requests; see Retry-After.",
        431: "The head of the request is too large.",
        503: "The service cannot answer now; see Retry-After.",
    }.items()
}


def meta_of(request: Request, release_id: str, source: str, version: str | None = None, **more: Any) -> dict[str, Any]:
    """Returns the `meta` of an answer; fields in `more` that are None are left out."""
    meta = {
        "release_id": release_id,
        "source": source,
        "request_id": request.state.request_id,
        **{name: value for name, value in more.items() if value is not None},
    }
    if version is not None:
        meta["user_version"] = version
    return meta


def count_shown(
    request: Request, context: RequestContext, release_id: str, source: str, channels: Mapping[str, int]
) -> None:
    """Counts an answer and its items by channel as shown, but not for `HEAD`."""
    if HEAD_ONLY not in request.scope:
        context.click_stats.shown(release_id, source, channels)


def items_of(answer: Answer, context: RequestContext) -> list[dict[str, Any]]:
    """Returns the items of an answer as JSON objects."""
    release = context.recommendations.release
    items: list[dict[str, Any]] = []
    for index, (rank, item) in enumerate(zip(answer.places, answer.items, strict=True)):
        row = {
            "item_id": release.catalogue.item_id(item.item_index),
            "rank": rank,
            "score": item.score,
            "source": item.source,
        }
        if answer.reasons is not None:
            row["reasons"] = answer.reasons[index]
        if answer.moves is not None:
            row["rules"] = answer.moves[index]
        items.append(row)
    return items


def json_response(body: Mapping[str, Any], status: int = 200, *, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json_body(body), status, headers=headers, media_type="application/json")


def json_body(body: Mapping[str, Any]) -> bytes:
    """Returns a body as JSON; the service does not validate its own output again."""
    return orjson.dumps(body)
