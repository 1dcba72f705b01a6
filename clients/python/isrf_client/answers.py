"""The types of the service's requests and answers, as in its OpenAPI document; an answer is the JSON itself.

Fields that a newer service adds are in the answer; only their types are missing here.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

Id: TypeAlias = str | int
"""The shop's own id. The client sends an integer as its decimal text, and answers contain that text."""


class ListOptions(TypedDict, total=False):
    """The options of a list. An option that is None is not sent; this holds for all options and events.

    `filter` is a condition on the items' attributes, such as `brand = 'Auralis' AND price < 80`; `context` has the
    texts that it reads as `context.NAME`.
    """

    n: int | None
    category: str | Sequence[str] | None
    exclude_category: str | Sequence[str] | None
    filter: str | None
    context: Mapping[str, str] | None
    exclude: Sequence[Id] | None
    min_price: float | None
    max_price: float | None
    diversity: float | None
    include_seen: bool | None
    exclude_variants: bool | None
    explain: bool | None


class PageOptions(ListOptions, total=False):
    """The options of a later page: `recommendation_id` and `next_offset` (as `offset`) of the first answer's `meta`."""

    recommendation_id: str | None
    offset: int | None


class UserOptions(PageOptions, total=False):
    """The options for a user. `session`: item_ids of the running session, used where the user has no history."""

    session: Sequence[Id] | None


class SessionOptions(PageOptions, total=False):
    """The options for a session. `user_id`: the user of the session; where they have a history, it is used instead."""

    user_id: Id | None


class RankOptions(TypedDict, total=False):
    """The user or history for whom candidates are ranked, and the options of the list."""

    user_id: Id | None
    history: Sequence[Id] | None
    n: int | None
    filter: str | None
    context: Mapping[str, str] | None
    diversity: float | None
    explain: bool | None


class Event(TypedDict):
    """One interaction of a user, or of the session of a visitor without an account.

    Give a `timestamp` (Unix seconds, or a datetime with a time zone) where the event may wait before it is sent. For a
    recommended item, give the `recommendation_id` of the answer's `meta`. `prepare` adds an `event_id`.
    """

    user_id: NotRequired[Id | None]
    session_id: NotRequired[Id | None]
    item_id: Id
    event: NotRequired[str | None]
    timestamp: NotRequired[float | datetime | None]
    event_id: NotRequired[Id | None]
    recommendation_id: NotRequired[str | None]


class ReasonPath(TypedDict):
    """A path: user → `item_id` → [similar users who took both →] recommended item."""

    item_id: str
    strength: NotRequired[float]
    similar_users: NotRequired[int]
    live_users: NotRequired[int]


class Reason(TypedDict):
    """Evidence for an item, and a sentence made of it."""

    channel: str
    interest: Literal["individual", "group", "everybody"]
    text: str
    paths: list[ReasonPath]
    words: list[str]
    similar_users: NotRequired[int]
    of_similar_users: NotRequired[int]
    weak: NotRequired[bool]
    popularity_rank: NotRequired[int]


RuleKind: TypeAlias = Literal["boost", "pin", "at_most", "at_least"]


class RuleMove(TypedDict):
    rule: int
    kind: RuleKind
    moved: int | None


class RecommendedItem(TypedDict):
    item_id: str
    rank: int
    score: float
    source: str
    reasons: NotRequired[list[Reason]]
    rules: NotRequired[list[RuleMove]]


class Meta(TypedDict):
    release_id: str
    source: str
    request_id: str
    user_version: NotRequired[str]
    recommendation_id: NotRequired[str]
    next_offset: NotRequired[int]


class RequestMeta(TypedDict):
    request_id: str


class ReleaseMeta(RequestMeta):
    release_id: str


class UserMeta(ReleaseMeta):
    source: str


class AffinitiesMeta(UserMeta):
    user_version: str


class Warned(TypedDict):
    code: str
    message: str
    item_ids: NotRequired[list[str]]


class PopularItems(TypedDict):
    items: list[RecommendedItem]
    meta: Meta
    warnings: list[Warned]


class Recommendations(PopularItems):
    user_id: str | None


class SimilarItems(PopularItems):
    item_id: str


class ItemBody(TypedDict, total=False):
    """The fields of an item. A field that is left out stays as it is; None removes it."""

    title: str | None
    brand: str | None
    categories: list[str] | None
    description: str | None
    price: float | None
    group_id: Id | None
    available: bool | None
    metadata: dict[str, Any] | None


class ShownItem(TypedDict):
    item_id: str
    title: str | None
    brand: str | None
    categories: list[str]
    price: float | None
    group_id: str | None
    available: bool
    in_release: bool


class AttributeShown(TypedDict):
    """An attribute that conditions may name, how many items have a value, and some values."""

    name: str
    type: Literal["number", "text", "boolean", "time", "texts"]
    items: int
    examples: list[str | bool | float]


class AttributesAnswer(TypedDict):
    attributes: list[AttributeShown]
    meta: ReleaseMeta


class ItemAnswer(TypedDict):
    item: ShownItem
    meta: ReleaseMeta


