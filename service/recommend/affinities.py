"""A user's categories, brands and other attributes, ranked by what the user's history has of each. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from service.release.catalogue import ItemLine

DEFAULT_ATTRIBUTES = ("categories", "brand")
WEIGHT_DIGITS = 4
USUAL_RECENCY = 0.7
"""Weight of an event per event after it, where the release does not say what its interests use."""


def recency_of(config: Mapping[str, Any]) -> float:
    """Returns the weight per age that the interests of a release use, from its configuration."""
    return float(config.get("graph", {}).get("recency", USUAL_RECENCY))


def attributes_of(item: ItemLine, names: Collection[str]) -> dict[str, Sequence[str]]:
    """Returns some of an item's attributes with their texts; one that holds anything else, or nothing, has none."""
    known: dict[str, Any] = {"categories": item.categories, "brand": item.brand}
    if not known.keys() >= set(names):
        known = item.own_fields() | known
    return {name: _texts(known.get(name)) for name in names}


def affinities(
    history: Iterable[ItemLine], *, recency: float, limit: int, names: Collection[str] = DEFAULT_ATTRIBUTES
) -> dict[str, list[dict[str, Any]]]:
    """Ranks the values of each attribute.

    Args:
        history: the items of a user's events, oldest first.
        names: the attributes: `categories`, `brand`, or one of the shop's own that holds a text or a list of texts.
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
        for name, values in attributes_of(item, names).items():
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


def _texts(value: Any) -> Sequence[str]:
    if isinstance(value, str):
        return [value] if value else []
    return [text for text in value if text and isinstance(text, str)] if isinstance(value, list) else []
