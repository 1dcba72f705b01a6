"""The types of the demo shop's words: departments, their brands, leaf categories and what their products are called."""

from typing import NamedTuple


class Trait(NamedTuple):
    """What sets a product apart: a word for its title and the sentence that explains it."""

    name: str
    sentence: str


class Leaf(NamedTuple):
    """A leaf category. A title is brand + noun with the trait in its gap."""

    name: str
    slug: str  # begins the item ids
    prices: tuple[float, float]  # of the cheapest and the dearest noun in the middle tier
    nouns: tuple[str, ...]  # cheapest first
    traits: tuple[Trait, ...]
    features: tuple[str, ...]
    misfits: tuple[tuple[str, str], ...] = ()  # a trait and a part of the nouns that it does not go with


class Department(NamedTuple):
    """A department with two brands in each price tier: budget, middle, premium."""

    name: str
    brands: tuple[tuple[str, str], tuple[str, str], tuple[str, str]]
    leaves: tuple[Leaf, ...]
