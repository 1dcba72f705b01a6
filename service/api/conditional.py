"""Answers that a caller may keep and ask for again: `ETag` and `If-None-Match` (RFC 9110, section 13), 304.

A list that the service gives again has the same `recommendation_id`, so that id is its tag. The tag is weak, because
`meta.request_id` differs. Lists that are made anew for each call have none: each has an id of its own, which counts its
clicks. It knows neither lists nor their caches.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from fastapi import Request, Response

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "`If-None-Match` has the `ETag` of this answer: the caller has it already."}
}
"""For the document, of a route that answers so."""


def list_tag(recommendation_id: str) -> str:
    """Returns the `ETag` of a list that the service may give again."""
    return f'W/"{recommendation_id}"'


def content_tag(content: bytes) -> str:
    """Returns the `ETag` of an answer that is the same to the last byte for everybody."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def tag_headers(tag: str) -> Mapping[str, str]:
    """Returns the headers of an answer with this `ETag`: a caller may keep it, and asks again before each use."""
    return {"ETag": tag, "Cache-Control": "private, no-cache"}


def has_already(request: Request, tag: str) -> bool:
    """Whether the caller says that it has the answer with this `ETag`."""
    sent = [one.strip() for line in request.headers.getlist("if-none-match") for one in line.split(",")]
    return "*" in sent or tag.removeprefix("W/") in [one.removeprefix("W/") for one in sent]


def not_modified(tag: str) -> Response:
    return Response(status_code=304, headers=tag_headers(tag))
