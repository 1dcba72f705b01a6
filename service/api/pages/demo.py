"""Serves the page at /demo, on which a person tries the service as one of its shoppers.

The page has no inline script or style, and may only call this service.
"""

from fastapi import APIRouter

from service.api.pages.files import add_page, page_headers
from service.api.pages.shop_calls import add_shop_calls
from service.auth.caller import READ

PAGE = "/demo"


def demo_router() -> APIRouter:
    """Returns a router with the page, its files and the calls that replace a shop's own data."""
    router = APIRouter()
    with_page = APIRouter(dependencies=[READ])
    add_page(with_page, PAGE, "demo_files", page_headers())
    router.include_router(with_page)
    add_shop_calls(router, PAGE, READ)
    return router
