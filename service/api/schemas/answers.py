"""What is answered, as the API documents it. Answers are built as plain dicts and never validated again."""

from typing import Literal

from pydantic import BaseModel, Field


class Warned(BaseModel):
    code: str
    message: str
    item_ids: list[str] | None = Field(default=None, description="The candidates that it is about.")


class ReasonPath(BaseModel):
    """One way from the user to the item: user → `item_id` → [similar users who took both →] recommended item."""

    item_id: str = Field(description="An item of the user's history.")
    strength: float | None = Field(
        default=None,
        description="Of the edge from it to the recommended item. transition, cooccurrence, content: its weight in the "
        "item's list of that channel (a list's weights sum to 1). explicit, dense: cosine of the two items' vectors. "
        "generative: the share of the semantic ID's levels that begin alike.",
    )
    similar_users: int | None = Field(
        default=None, description="Of the group channel: similar users who took this and the recommended item."
    )


class Reason(BaseModel):
    """What one channel has to say for an item: evidence that can be checked, and a sentence made of it alone."""

    channel: Literal["group", "transition", "cooccurrence", "content", "explicit", "dense", "generative", "popular"]
    interest: Literal["individual", "group", "everybody"] = Field(description="Whose interest speaks.")
    text: str = Field(description="The evidence as a sentence to the shopper.")
    paths: list[ReasonPath] = Field(description="Strongest first, 3 at most; empty where no item of the user's leads.")
    words: list[str] = Field(
        description="The interest in the semantic features' words: what at least 3 of the similar users look for, or "
        "what the item and the user's items have in common."
    )
    similar_users: int | None = Field(default=None, description="How many of the similar users took the item.")
    of_similar_users: int | None = Field(default=None, description="How many similar users there are.")
    weak: bool | None = Field(default=None, description="True: nobody is really similar, these are the nearest few.")
    popularity_rank: int | None = Field(default=None, description="1 for the most popular item.")


class RecommendedItem(BaseModel):
    item_id: str
    rank: int
    score: float
    source: str = Field(description="The channel that speaks loudest for it: generative, dense, group, …, popular.")
    reasons: list[Reason] | None = Field(
        default=None, description="With `explain`, its main source's first; never empty."
    )


class Meta(BaseModel):
    release_id: str
    source: str = Field(
        description="What the answer rests on: sequence, session, category-popular, popular, similar; prefixed "
        "`bundle:` when user state could not be read and the release's own knowledge was used."
    )
    request_id: str
    user_version: str | None = None
    recommendation_id: str = Field(
        description="Send it with the events on shown items, and with `offset` for the next page of the same list."
    )
    next_offset: int | None = Field(default=None, description="Where the next page begins; missing at the list's end.")


class UserMeta(BaseModel):
    release_id: str
    source: str = Field(description="`state`, or `bundle` where user state could not be read.")
    request_id: str


class Recommendations(BaseModel):
    user_id: str | None
    items: list[RecommendedItem]
    meta: Meta
    warnings: list[Warned]


class PopularItems(BaseModel):
    items: list[RecommendedItem]
    meta: Meta
    warnings: list[Warned]


class SimilarItems(BaseModel):
    item_id: str
    items: list[RecommendedItem]
    meta: Meta
    warnings: list[Warned]


class ManyRecommendations(BaseModel):
    answers: list[Recommendations] = Field(description="One per user, in the order of the users.")


class EventAnswer(BaseModel):
    status: Literal["accepted", "duplicate", "refused"]
    event_id: str | None = None
    reason: str | None = Field(
        default=None,
        description="Stable code of a refusal: `event_id_reused` (the event_id names another event of the last 24 "
        "hours; the detail has its item and type), `before_erasure` (the user was erased after the timestamp, or "
        "after this event was accepted), `unknown_item`, `store_unavailable`, `invalid_…`.",
    )
    detail: str | None = None


class InteractionsAnswer(BaseModel):
    results: list[EventAnswer] = Field(description="One per event, in the order of the events.")
    accepted: int
    duplicates: int
    refused: int
    meta: dict[str, str]


class Words(BaseModel):
    words: str
    items: int


class Interests(BaseModel):
    explicit: list[Words] = Field(description="What the user's own items have in common.")
    group: list[Words] = Field(description="What the items of similar users have in common.")
    similar_users: int


class UserAnswer(BaseModel):
    user_id: str
    known: bool = Field(description="Whether the release or an accepted event knows this user.")
    version: str
    history: list[str] = Field(description="item_ids, oldest first; the latest `last` of them.")
    timestamps: list[float | None] = Field(description="Of each entry of the history, in seconds.")
    history_total: int = Field(
        description="How many entries the history has: the release's, and the latest 200 of what came since."
    )
    excluded: list[str] = Field(
        description="Items that are not recommended: bought, or disliked; the first `last` by their ids."
    )
    excluded_total: int = Field(description="How many there are of them.")
    interests: Interests
    meta: UserMeta
    warnings: list[Warned]


class ShownItem(BaseModel):
    item_id: str
    title: str | None
    brand: str | None
    categories: list[str]
    price: float | None
    available: bool = Field(description="Whether it is recommended.")
    in_release: bool = Field(description="false: it came since, and is known by its texts alone.")


class ItemMeta(BaseModel):
    release_id: str
    request_id: str


class ItemAnswer(BaseModel):
    item: ShownItem
    meta: ItemMeta


class ItemChanged(ItemAnswer):
    status: Literal["added", "changed"]
    warnings: list[Warned]


class BadLine(BaseModel):
    line: int = Field(description="Of the body, the first is 1.")
    reason: str = Field(description="Stable code.")
    detail: str


class Imported(BaseModel):
    lines: int
    accepted: int
    duplicates: int
    refused: int
    reasons: dict[str, int] = Field(description="How many were refused for which reason.")
    problems: list[BadLine] = Field(description="The first thousand that were refused.")
    problems_left_out: int
    warnings: list[Warned] = Field(
        description="Of items: fields of the shop's own that may be meant as ours (`misnamed_field`); they are kept, "
        "and nothing is read from them."
    )
    meta: dict[str, str]


class Readiness(BaseModel):
    status: Literal["ready", "degraded"]
    release_id: str
    store: Literal["ok", "unavailable"]
    warnings: list[Warned] = Field(default=[], description="Of a Redis that would lose what was accepted.")


class Rates(BaseModel):
    """What was shown and what became of it; a click and a purchase count once for a list and an item."""

    source: str
    items_shown: int
    clicks: int = Field(description="Shown items with an accepted event that named the answer's recommendation_id.")
    purchases: int = Field(description="Those of the clicks that bought.")
    click_through: float | None = Field(description="Clicks for each item shown; null where none was.")


class AnswerRates(Rates):
    answers: int


class ReleaseStats(BaseModel):
    release_id: str
    answers: int
    by_answer_source: list[AnswerRates] = Field(description="By what the answers rested on (`meta.source`).")
    by_item_source: list[Rates] = Field(description="By each item's own `source`, the channel that lifted it most.")


class Stats(BaseModel):
    """Of all replicas, since counting began."""

    releases: list[ReleaseStats]


class Reloaded(BaseModel):
    status: Literal["switched", "unchanged"]
    release_id: str = Field(description="What is served now.")
    previous_release_id: str
    seconds: float = Field(description="What it took, requests having been answered all along.")
