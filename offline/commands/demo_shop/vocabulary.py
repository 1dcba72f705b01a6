"""Reads the demo shop's vocabulary: departments, brands, leaf categories and the parts of product titles.

The words are data: one TOML file per department in `departments/`.
"""

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

_FOLDER = Path(__file__).with_name("departments")
_ORDER = ("outdoor", "kitchen", "electronics", "sports", "home", "hobbies")
"""The generator uses this order; another order makes another shop."""


class Trait(NamedTuple):
    """A property of a product: a word for the title and a sentence that explains it."""

    name: str
    sentence: str


class Leaf(NamedTuple):
    """A leaf category. A title is the brand and a noun whose placeholder holds the trait."""

    name: str
    slug: str  # prefix of the item ids
    prices: tuple[float, float]  # of the cheapest and the most expensive noun in the middle tier
    nouns: tuple[str, ...]  # cheapest first
    traits: tuple[Trait, ...]
    features: tuple[str, ...]
    misfits: tuple[tuple[str, str], ...] = ()  # a trait and a part of the nouns that it does not fit


class Department(NamedTuple):
    """A department with two brands in each price tier: budget, middle, premium."""

    name: str
    brands: tuple[tuple[str, str], tuple[str, str], tuple[str, str]]
    leaves: tuple[Leaf, ...]


def read_departments() -> tuple[Department, ...]:
    """Returns the six departments of the demo shop."""
    return tuple(_department(tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))) for name in _ORDER)


def _department(fields: dict[str, Any]) -> Department:
    budget, middle, premium = (_pair(brands) for brands in fields["brands"])
    return Department(fields["name"], (budget, middle, premium), tuple(_leaf(leaf) for leaf in fields["leaves"]))


def _leaf(fields: dict[str, Any]) -> Leaf:
    return Leaf(
        fields["name"],
        fields["slug"],
        _pair(fields["prices"]),
        nouns=tuple(fields["nouns"]),
        traits=tuple(Trait(name, sentence) for name, sentence in fields["traits"].items()),
        features=tuple(fields["features"]),
        misfits=tuple(_pair(misfit) for misfit in fields.get("misfits", ())),
    )


def _pair(values: list[Any]) -> tuple[Any, Any]:
    first, second = values
    return first, second
