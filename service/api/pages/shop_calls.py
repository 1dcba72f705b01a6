"""The calls of the pages that replace a shop's own data: item cards and some shoppers."""

from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from isrf.contract.ids import ExternalId
from isrf.contract.known_fields import KnownFields
from service.api.context import ContextDep
from service.api.pages.shop_data import item_card, some_shoppers
from service.api.presenters import PROBLEMS, json_response
from service.api.validation.inputs import NAMES_ONCE, checked_item_ids

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


async def shoppers(service: ContextDep) -> Response:
    """Some shoppers with a history, spread over the release."""
    return json_response({"shoppers": await some_shoppers(service.recommendations)})


async def items(body: CardsRequest, service: ContextDep) -> Response:
    """The cards of items."""
    checked_item_ids(body.item_ids)
    catalogue = service.recommendations.release.catalogue
    return json_response({"items": [item_card(catalogue.items[row]) for row in catalogue.rows(body.item_ids)]})


def add_shop_calls(router: APIRouter, page: str, role: Any) -> None:
    """Adds both calls below a page's path, for callers with a role (`service.auth.caller`)."""
    kind = page.strip("/")
    options: dict[str, Any] = {"tags": [kind], "responses": PROBLEMS}
    router.add_api_route(
        f"{page}/shoppers",
        shoppers,
        name=f"{kind}_shoppers",
        dependencies=[role],
        response_model=Shoppers,
        **options,
    )
    router.add_api_route(
        f"{page}/items",
        items,
        name=f"{kind}_items",
        methods=["POST"],
        dependencies=[role, NAMES_ONCE],
        response_model=Cards,
        **options,
    )
