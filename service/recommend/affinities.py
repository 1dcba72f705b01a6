"""A user's categories and brands, ranked by what the user's history has of each. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from service.release.catalogue import ItemLine

WEIGHT_DIGITS = 4
USUAL_RECENCY = 0.7
"""Weight of an event per event after it, where the release does not say what its interests use."""


def recency_of(config: Mapping[str, Any]) -> float:
    """Returns the weight per age that the interests of a release use, from its configuration."""
    return float(config.get("graph", {}).get("recency", USUAL_RECENCY))


def attributes_of(item: ItemLine) -> dict[str, Sequence[str]]:
    """Returns an item's attributes with their values, an attribute with one value as a list of it."""
    return {"categories": item.categories, "brand": [item.brand] if item.brand else []}


def affinities(history: Iterable[ItemLine], *, recency: float, limit: int) -> dict[str, list[dict[str, Any]]]:
    """Ranks the values of each attribute.

    Args:
        history: the items of a user's events, oldest first.
        recency: an event of age a (0 for the latest) weighs recency^a, as in the user's interest.
        limit: values of each attribute at most.

    Returns:
        By attribute `{"value", "weight", "events", "items"}`, the heaviest first: `weight` is the value's share of all
        weights, `events` how many events of the history have it, `items` how many distinct items.
    """
    weights: dict[str, dict[str, float]] = {}
    events: dict[tuple[str, str], int] = {}
    items: dict[tuple[str, str], set[str]] = {}
    total, latest_first = 0.0, list(history)[::-1]
    for age, item in enumerate(latest_first):
        total += (weight := recency**age)
        for name, values in attributes_of(item).items():
            for value in dict.fromkeys(values):
                of_name = weights.setdefault(name, {})
                of_name[value] = of_name.get(value, 0.0) + weight
                events[name, value] = events.get((name, value), 0) + 1
                items.setdefault((name, value), set()).add(item.item_id)
    return {
        name: [
            {
                "value": value,
                "weight": round(of_name[value] / total, WEIGHT_DIGITS),
                "events": events[name, value],
                "items": len(items[name, value]),
            }
            for value in sorted(of_name, key=lambda one: (-of_name[one], -events[name, one], one))[:limit]
        ]
        for name, of_name in sorted(weights.items())
    }
