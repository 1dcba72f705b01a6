"""Makes item cards for the pages, and picks shoppers, as a shop would from its own data."""

from typing import Any

from isrf.contract.ids import UserIndex
from service.recommend.recommender import RecommendationService
from service.release.catalogue import ItemLine
from service.release.wording import words

NUM_SHOPPERS = 24
LOOKED_AT = 4
"""Users tried at each starting row, until one has a history of a good length."""
LENGTHS = range(4, 41)
"""Good lengths of a history to look at."""


def item_card(item: ItemLine) -> dict[str, Any]:
    """Returns an item as the page shows it; its id replaces a missing title."""
    return {
        "item_id": item.item_id,
        "title": item.title or item.item_id,
        "brand": item.brand,
        "category": item.categories[-1] if item.categories else None,
        "price": item.price,
    }


async def some_shoppers(recommendations: RecommendationService) -> list[dict[str, Any]]:
    """Returns shoppers spread evenly over the release's rows, without erased ones."""
    release = recommendations.release
    starts = range(0, len(release.users), max(1, len(release.users) // NUM_SHOPPERS))
    found: list[dict[str, Any]] = []
    for start in starts[:NUM_SHOPPERS]:
        for row in range(start, min(start + LOOKED_AT, len(release.users))):
            user = await recommendations.users.view(release.users.ids.external(UserIndex(row)))
            if len(user.rows) in LENGTHS:
                shared = words((release.catalogue.items[item] for item in user.rows), limit=3)
                likes = [entry["words"] for entry in shared]
                found.append({"user_id": user.user_id, "num_items": len(user.rows), "likes": likes})
                break
    return found