class ItemChanged(ItemAnswer):
    status: Literal["added", "changed"]
    warnings: list[Warned]


class EventAnswer(TypedDict):
    """The outcome of an event. `duplicate`: an earlier try was accepted, though its answer may be lost."""

    status: Literal["accepted", "duplicate", "refused"]
    event_id: NotRequired[str]
    reason: NotRequired[str]
    detail: NotRequired[str]


class InteractionsAnswer(TypedDict):
    results: list[EventAnswer]
    accepted: int
    duplicates: int
    refused: int


class Words(TypedDict):
    words: str
    items: int


class Interests(TypedDict):
    explicit: list[Words]
    group: list[Words]
    similar_users: int


class UserAnswer(TypedDict):
    user_id: str
    known: bool
    version: str
    history: list[str]
    timestamps: list[float | None]
    history_total: int
    excluded: list[str]
    excluded_total: int
    interests: Interests
    meta: UserMeta
    warnings: list[Warned]


class Affinity(TypedDict):
    value: str
    weight: float
    events: int
    items: int


class AffinitiesAnswer(TypedDict):
    """By attribute (`brand`, `categories`), the heaviest value first."""

    user_id: str
    affinities: dict[str, list[Affinity]]
    events: int
    meta: AffinitiesMeta
    warnings: list[Warned]


Kind: TypeAlias = Literal[
    "for-user", "similar", "together", "trending", "popular", "new", "buy-again", "recently-viewed"
]


class BoostRule(TypedDict):
    """Multiplies the scores of the items for which a condition holds."""

    where: str
    by: float


PinRule = TypedDict(
    "PinRule",
    {
        "place": int,
        "item_id": NotRequired[str],
        "where": NotRequired[str],
        "from": NotRequired[str | float],
        "until": NotRequired[str | float],
    },
)
"""Puts one item to a place, from and until moments in ISO 8601 with a zone, or in seconds."""


class AtMostRule(TypedDict):
    """Limits the items of one attribute value."""

    attribute: str
    count: int


class AtLeastRule(TypedDict):
    """Wants so many items of a condition in every page."""

    where: str
    count: int


class ListRule(TypedDict, total=False):
    """One rule of a placement: exactly one of the fields."""

    boost: BoostRule
    pin: PinRule
    at_most: AtMostRule
    at_least: AtLeastRule


class Placement(TypedDict, total=False):
    """The fields of a placement; all but `kind` have a default. `filter`: a condition as in an SQL WHERE clause."""

    kind: Kind
    length: int
    filter: str | None
    category: str | None
    min_price: float | None
    max_price: float | None
    diversity: float
    fallbacks: list[Kind]
    window_s: float
    cache_s: float
    rules: list[ListRule]


class ShownPlacement(TypedDict):
    """A placement and its version: the number of the change that put it, 0 for one of the service's file."""

    name: str
    version: int
    placement: Placement


class PlacementAnswer(ShownPlacement):
    meta: RequestMeta
    warnings: list[Warned]


class PlacementList(TypedDict):
    placements: list[ShownPlacement]
    meta: RequestMeta
    warnings: list[Warned]


class PlacementMeta(Meta):
    placement: str
    placement_version: NotRequired[int]


class PlacementItems(TypedDict):
    items: list[RecommendedItem]
    meta: PlacementMeta
    warnings: list[Warned]


class PlacementOptions(TypedDict, total=False):
    """The page that a placement stands on: its user, product, cart and session, and which part of the list."""

    user_id: Id | None
    item_id: Id | None
    cart: Sequence[Id] | None
    session: Sequence[Id] | None
    n: int | None
    explain: bool | None
    recommendation_id: str | None
    offset: int | None


class PreviewOptions(TypedDict, total=False):
    """The page that a placement is tried on, and the `name` of the stored placement to compare it with."""

    name: str | None
    user_id: Id | None
    item_id: Id | None
    cart: Sequence[Id] | None
    session: Sequence[Id] | None
    n: int | None


class PreviewMeta(TypedDict):
    release_id: str
    source: str
    request_id: str
    user_version: NotRequired[str]
    placement: NotRequired[str]
    placement_version: NotRequired[int]


class PreviewedItems(TypedDict):
    items: list[RecommendedItem]
    meta: PreviewMeta
    warnings: list[Warned]


class PreviewRuleMove(TypedDict):
    """What a rule did to an item; `places` is None where the rule alone brings it into the list or keeps it out."""

    rule: int
    kind: RuleKind
    places: int | None


class PreviewMove(TypedDict):
    """An item whose place differs; None where a list does not show it. `cause`: the sent filter forbids it."""

    item_id: str
    before: int | None
    after: int | None
    cause: Literal["filter"] | None
    rules: list[PreviewRuleMove]


class PreviewRule(TypedDict):
    """How many of the list's items a rule moved, put or held back."""

    rule: int
    kind: RuleKind
    items: int


class PlacementPreviewAnswer(TypedDict):
    before_is: Literal["stored", "without_rules"]
    before: PreviewedItems
    after: PreviewedItems
    moves: list[PreviewMove]
    rules: list[PreviewRule]
    warnings: list[Warned]
