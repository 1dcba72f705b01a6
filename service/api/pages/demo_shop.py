"""What a shop would know by itself: how to show an item, and who its shoppers are."""

from typing import Any

from isrf.contract.ids import UserIndex
from service.recommend.recommender import RecommendationService
from service.release.catalogue import ItemLine, words

NUM_SHOPPERS = 24
LOOKED_AT = 4
"""Users from each place on, until one has a history worth looking at."""
LENGTHS = range(4, 41)
"""How many items such a history has."""


def item_card(item: ItemLine) -> dict[str, Any]:
    """An item as the page shows it; one without a title is called by its id."""
    return {
        "item_id": item.item_id,
        "title": item.title or item.item_id,
        "brand": item.brand,
        "category": item.categories[-1] if item.categories else None,
        "price": item.price,
    }


async def some_shoppers(recommendations: RecommendationService) -> list[dict[str, Any]]:
    """Shoppers evenly over the release's rows, as they are now: erased ones are not among them."""
    release = recommendations.release
    starts = range(0, len(release.users), max(1, len(release.users) // NUM_SHOPPERS))
    found: list[dict[str, Any]] = []
    for start in starts[:NUM_SHOPPERS]:
        for row in range(start, min(start + LOOKED_AT, len(release.users))):
            user = await recommendations.users.view(release.users.ids.external(UserIndex(row)))
            if len(user.rows) in LENGTHS:
                likes = words((release.catalogue.items[item] for item in user.rows), limit=3)
                told = [one["words"] for one in likes]
                found.append({"user_id": user.user_id, "num_items": len(user.rows), "likes": told})
                break
    return found
