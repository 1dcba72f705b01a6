"""Serves the page at /demo, and two calls that replace a shop's own data: item cards and some shoppers.

The page has no inline script or style, and may only call this service.
"""

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from isrf.contract.ids import ExternalId
from isrf.contract.known_fields import KnownFields
from service.api.context import ContextDep
from service.api.pages.demo_shop import item_card, some_shoppers
from service.api.pages.files import add_page, page_headers
from service.api.presenters import PROBLEMS, json_response
from service.api.validation.inputs import NAMES_ONCE, checked_item_ids
from service.auth.caller import READ

PAGE = "/demo"
router = APIRouter(prefix=PAGE, tags=["demo"], dependencies=[READ])

MAX_CARDS = 1000


class CardsRequest(KnownFields):
    item_ids: Annotated[list[ExternalId], Field(max_length=MAX_CARDS)]


class Card(BaseModel):
    """An item as a shop would show it; null where the catalogue has no value."""

    item_id: str
    title: str
    brand: str | None
    category: str | None
    price: float | None


class Cards(BaseModel):
    items: list[Card] = Field(description="The items that the release knows.")


class Shopper(BaseModel):
    user_id: str
    num_items: int
    likes: list[str] = Field(description="What their items have in common.")


class Shoppers(BaseModel):
    shoppers: list[Shopper]


@router.get("/shoppers", response_model=Shoppers, responses=PROBLEMS)
async def shoppers(service: ContextDep) -> Response:
    """Some shoppers with a history, spread over the release."""
    return json_response({"shoppers": await some_shoppers(service.recommendations)})


@router.post("/items", dependencies=[NAMES_ONCE], response_model=Cards, responses=PROBLEMS)
async def items(body: CardsRequest, service: ContextDep) -> Response:
    """The cards of items."""
    checked_item_ids(body.item_ids)
    catalogue = service.recommendations.release.catalogue
    return json_response({"items": [item_card(catalogue.items[row]) for row in catalogue.rows(body.item_ids)]})


def demo_router() -> APIRouter:
    """Returns a router with the page, its files and the two calls above."""
    with_page = APIRouter(dependencies=[READ])
    add_page(with_page, PAGE, "demo_files", page_headers())
    with_page.include_router(router)
    return with_page
