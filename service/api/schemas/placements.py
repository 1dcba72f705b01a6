"""The bodies of placements and affinities, for the API's document."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from isrf.contract.ids import ExternalId
from isrf.contract.known_fields import KnownFields
from service.api.schemas.answers import Meta, RecommendedItem, UserMeta, Warned
from service.api.schemas.requests import MAX_N, MAX_SESSION, Number
from service.recommend.placements.placement import NAME_PATTERN, Placement
from service.recommend.placements.rule_fields import RuleKind

MAX_CART = 100


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
        description="By attribute (`brand`, `categories`, the shop's own), the heaviest value first."
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


class PreviewRequest(KnownFields):
    """A placement that is not stored, and the page that it is tried on."""

    placement: Placement
    name: str | None = Field(
        default=None,
        pattern=NAME_PATTERN,
        description="The stored placement to compare with. Where there is none, the list is compared with that of the "
        "same placement without its rules.",
    )
    user_id: ExternalId | None = Field(default=None, description="Whose list it is.")
    item_id: ExternalId | None = Field(default=None, description="The product of the page.")
    cart: Annotated[list[ExternalId], Field(max_length=MAX_CART, description="item_ids of the cart.")] = Field(
        default=[]
    )
    session: Annotated[
        list[ExternalId],
        Field(
            max_length=MAX_SESSION,
            description="item_ids of the running session, oldest first: used where the user has no history.",
        ),
    ] = Field(default=[])
    n: Annotated[
        int | None,
        Field(ge=1, le=MAX_N, description="Number of items; each placement's own length, if missing."),
        Number,
    ] = None


class PreviewMeta(BaseModel):
    release_id: str
    source: str = Field(description="The kind that the list begins with.")
    request_id: str
    user_version: str | None = None
    placement: str | None = Field(default=None, description="The name that the call sent.")
    placement_version: int | None = Field(default=None, description="Of the stored placement.")


class PreviewedItems(BaseModel):
    items: list[RecommendedItem] = Field(description="With reasons and rules.")
    meta: PreviewMeta
    warnings: list[Warned]


class PreviewRuleMove(BaseModel):
    rule: int = Field(description="The rule's position among the sent placement's rules, from 1 on.")
    kind: RuleKind
    places: int | None = Field(
        description="Places towards the list's beginning, negative ones towards its end; null where the rule alone "
        "brings the item into the list, or keeps it out."
    )


class PreviewMove(BaseModel):
    item_id: str
    before: int | None = Field(description="Its place, from 1 on; null where the list does not show it.")
    after: int | None = Field(description="Its place, from 1 on; null where the list does not show it.")
    cause: Literal["filter"] | None = Field(
        description="`filter` where the sent placement's filter, category or prices forbid the item."
    )
    rules: list[PreviewRuleMove] = Field(description="What the sent placement's rules did to it.")


class PreviewRule(BaseModel):
    rule: int
    kind: RuleKind
    items: int = Field(description="How many of the list's items it moved, put or held back.")


class PlacementPreviewAnswer(BaseModel):
    before_is: Literal["stored", "without_rules"]
    before: PreviewedItems
    after: PreviewedItems
    moves: list[PreviewMove] = Field(
        description="Items whose place differs, in the order of `after`; then those that `after` does not show."
    )
    rules: list[PreviewRule] = Field(description="The sent placement's rules, in their order.")
    warnings: list[Warned] = Field(description="Of the sent placement itself, as `PUT` answers with them.")
