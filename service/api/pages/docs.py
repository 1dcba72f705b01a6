"""Serves Swagger UI at `/docs`, with keys or without, and the OpenAPI document that it shows.

A caller types their key into the page. The files in `docs_files` are those of `swagger-ui-dist` 5.35.0 from npm
(Apache-2.0, `docs_files/*.txt`); a test checks their hashes.
"""

import asyncio

from fastapi import APIRouter, Request, Response

from service.api.conditional import content_tag, has_already, not_modified, tag_headers
from service.api.pages.files import add_page, page_headers
from service.api.presenters import json_body
from service.auth.caller import DOCS, DOCUMENT


def docs_router() -> APIRouter:
    """Returns a router with the page, its files and the document."""
    router = APIRouter()
    # Swagger UI's style sheet embeds its icons as data: URLs.
    add_page(router, DOCS, "docs_files", page_headers(images="'self' data:"))
    router.add_api_route(DOCUMENT, _document, include_in_schema=False)
    return router


async def _document(request: Request) -> Response:
    # Its making takes half a second.
    content = json_body(await asyncio.to_thread(request.app.openapi))
    tag = content_tag(content)
    if has_already(request, tag):
        return not_modified(tag)
    return Response(content, headers=tag_headers(tag), media_type="application/json")
