"""`/docs` in any browser, with keys or without: Swagger UI from this service, and the document that it shows.

Whoever calls from there types their key into the page. The files in `docs_files` are those of `swagger-ui-dist` 5.35.0
as npm has them (Apache-2.0, `docs_files/*.txt`); a test holds them to their hashes.
"""

from fastapi import APIRouter, Request, Response

from service.api.pages.files import add_page, page_headers
from service.api.presenters import json_response
from service.auth.caller import DOCS, DOCUMENT


def docs_router() -> APIRouter:
    """The page, its files, and the document."""
    router = APIRouter()
    # Swagger UI's icons are pictures within its style sheet.
    add_page(router, DOCS, "docs_files", page_headers(images="'self' data:"))
    router.add_api_route(DOCUMENT, _document, include_in_schema=False)
    return router


async def _document(request: Request) -> Response:
    return json_response(request.app.openapi())
