"""What callers send: bodies and the types of their fields, as the API documents them."""

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
MAX_CATEGORY = 512
"""Characters of a category's name."""


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not true or false")
    return value


Number = BeforeValidator(_no_truth_value)
"""Python takes true for 1."""
Count = Annotated[int, Field(ge=1, le=MAX_N, description="How many items are wanted."), Number]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False), Number]
MinPrice = Annotated[Price | None, Field(description="Only items of at least this price; one without a price is none.")]
MaxPrice = Annotated[Price | None, Field(description="Only items of at most this price; one without a price is none.")]
Diversity = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="0: by score alone. Up to 1: items unlike those before them (maximal marginal relevance).",
    ),
    Number,
]
RecommendationId = Annotated[
    str | None,
    Field(pattern=ID_PATTERN, description="Of an earlier answer: its list is read on from `offset`, as it was then."),
]
Offset = Annotated[
    int, Field(ge=0, le=10_000, description="Items of the list to leave out; a list has 200 at most."), Number
]
Category = Annotated[str | None, Field(max_length=MAX_CATEGORY, description="Only items of this category.")]

History = Annotated[
    list[ExternalId], Field(max_length=MAX_SESSION, description="item_ids, oldest first; unknown ones are skipped.")
]


class ListRequest(KnownFields):
    """What is wanted of a list."""

    n: Count = 10
    category: Category = None
    exclude: Annotated[list[ExternalId], Field(max_length=MAX_EXCLUDED)] = Field(default=[])
    min_price: MinPrice = None
    max_price: MaxPrice = None
    diversity: Diversity = 0.0
    include_seen: bool = False
    explain: bool = False


class SessionRequest(ListRequest):
    """Recommendations for an anonymous session, from nothing but the items it holds."""

    history: History
    user_id: ExternalId | None = Field(
        default=None, description="Whose session it is: their own history, if they have one, is read in its place."
    )
    recommendation_id: RecommendationId = None
    offset: Offset = 0


class UsersRequest(ListRequest):
    """Recommendations for many users, each as they would be alone."""

    users: Annotated[
        list[ExternalId],
        Field(
            min_length=1,
            max_length=MAX_USERS,
            description=f"user_ids. users × n is {MOST_ITEMS} at most, with `explain` {MOST_EXPLAINED}; each user "
            "counts as a call in the key's rate.",
        ),
    ]


def _meant(body: Any) -> str | None:
    """The class of the one body of POST /recommend whose own field is there; None for neither and for both."""
    named = body if isinstance(body, dict) else getattr(body, "model_fields_set", ())
    meant = [cls.__name__ for name, cls in (("history", SessionRequest), ("users", UsersRequest)) if name in named]
    return meant[0] if len(meant) == 1 else None


RecommendRequest = Annotated[
    Annotated[SessionRequest, Tag(SessionRequest.__name__)] | Annotated[UsersRequest, Tag(UsersRequest.__name__)],
    Discriminator(
        _meant,
        custom_error_type="either",
        custom_error_message="send an object with either `history` (a session's items) or `users` (user_ids)",
    ),
]
"""What is wrong with a body is said of the branch that it means."""


class RankRequest(KnownFields):
    """Given candidates, to be put in order for a user, else for a history, else by popularity."""

    candidates: Annotated[list[ExternalId], Field(min_length=1, max_length=MAX_CANDIDATES, description="item_ids.")]
    user_id: ExternalId | None = None
    history: History = Field(default=[])
    n: Annotated[
        int | None, Field(ge=1, le=MAX_CANDIDATES, description="How many of them; all, if missing."), Number
    ] = None
    diversity: Diversity = 0.0
    explain: Annotated[bool, Field(description=f"Add the reasons; of {MAX_N} candidates at most (`n`).")] = False


class InteractionsRequest(KnownFields):
    """Events are judged one by one, so one bad event does not refuse the others."""

    events: Annotated[list[SkipValidation[EventIn]], Field(min_length=1, max_length=MAX_EVENTS)]
