"""Writes the sentences about one item: who likes it, who does not, its semantic feature (facts in, text out)."""

from typing import NamedTuple

from offline.stages.reason.attributes.terms import Term
from offline.stages.reason.attributes.wording import TIERS, join_words, sentence
from offline.stages.reason.schemas import ItemReasoning, count_words

MAX_NAME_WORDS = 6
"""Words of a brand or category name inside a sentence; longer names are cut."""


class ItemFacts(NamedTuple):
    """What the corpus says about one item; a field is empty where the corpus says nothing."""

    title: str
    category: str
    brand: str
    price: float | None
    tier: str  # one of `TIERS`, or empty
    terms: tuple[Term, ...]  # distinctive title terms, best first
    num_buyers: int  # training split
    also_bought: tuple[str, ...]  # categories that its buyers take more often than expected
    also_bought_brands: tuple[str, ...]  # brands that its buyers take more often than expected
    seldom_bought: tuple[str, ...]  # categories that its buyers take less often than expected
    siblings: tuple[str, ...]  # the largest other categories below the same parent


def describe_item(facts: ItemFacts) -> ItemReasoning | None:
    """Returns the three steps about one item; None where neither its texts nor its buyers say anything."""
    if not (facts.title or facts.category or facts.brand or facts.also_bought or facts.also_bought_brands):
        return None
    feature = _feature(facts)
    return ItemReasoning(
        positive=_positive(facts), negative=_negative(facts), feature=feature, justification=_justification(facts)
    )


def short(name: str) -> str:
    """Cuts a name so that it fits into a sentence."""
    words = name.split()[:MAX_NAME_WORDS]
    while len(words) > 1 and words[-1] in ("and", "or", "of", "for", "&"):
        words.pop()
    return " ".join(words).rstrip(",;:-")


def name_kind(facts: ItemFacts, *, with_tier: bool = True) -> str:
    """Names the kind of product, such as `budget eyeliner from Maybelline`."""
    tier = f"{facts.tier} " if with_tier and facts.tier else ""
    kind = short(facts.category) or "products"
    return f"{tier}{kind}{f' from {short(facts.brand)}' if facts.brand else ''}"


def _feature(facts: ItemFacts) -> str:
    words = [term.text for term in facts.terms[:2]]
    text = name_kind(facts)
    if words:
        text += f": {', '.join(words)}"
    for categories in (facts.also_bought[:2], facts.also_bought[:1]):
        longer = f"{text}; often bought with {join_words([short(name) for name in categories])}"
        if categories and count_words(longer) <= ItemReasoning.WORD_LIMITS["feature"]:
            return sentence(longer)
    return sentence(text)


def _positive(facts: ItemFacts) -> str:
    parts = [f"For shoppers after {name_kind(facts)}"]
    if facts.terms:
        parts[0] += f" who look for {join_words([term.text for term in facts.terms])}"
    if facts.also_bought:
        parts.append(
            f"Its buyers take {join_words([short(name) for name in facts.also_bought])} more often than others do"
        )
    if facts.also_bought_brands:
        parts.append(f"They lean towards {join_words([short(name) for name in facts.also_bought_brands])}")
    return " ".join(map(sentence, parts))


def _negative(facts: ItemFacts) -> str:
    parts = []
    if facts.seldom_bought:
        seldom = join_words([short(name) for name in facts.seldom_bought], "or")
        parts.append(f"Its buyers seldom take {seldom}, so shoppers who come for those will likely pass")
    elif facts.siblings:
        parts.append(f"Not for shoppers who come for {join_words([short(name) for name in facts.siblings], 'or')}")
    if facts.tier == TIERS[0]:
        parts.append("Those who prefer premium products will look elsewhere")
    elif facts.tier == TIERS[-1]:
        parts.append("Those who shop for a bargain will find it dear")
    if not parts:
        parts.append(f"Not for shoppers who have no use for {short(facts.category) or 'it'}")
    return " ".join(map(sentence, parts))


def _justification(facts: ItemFacts) -> str:
    if not facts.num_buyers:
        return "Nobody has bought it in the period looked at: category, brand, price and title speak for it."
    shoppers = "one shopper" if facts.num_buyers == 1 else f"{facts.num_buyers} shoppers"
    sources = "title, category, brand and price" if facts.title else "attributes"
    return f"Deduced from its {sources}, and from what the {shoppers} who took it bought besides."
