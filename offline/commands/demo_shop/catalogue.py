"""Makes the demo shop's products from its departments' vocabulary and a seeded random generator."""

import random
from typing import NamedTuple

from offline.commands.demo_shop.groups import ACCESSORIES
from offline.commands.demo_shop.vocabulary import Department, Leaf, Trait, read_departments

PRODUCTS_PER_LEAF = 17
COMPANIONS_PER_PRODUCT = 2
_TIER_PRICES = (0.75, 1.0, 1.4)


class Product(NamedTuple):
    """A product: the fields that the shop lists, and what the simulation of shoppers needs."""

    item_id: str
    title: str
    brand: str
    categories: tuple[str, str]  # department, leaf
    description: str
    price: float
    tier: int
    popularity: float  # a base weight, before a shopper's taste changes it

    @property
    def leaf(self) -> str:
        return self.categories[1]


def make_products(rng: random.Random) -> list[Product]:
    """Returns all products, leaf category by leaf category."""
    return [
        product
        for department in read_departments()
        for leaf in department.leaves
        for product in _make_leaf(department, leaf, rng)
    ]


def pair_companions(products: list[Product], rng: random.Random) -> dict[str, list[Product]]:
    """Returns the products often bought right after another: item_id → a few products of its accessory category."""
    by_leaf: dict[str, list[Product]] = {}
    for product in products:
        by_leaf.setdefault(product.leaf, []).append(product)
    return {
        product.item_id: rng.sample(by_leaf[ACCESSORIES[product.leaf]], COMPANIONS_PER_PRODUCT)
        for product in products
        if product.leaf in ACCESSORIES
    }


def _make_leaf(department: Department, leaf: Leaf, rng: random.Random) -> list[Product]:
    numbers = rng.sample(range(100, 1000), PRODUCTS_PER_LEAF)
    designs = rng.sample(_designs(leaf), PRODUCTS_PER_LEAF)
    leaf_popularity = rng.uniform(0.6, 1.6)
    products = []
    for rank, (number, (level, trait)) in enumerate(zip(numbers, designs, strict=True)):
        tier = rng.randrange(3)
        brand = rng.choice(department.brands[tier])
        products.append(
            Product(
                item_id=f"{leaf.slug}-{number}",
                title=f"{brand} {leaf.nouns[level].format(trait.name)}",
                brand=brand,
                categories=(department.name, leaf.name),
                description=f"{trait.sentence} {rng.choice(leaf.features)}",
                price=_price(leaf, level, tier, rng),
                tier=tier,
                popularity=leaf_popularity / (rank + 1) ** 0.8,
            )
        )
    return products


def _designs(leaf: Leaf) -> list[tuple[int, Trait]]:
    return [
        (level, trait)
        for level, noun in enumerate(leaf.nouns)
        for trait in leaf.traits
        if not any(trait.name == misfit and part in noun for misfit, part in leaf.misfits)
    ]


def _price(leaf: Leaf, level: int, tier: int, rng: random.Random) -> float:
    low, high = leaf.prices
    middle: float = low * (high / low) ** (level / (len(leaf.nouns) - 1))
    return max(round(middle * _TIER_PRICES[tier] * rng.uniform(0.93, 1.07)), 2) - 0.01
