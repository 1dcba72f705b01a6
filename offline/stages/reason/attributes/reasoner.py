"""The attribute reasoner: describes items and users from the corpus alone, in the same schema as the LLM's answers.

It is deterministic and costs nothing. An item's sentences name its category, brand, price tier and distinctive title
terms, and what its buyers take more and less often than others. A user's sentences sum up the last training items. The
module reads a `Corpus` and writes nothing.

Statistics of the catalogue (terms, price tiers, names and neighbours of categories) count only items with training
buyers. So an item without training buyers gets a description and does not change any other item's description.
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
    """The answers by row; None for an item without text and buyers and for a user without training events."""

    items: list[ItemReasoning | None]  # row = item_index
    users: list[UserReasoning | None]  # row = user_index


def reason_from_attributes(corpus: Corpus) -> AttributeReasoning:
    """Describes every item and every user of the corpus."""
    facts = gather_facts(corpus)
    items = [describe_item(fact) for fact in facts]
    users = [
        describe_user([facts[item] for item in corpus.recent(user)], currency=corpus.currency)
        for user in range(len(corpus.histories))
    ]
    return AttributeReasoning(items, users)


def gather_facts(corpus: Corpus) -> list[ItemFacts]:
    """Collects the facts about every item; row = item_index."""
    items, fitted = corpus.items, corpus.in_training()
    paths = [item.categories for item in items]
    categories = name_categories(paths, fitted=fitted)
    tiers = price_tiers([item.price for item in items], paths, fitted=fitted)
    terms = _terms(items, categories, fitted)
    interactions = corpus.interactions()
    num_buyers = interactions.sum(axis=0)
    category_labels = number_labels(_labels_of_fitted(categories, fitted))
    brand_labels = number_labels(_labels_of_fitted([item.brand for item in items], fitted))
    by_category = measure_leaning(interactions, category_labels)
    by_brand = measure_leaning(interactions, brand_labels)
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
            also_bought=_names(by_category, category_labels.names, row, more=True),
            also_bought_brands=_names(by_brand, brand_labels.names, row, more=True),
            seldom_bought=_names(by_category, category_labels.names, row, more=False),
            siblings=siblings[paths[row]],
        )
        for row, item in enumerate(items)
    ]


def _labels_of_fitted(labels: list[str], fitted: list[bool]) -> list[str]:
    return [label if known else "" for label, known in zip(labels, fitted, strict=True)]


def _terms(items: list[Item], categories: list[str], fitted: list[bool]) -> list[tuple[Term, ...]]:
    own_words = [
        f"{item.brand} {category} {' '.join(item.categories)}" for item, category in zip(items, categories, strict=True)
    ]
    return distinctive_terms([item.title for item in items], categories, own_words, fitted=fitted)


def _names(leaning: Leaning, names: list[str], row: int, *, more: bool) -> tuple[str, ...]:
    return tuple(names[label] for label in (leaning.over if more else leaning.under)[row])


def _neighbouring_categories(
    paths: list[tuple[str, ...]], categories: list[str], fitted: list[bool]
) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Returns, for every path, the largest other categories below the same parent."""
    below: dict[tuple[str, ...], list[str]] = {}
    for path, category in zip(paths, _labels_of_fitted(categories, fitted), strict=True):
        below.setdefault(path[:-1], []).append(category)
    neighbours = {}
    for path, category in dict(zip(paths, categories, strict=True)).items():
        others = [name for name in below[path[:-1]] if name != category]
        neighbours[path] = tuple(most_common(others, [1.0] * len(others), NUM_NEIGHBOUR_CATEGORIES))
    return neighbours
