"""The bodies of answers, for the API's document. Routes build plain dicts, which are not validated against them."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from isrf.contract.item_fields import AttributeType
from service.recommend.placements.rule_fields import RuleKind


class Warned(BaseModel):
    code: str
    message: str
    item_ids: list[str] | None = Field(default=None, description="The candidates that the warning is about.")


class ReasonPath(BaseModel):
    """A path from the user to the item: user → `item_id` → [similar users who took both →] recommended item."""

    item_id: str = Field(description="An item of the user's history.")
    strength: float | None = Field(
        default=None,
        description="Strength of the edge from this item to the recommended item. transition, cooccurrence, content: "
        "the weight in the item's list of that channel (the weights of a list sum to 1). explicit, dense: the cosine "
        "of the two items' vectors. generative: the share of the levels in which the two semantic IDs begin alike.",
    )
    similar_users: int | None = Field(
        default=None, description="Group channel: how many similar users took this item and the recommended item."
    )
    live_users: int | None = Field(
        default=None,
        description="transition, cooccurrence: how many other users are behind the path since the release, which "
        "itself has no such edge. At least 3; with fewer the path is not shown.",
    )


class Reason(BaseModel):
    """The evidence of one channel for an item, and a sentence made of this evidence alone."""

    channel: Literal["group", "transition", "cooccurrence", "content", "explicit", "dense", "generative", "popular"]
    interest: Literal["individual", "group", "everybody"] = Field(description="Whose interest it is.")
    text: str = Field(description="The evidence as a sentence to the shopper.")
    paths: list[ReasonPath] = Field(description="Strongest first, 3 at most; empty where no path exists.")
    words: list[str] = Field(
        description="The interest in words of the semantic features: what at least 3 of the similar users look for, "
        "or what the item and the user's items have in common."
    )
    similar_users: int | None = Field(default=None, description="How many of the similar users took the item.")
    of_similar_users: int | None = Field(default=None, description="How many similar users there are.")
    weak: bool | None = Field(default=None, description="True: no user is really similar; these are the nearest few.")
    popularity_rank: int | None = Field(
        default=None,
        description="1 for the item that was taken most lately; events since the release count too.",
    )


class RuleMove(BaseModel):
    rule: int = Field(description="The rule's position among the placement's rules, from 1 on.")
    kind: RuleKind
    moved: int | None = Field(
        description="Places towards the list's beginning, negative ones towards its end; null where the item would not "
        "be in the list without the rule."
    )


class RecommendedItem(BaseModel):
    item_id: str
    rank: int
    score: float
    source: str = Field(
        description="The channel that raises the item's score most, of those that have a weight and found the item: "
        "generative, dense, explicit, group, transition, cooccurrence, content, popular. In a placement also the kind "
        "of list that found the item (together, trending, new, buy-again, recently-viewed), or pin where only a rule "
        "brought it."
    )
    reasons: list[Reason] | None = Field(
        default=None,
        description="With `explain`: at least one reason, that of the main source first, where at least 3 users are "
        "behind it.",
    )
    rules: list[RuleMove] | None = Field(
        default=None,
        description="With `explain`, on the first page of a placement with rules: the rules that moved the item.",
    )


class Meta(BaseModel):
    release_id: str
    source: str = Field(
        description="Where the answer comes from: sequence, session, category-popular, popular, similar; of a "
        "placement the kind that its list begins with: for-user, similar, together, trending, popular, new, buy-again, "
        "recently-viewed. Prefixed `bundle:` when user state could not be read: the answer is made without what the "
        "store knows of the user."
    )
    request_id: str
    user_version: str | None = None
    recommendation_id: str = Field(
        description="Send it with the events on shown items, and with `offset` for the next page of the same list."
    )
    next_offset: int | None = Field(default=None, description="Offset of the next page; missing at the list's end.")


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
    timestamps: list[float | None] = Field(description="Moment of each entry of the history, in seconds.")
    history_total: int = Field(
        description="How many entries the history has: those of the release, and the latest 200 since."
    )
    excluded: list[str] = Field(
        description="Items that are not recommended: bought, or disliked; the first `last` by their ids."
    )
    excluded_total: int = Field(description="How many items are excluded.")
    interests: Interests
    meta: UserMeta
    warnings: list[Warned]


class ShownItem(BaseModel):
    item_id: str
    title: str | None
    brand: str | None
    categories: list[str]
    price: float | None
    group_id: str | None = Field(description="The product that the item is a variant of.")
    available: bool = Field(description="Whether it is recommended.")
    metadata: dict[str, Any] = Field(description="The shop's own fields: the item's attributes.")
    in_release: bool = Field(description="false: the item is newer than the release, which knows only its texts.")


class ItemMeta(BaseModel):
    release_id: str
    request_id: str


class ItemAnswer(BaseModel):
    item: ShownItem
    meta: ItemMeta


class ItemChanged(ItemAnswer):
    status: Literal["added", "changed"]
    warnings: list[Warned]


class AttributeShown(BaseModel):
    """An attribute of the items, which conditions may name."""

    name: str
    type: AttributeType
    items: int = Field(description="How many items have a value.")
    examples: list[str | bool | float] = Field(
        description="text, texts, boolean: the most frequent values, first that of most items. number, time: the "
        "smallest, the median and the largest."
    )


class AttributesAnswer(BaseModel):
    attributes: list[AttributeShown] = Field(description="Our own fields, then the shop's, those of most items first.")
    meta: ItemMeta


class BadLine(BaseModel):
    line: int = Field(description="Number of the line in the body, from 1 on.")
    reason: str = Field(description="Stable code.")
    detail: str


class Imported(BaseModel):
    lines: int
    accepted: int
    duplicates: int
    refused: int
    reasons: dict[str, int] = Field(description="Number of refusals by reason.")
    problems: list[BadLine] = Field(description="The first thousand refused lines.")
    problems_left_out: int
    warnings: list[Warned] = Field(
        description="For items: the shop's own fields that resemble a known field (`misnamed_field`). The service "
        "stores them and does not read them."
    )
    meta: dict[str, str]


class LiveEvidenceProgress(BaseModel):
    """How far the replica has come with counting accepted events for everybody's recommendations."""

    entries_behind: int = Field(description="Accepted events that are not counted yet, about.")
    seconds_behind: float = Field(description="Age of the last counted event while others wait, else 0.")
    truncated: bool = Field(
        description="true: the store has removed events that the release has not learned; they are not counted."
    )
    entries_read: int = Field(
        description="Accepted events that were read since the release was opened, whether they counted or not."
    )


