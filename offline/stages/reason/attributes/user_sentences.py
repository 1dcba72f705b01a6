"""Writes the sentences about one user from the facts of the last training items (facts in, text out)."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain

from offline.stages.reason.attributes.item_sentences import ItemFacts, name_kind, short
from offline.stages.reason.attributes.wording import TIERS, join_words, most_common, price_range, sentence
from offline.stages.reason.schemas import UserReasoning

RECENCY = 0.9
"""An item weighs this share of the next newer item's weight."""

NUM_KINDS = 3
NUM_TERMS = 4
FAVOURITE_SHARE = 0.4
"""Share of the items that one brand must reach before the text calls it a favourite."""

TITLE_WORDS = 9


def describe_user(items: Sequence[ItemFacts], *, currency: str) -> UserReasoning | None:
    """Returns the three steps about one user; None where no item has a title, category or brand.

    Args:
        items: the last training items, most recent first.
        currency: the sign in front of a price.
    """
    described = [item for item in items if item.title or item.category or item.brand]
    if not described:
        return None
    weights = [RECENCY**age for age in range(len(described))]
    categories = most_common([item.category for item in described], weights, NUM_KINDS)
    prices = price_range([item.price for item in described if item.price is not None], currency)
    return UserReasoning(
        likes=_likes(described, weights, categories, prices),
        dislikes=_dislikes(described, weights),
        core=_core(described, weights, categories, prices),
    )


def _likes(items: list[ItemFacts], weights: list[float], categories: list[str], prices: str) -> str:
    kinds = [_kind(category, items, weights) for category in categories]
    if not kinds:
        kinds = [name_kind(items[0], with_tier=False)]
    terms = _frequent_terms(items, weights)
    text = sentence(f"Likes {join_words(kinds)}{f', {prices}' if prices else ''}")
    mentioned = {word for kind in kinds for word in kind.split()}
    new_terms = [term for term in terms if not set(term.split()) <= mentioned]
    if new_terms:
        text += " " + sentence(f"Comes back to {join_words(new_terms)}")
    if items[0].title:
        text += " " + sentence(f"Most recent choice: {_short_title(items[0].title)}")
    return text


def _kind(category: str, items: list[ItemFacts], weights: list[float]) -> str:
    """Names a kind of product, such as `waterproof eyeliner from Maybelline and Revlon`."""
    group = [(item, weight) for item, weight in zip(items, weights, strict=True) if item.category == category]
    brands = most_common([short(item.brand) for item, _ in group], [weight for _, weight in group], 2)
    terms = _frequent_terms([item for item, _ in group], [weight for _, weight in group])[:1]
    source = f" from {join_words(brands)}" if brands else ""
    return f"{' '.join([*terms, short(category)])}{source}"


def _frequent_terms(items: list[ItemFacts], weights: list[float]) -> list[str]:
    """Returns the items' distinctive terms with the largest summed weight; several items add up."""
    pairs = [(term, weight) for item, weight in zip(items, weights, strict=True) for term in item.terms]
    return most_common([term.text for term, _ in pairs], [term.score * weight for term, weight in pairs], NUM_TERMS)


def _dislikes(items: list[ItemFacts], weights: list[float]) -> str:
    own_categories = {item.category for item in items}
    seldom = [(name, weight) for item, weight in zip(items, weights, strict=True) for name in item.seldom_bought]
    avoided = most_common(
        [name if name not in own_categories else "" for name, _ in seldom], [weight for _, weight in seldom], NUM_KINDS
    )
    parts = []
    if avoided:
        parts.append(f"Shows no interest in {join_words([short(name) for name in avoided], 'or')}")
    tiers = Counter(item.tier for item in items if item.tier)
    if tiers and not tiers[TIERS[-1]]:
        parts.append("Passes over premium prices")
    elif tiers and not tiers[TIERS[0]]:
        parts.append("Passes over the cheapest offers")
    if not parts:
        siblings = list(chain.from_iterable(item.siblings for item in items))
        avoided = most_common(
            [name if name not in own_categories else "" for name in siblings], [1.0] * len(siblings), 2
        )
        if not avoided:
            return "No clear dislikes: the choices are spread over the whole range."
        parts.append(f"Has not chosen {join_words([short(name) for name in avoided], 'or')} so far")
    return " ".join(map(sentence, parts))


def _core(items: list[ItemFacts], weights: list[float], categories: list[str], prices: str) -> str:
    tier = most_common([item.tier for item in items], weights, 1)
    steady = tier and sum(item.tier == tier[0] for item in items) > len(items) / 2
    kinds = join_words([short(category) for category in categories]) or "products"
    text = f"{tier[0]} {kinds}" if steady and not prices else kinds
    if prices:
        text += f", {prices}"
    terms = _frequent_terms(items, weights)[:2]
    if terms:
        text += f", with a liking for {join_words(terms)}"
    brand = most_common([item.brand for item in items], [1.0] * len(items), 1)
    least = max(2, FAVOURITE_SHARE * len(items))
    if brand and len(items) > 1 and sum(item.brand == brand[0] for item in items) >= least:
        text += f"; returns to {short(brand[0])}"
    return sentence(text)


def _short_title(title: str) -> str:
    words = title.split()
    cut = " ".join(words[:TITLE_WORDS]).rstrip(",;:-(&")
    return cut if len(words) <= TITLE_WORDS else f"{cut} …"
