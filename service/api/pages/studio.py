"""Serves the page at /studio, on which a merchandiser edits placements and sees what a change would do.

Its files hold nothing secret and need no key. Every call that it makes needs a key of the role admin, which the person
types in. The page has no inline script or style, and may only call this service.
"""

from fastapi import APIRouter

from service.api.pages.files import add_page, page_headers
from service.api.pages.shop_calls import add_shop_calls
from service.auth.caller import ADMIN, STUDIO


def studio_router() -> APIRouter:
    """Returns a router with the page, its files and the calls that show items by their titles."""
    router = APIRouter()
    add_page(router, STUDIO, "studio_files", page_headers())
    add_shop_calls(router, STUDIO, ADMIN)
    return router