class Readiness(BaseModel):
    status: Literal["ready", "degraded"]
    release_id: str
    store: Literal["ok", "unavailable"]
    live_evidence: LiveEvidenceProgress | None = Field(
        description="null: events count for nobody but their user, by the setting or because the release is too old."
    )
    warnings: list[Warned] = Field(
        default=[], description="A Redis that could lose accepted events; events that are missing in live evidence."
    )


class Rates(BaseModel):
    """Shown items, clicks and purchases; a click and a purchase count once for a list and an item."""

    source: str
    items_shown: int
    clicks: int = Field(description="Shown items with an accepted event that carries the answer's recommendation_id.")
    purchases: int = Field(description="Clicks that are purchases.")
    click_through: float | None = Field(description="Clicks per shown item; null where none was shown.")


class AnswerRates(Rates):
    answers: int


class ReleaseStats(BaseModel):
    release_id: str
    answers: int
    by_answer_source: list[AnswerRates] = Field(description="By the answers' `meta.source`.")
    by_item_source: list[Rates] = Field(description="By the items' `source`.")


class Stats(BaseModel):
    """Counts of all replicas, since counting began."""

    releases: list[ReleaseStats]


class Reloaded(BaseModel):
    status: Literal["switched", "unchanged"]
    release_id: str = Field(description="The release that is served now.")
    previous_release_id: str
    seconds: float = Field(description="How long it took; requests are answered meanwhile.")
