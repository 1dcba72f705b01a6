"""A client of the recommendation service for shops: bounded in time, with safe retries, and typed.

    from isrf_client import Client

    with Client("http://127.0.0.1:8000", api_key=None) as isrf:
        answer = isrf.recommend("shopper-0393", n=5, explain=True)
        isrf.interactions([{"user_id": "shopper-0393", "item_id": answer["items"][0]["item_id"], "event": "view"}])

`AsyncClient` has the same methods for asyncio. The client needs httpx and nothing of the service.
"""

from isrf_client.answers import (
    AffinitiesAnswer,
    Affinity,
    Event,
    EventAnswer,
    Id,
    InteractionsAnswer,
    Interests,
    ItemAnswer,
    ItemBody,
    ItemChanged,
    Kind,
    ListOptions,
    Meta,
    PageOptions,
    Placement,
    PlacementAnswer,
    PlacementItems,
    PlacementList,
    PlacementMeta,
    PlacementOptions,
    PopularItems,
    RankOptions,
    Reason,
    ReasonPath,
    Recommendations,
    RecommendedItem,
    SessionOptions,
    ShownItem,
    SimilarItems,
    UserAnswer,
    UserOptions,
    Warned,
    Words,
)
from isrf_client.asynchronous import AsyncClient
from isrf_client.attempts import READS, WRITES, Patience
from isrf_client.errors import ClientError, InvalidCallError, NoAnswerError, ProblemError
from isrf_client.events import prepare
from isrf_client.synchronous import Client
from isrf_client.version import __version__

__all__ = [
    "READS",
    "WRITES",
    "AffinitiesAnswer",
    "Affinity",
    "AsyncClient",
    "Client",
    "ClientError",
    "Event",
    "EventAnswer",
    "Id",
    "InteractionsAnswer",
    "Interests",
    "InvalidCallError",
    "ItemAnswer",
    "ItemBody",
    "ItemChanged",
    "Kind",
    "ListOptions",
    "Meta",
    "NoAnswerError",
    "PageOptions",
    "Patience",
    "Placement",
    "PlacementAnswer",
    "PlacementItems",
    "PlacementList",
    "PlacementMeta",
    "PlacementOptions",
    "PopularItems",
    "ProblemError",
    "RankOptions",
    "Reason",
    "ReasonPath",
    "Recommendations",
    "RecommendedItem",
    "SessionOptions",
    "ShownItem",
    "SimilarItems",
    "UserAnswer",
    "UserOptions",
    "Warned",
    "Words",
    "__version__",
    "prepare",
]
