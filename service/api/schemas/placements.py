"""The bodies of placements and affinities, for the API's document."""

from pydantic import BaseModel, Field

from service.api.schemas.answers import Meta, RecommendedItem, UserMeta, Warned
from service.recommend.placements.placement import Placement


class Affinity(BaseModel):
    value: str
    weight: float = Field(description="Share of the history's weights, from 0 to 1; a newer event weighs more.")
    events: int = Field(description="Events of the history whose item has the value.")
    items: int = Field(description="Distinct items of the history that have the value.")


class AffinitiesMeta(UserMeta):
    user_version: str


class AffinitiesAnswer(BaseModel):
    user_id: str
    affinities: dict[str, list[Affinity]] = Field(
        description="By attribute (`brand`, `categories`), the heaviest value first."
    )
    events: int = Field(description="Events of the history, of which all count.")
    meta: AffinitiesMeta
    warnings: list[Warned]


class PlacementMeta(Meta):
    placement: str = Field(description="The placement's name.")
    placement_version: int | None = Field(
        default=None,
        description="The number of the change that put the placement; 0 for one of the service's file. A later page of "
        "a placement that was removed has none.",
    )


class PlacementItems(BaseModel):
    items: list[RecommendedItem] = Field(
        description="The kind's items, then those of the fallbacks; scores of two kinds cannot be compared."
    )
    meta: PlacementMeta
    warnings: list[Warned]


class ShownPlacement(BaseModel):
    name: str
    version: int = Field(description="The number of the change that put it; 0 for one of the service's file.")
    placement: Placement


class PlacementAnswer(ShownPlacement):
    meta: dict[str, str]
    warnings: list[Warned]


class PlacementList(BaseModel):
    placements: list[ShownPlacement] = Field(description="In the order of their names.")
    meta: dict[str, str]
    warnings: list[Warned]
