"""Sentences over one item: who takes it, who passes it by, and its semantic feature (facts in, text out)."""

from typing import NamedTuple

from offline.stages.reason.attributes.terms import Term
from offline.stages.reason.attributes.wording import TIERS, join_words, sentence
from offline.stages.reason.schemas import ItemReasoning, count_words

MAX_NAME_WORDS = 6
"""A brand or category name is cut to so many words inside a sentence."""


class ItemFacts(NamedTuple):
    """What the corpus says about one item; empty where it says nothing."""

    title: str
    category: str
    brand: str
    price: float | None
    tier: str  # one of `TIERS`, or empty
    terms: tuple[Term, ...]  # distinctive title terms, best first
    num_buyers: int  # training split
    also: tuple[str, ...]  # categories its buyers over-buy
    also_brands: tuple[str, ...]
    seldom: tuple[str, ...]  # categories its buyers under-buy
    siblings: tuple[str, ...]  # largest neighbouring categories


def describe_item(facts: ItemFacts) -> ItemReasoning | None:
    """The three steps over one item; None where neither its texts nor its buyers say anything."""
    if not (facts.title or facts.category or facts.brand or facts.also or facts.also_brands):
        return None
    feature = _feature(facts)
    return ItemReasoning(
        positive=_positive(facts), negative=_negative(facts), feature=feature, justification=_justification(facts)
    )


def short(name: str) -> str:
    """A name as it fits into a sentence."""
    words = name.split()[:MAX_NAME_WORDS]
    while len(words) > 1 and words[-1] in ("and", "or", "of", "for", "&"):
        words.pop()
    return " ".join(words).rstrip(",;:-")


def name_kind(facts: ItemFacts, *, with_tier: bool = True) -> str:
    """`budget eyeliner from Maybelline`."""
    tier = f"{facts.tier} " if with_tier and facts.tier else ""
    kind = short(facts.category) or "products"
    return f"{tier}{kind}{f' from {short(facts.brand)}' if facts.brand else ''}"


def _feature(facts: ItemFacts) -> str:
    words = [term.text for term in facts.terms[:2]]
    text = name_kind(facts)
    if words:
        text += f": {', '.join(words)}"
    for also in (facts.also[:2], facts.also[:1]):
        longer = f"{text}; often bought with {join_words([short(name) for name in also])}"
        if also and count_words(longer) <= ItemReasoning.WORD_LIMITS["feature"]:
            return sentence(longer)
    return sentence(text)


def _positive(facts: ItemFacts) -> str:
    parts = [f"For shoppers after {name_kind(facts)}"]
    if facts.terms:
        parts[0] += f" who look for {join_words([term.text for term in facts.terms])}"
    if facts.also:
        parts.append(f"Its buyers take {join_words([short(name) for name in facts.also])} more often than others do")
    if facts.also_brands:
        parts.append(f"They lean towards {join_words([short(name) for name in facts.also_brands])}")
    return " ".join(map(sentence, parts))


def _negative(facts: ItemFacts) -> str:
    parts = []
    if facts.seldom:
        seldom = join_words([short(name) for name in facts.seldom], "or")
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
