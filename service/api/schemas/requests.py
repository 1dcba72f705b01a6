"""The bodies of requests and the types of their fields, as the API documents them."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, SkipValidation, Tag

from isrf.contract.ids import ExternalId
from isrf.contract.known_fields import KnownFields
from service.auth.request_cost import MOST_EXPLAINED, MOST_ITEMS
from service.recommend.result_lists import ID_PATTERN
from service.state.events import EventIn

MAX_N = 200
MAX_EVENTS = 1000
MAX_SESSION = 1000
MAX_EXCLUDED = 1000
MAX_USERS = 256
MAX_CANDIDATES = 1000
MAX_CATEGORIES = 64
MAX_CONTEXT, MAX_CONTEXT_VALUE = 20, 256
"""Values of a call's context, and characters of each."""
MAX_CATEGORY = 512
"""Characters of a category's name."""


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


Number = BeforeValidator(_no_truth_value)
"""A number; refuses true and false, which Python reads as 1 and 0."""
Count = Annotated[int, Field(ge=1, le=MAX_N, description="Number of items."), Number]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False), Number]
MinPrice = Annotated[Price | None, Field(description="Only items with a price, of at least this much.")]
MaxPrice = Annotated[Price | None, Field(description="Only items with a price, of at most this much.")]
ExcludeVariants = Annotated[bool, Field(description="What excludes an item excludes all of its `group_id`.")]
Diversity = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="0: by score alone. Towards 1: items that differ from those before (maximal marginal relevance).",
    ),
    Number,
]
RecommendationId = Annotated[
    str | None,
    Field(pattern=ID_PATTERN, description="From an earlier answer: returns that same list from `offset` on."),
]
Offset = Annotated[
    int, Field(ge=0, le=10_000, description="Items of the list to skip; a list has 200 at most."), Number
]
CategoryName = Annotated[str, Field(max_length=MAX_CATEGORY)]
Categories = Annotated[
    list[CategoryName], Field(max_length=MAX_CATEGORIES, description="Only items of one of these categories.")
]
NotCategories = Annotated[
    list[CategoryName], Field(max_length=MAX_CATEGORIES, description="No items of these categories.")
]
FilterText = Annotated[
    str | None,
    Field(
        description="Only items for which this condition on their attributes holds, as in an SQL WHERE clause: "
        "`brand = 'Auralis' AND price < 80`. It may read `now`, `user.bought`, `user.disliked`, and `context.NAME`, "
        "which the call brings."
    ),
]
ContextValue = Annotated[str, Field(max_length=MAX_CONTEXT_VALUE)]
Context = Annotated[
    dict[str, ContextValue], Field(max_length=MAX_CONTEXT, description="Texts that the filter reads as `context.NAME`.")
]


History = Annotated[
    list[ExternalId], Field(max_length=MAX_SESSION, description="item_ids, oldest first; unknown ones are skipped.")
]


class ListRequest(KnownFields):
    """The parameters of a list."""

    n: Count = 10
    category: Annotated[CategoryName | Categories | None, Field(description="Only items of it, or of one of them.")] = (
        None
    )
    exclude_category: Annotated[
        CategoryName | NotCategories | None, Field(description="No items of it, or of them.")
    ] = None
    filter: FilterText = None
    context: Context = Field(default={})
    exclude: Annotated[list[ExternalId], Field(max_length=MAX_EXCLUDED)] = Field(default=[])
    min_price: MinPrice = None
    max_price: MaxPrice = None
    diversity: Diversity = 0.0
    include_seen: bool = False
    exclude_variants: ExcludeVariants = False
    explain: bool = False


class SessionRequest(ListRequest):
    """Recommendations for an anonymous session, from its items alone."""

    history: History
    user_id: ExternalId | None = Field(
        default=None, description="The user of the session; where they have a history, it replaces the session."
    )
    recommendation_id: RecommendationId = None
    offset: Offset = 0


class UsersRequest(ListRequest):
    """Recommendations for many users, each the same as in a request of its own."""

    users: Annotated[
        list[ExternalId],
        Field(
            min_length=1,
            max_length=MAX_USERS,
            description=f"user_ids. users × n is {MOST_ITEMS} at most, with `explain` {MOST_EXPLAINED}; each user "
            "counts as a call in the key's rate.",
        ),
    ]


def _body_class(body: Any) -> str | None:
    """Returns the class name of a body of POST /recommend by its field; None where both fields or none are there."""
    sent = body if isinstance(body, dict) else getattr(body, "model_fields_set", ())
    classes = [cls.__name__ for name, cls in (("history", SessionRequest), ("users", UsersRequest)) if name in sent]
    return classes[0] if len(classes) == 1 else None


RecommendRequest = Annotated[
    Annotated[SessionRequest, Tag(SessionRequest.__name__)] | Annotated[UsersRequest, Tag(UsersRequest.__name__)],
    Discriminator(
        _body_class,
        custom_error_type="either",
        custom_error_message="send an object with either `history` (a session's items) or `users` (user_ids)",
    ),
]
"""Either body; errors name the fields of the class that the body belongs to."""


class RankRequest(KnownFields):
    """Candidates to rank for a user, else for a history, else by popularity."""

    candidates: Annotated[list[ExternalId], Field(min_length=1, max_length=MAX_CANDIDATES, description="item_ids.")]
    user_id: ExternalId | None = None
    history: History = Field(default=[])
    n: Annotated[
        int | None,
        Field(ge=1, le=MAX_CANDIDATES, description="How many candidates to return; all, if missing."),
        Number,
    ] = None
    filter: FilterText = None
    context: Context = Field(default={})
    diversity: Diversity = 0.0
    explain: Annotated[bool, Field(description=f"Add the reasons; only with an `n` of {MAX_N} at most.")] = False


class InteractionsRequest(KnownFields):
    """Events. The service checks each by itself, so that one bad event does not refuse the others."""

    events: Annotated[list[SkipValidation[EventIn]], Field(min_length=1, max_length=MAX_EVENTS)]
