"""The attribute reasoner: what the corpus itself says about items and users, in sentences of the LLM's own schema.

Deterministic and free: category, brand, price tier and distinctive title terms of an item, what its buyers take more
and less often than others, and for a user the same over the last training items. It reads a `Corpus`, writes nothing.

What is counted over the catalogue (terms, tiers, names and neighbours of categories) is counted over items with
training buyers; every other item is described by it and changes nobody else's words.
"""

from typing import NamedTuple

from offline.stages.reason.attributes.buying import Leaning, measure_leaning, number_labels
from offline.stages.reason.attributes.item_sentences import ItemFacts, describe_item
from offline.stages.reason.attributes.terms import Term, distinctive_terms
from offline.stages.reason.attributes.user_sentences import describe_user
from offline.stages.reason.attributes.wording import TIERS, most_common, name_categories, price_tiers
from offline.stages.reason.corpus import Corpus, Item
from offline.stages.reason.schemas import ItemReasoning, UserReasoning

NUM_NEIGHBOUR_CATEGORIES = 2


class AttributeReasoning(NamedTuple):
    """None where nothing can be said: an item without text and buyers, a user without training events."""

    items: list[ItemReasoning | None]  # row = item_index
    users: list[UserReasoning | None]  # row = user_index


def reason_from_attributes(corpus: Corpus) -> AttributeReasoning:
    """Reasons over every item and every user of the corpus."""
    facts = gather_facts(corpus)
    items = [describe_item(fact) for fact in facts]
    users = [
        describe_user([facts[item] for item in corpus.recent(user)], currency=corpus.currency)
        for user in range(len(corpus.histories))
    ]
    return AttributeReasoning(items, users)


def gather_facts(corpus: Corpus) -> list[ItemFacts]:
    """What is known of every item, row = item_index."""
    items, fitted = corpus.items, corpus.in_training()
    paths = [item.categories for item in items]
    categories = name_categories(paths, fitted=fitted)
    tiers = price_tiers([item.price for item in items], paths, fitted=fitted)
    terms = _terms(items, categories, fitted)
    taken = corpus.interactions()
    num_buyers = taken.sum(axis=0)
    category_labels = number_labels(_of_fitted(categories, fitted))
    brand_labels = number_labels(_of_fitted([item.brand for item in items], fitted))
    by_category = measure_leaning(taken, category_labels)
    by_brand = measure_leaning(taken, brand_labels)
    siblings = _neighbouring_categories(paths, categories, fitted)
    return [
        ItemFacts(
            title=item.title,
            category=categories[row],
            brand=item.brand,
            price=item.price,
            tier=TIERS[tiers[row]] if tiers[row] >= 0 else "",
            terms=terms[row],
            num_buyers=int(num_buyers[row]),
            also=_names(by_category, category_labels.names, row, more=True),
            also_brands=_names(by_brand, brand_labels.names, row, more=True),
            seldom=_names(by_category, category_labels.names, row, more=False),
            siblings=siblings[paths[row]],
        )
        for row, item in enumerate(items)
    ]


def _of_fitted(labels: list[str], fitted: list[bool]) -> list[str]:
    return [label if known else "" for label, known in zip(labels, fitted, strict=True)]


def _terms(items: list[Item], categories: list[str], fitted: list[bool]) -> list[tuple[Term, ...]]:
    own = [
        f"{item.brand} {category} {' '.join(item.categories)}" for item, category in zip(items, categories, strict=True)
    ]
    return distinctive_terms([item.title for item in items], categories, own, fitted=fitted)


def _names(leaning: Leaning, names: list[str], row: int, *, more: bool) -> tuple[str, ...]:
    return tuple(names[label] for label in (leaning.over if more else leaning.under)[row])


def _neighbouring_categories(
    paths: list[tuple[str, ...]], categories: list[str], fitted: list[bool]
) -> dict[tuple[str, ...], tuple[str, ...]]:
    """For every path the largest other categories below the same parent."""
    below: dict[tuple[str, ...], list[str]] = {}
    for path, category in zip(paths, _of_fitted(categories, fitted), strict=True):
        below.setdefault(path[:-1], []).append(category)
    found = {}
    for path, category in dict(zip(paths, categories, strict=True)).items():
        others = [name for name in below[path[:-1]] if name != category]
        found[path] = tuple(most_common(others, [1.0] * len(others), NUM_NEIGHBOUR_CATEGORIES))
    return found
