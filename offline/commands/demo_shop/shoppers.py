"""Simulates the demo shop's shoppers and records their planted interests, which only tests may read.

A shopper belongs to a hidden group, whose members share some categories. One of these, the planted category, does not
occur in the shopper's history, but other members buy from it. For some shoppers the last event, which is held out, is
in the planted category. Only the group predicts it, the shopper's own history does not.
"""

import random
from datetime import UTC, datetime
from typing import NamedTuple

from offline.commands.demo_shop.catalogue import Product, pair_companions
from offline.commands.demo_shop.groups import GROUPS, Group

FIRST_DAY = int(datetime(2024, 9, 1, tzinfo=UTC).timestamp())
NUM_DAYS = 365
MIN_EVENTS, MAX_EVENTS = 5, 20
PLANTED_SHARE = 0.4  # of the shoppers have their last event in the planted category
COMPANION_SHARE = 0.4  # of the events buy an accessory of the last product
NOISE_SHARE = 0.08
DISCOVER_SHARE, RETURN_SHARE = 0.35, 0.25  # of the other events: the next leaf of the route, a known leaf
NEW_SESSION_SHARE = 0.6
STAPLES_PER_GROUP = 2  # per leaf: products that most of the group buys
STAPLE_WEIGHT = 12.0
_DAY_S = 86_400


class PlantedInterest(NamedTuple):
    """The planted interest of one shopper."""

    user_id: str
    group: str
    untouched_category: str  # the group's leaf category in which the shopper has no event before the last one
    last_event_in_it: bool


class DemoEvent(NamedTuple):
    """One row of the interactions file."""

    timestamp: int
    user_id: str
    item_id: str
    event: str


class _Taste(NamedTuple):
    """The preferences that weight one shopper's choices."""

    group: Group
    planted: str
    route: list[str]  # the group's other leaves, in the order in which this shopper discovers them
    tier: int
    brands: frozenset[str]


class DemoShop:
    """Simulates visits to one shop; all calls draw from one random generator, so their order matters."""

    def __init__(self, products: list[Product], rng: random.Random) -> None:
        self._rng = rng
        self._products = products
        self._by_leaf: dict[str, list[Product]] = {}
        for product in products:
            self._by_leaf.setdefault(product.leaf, []).append(product)
        self._brands = sorted({product.brand for product in products})
        self._companions = pair_companions(products, rng)
        self._staples = {
            group.name: frozenset(
                product.item_id
                for leaf in group.leaves
                for product in rng.sample(self._by_leaf[leaf], STAPLES_PER_GROUP)
            )
            for group in GROUPS
        }
        self._taken_seconds: set[int] = set()

    def visit(self, user_id: str, group: Group) -> tuple[list[DemoEvent], PlantedInterest]:
        """Returns one shopper's events of a year and the planted interest."""
        rng, taste = self._rng, self._taste(group)
        num_events = MIN_EVENTS + min(MAX_EVENTS - MIN_EVENTS, int(rng.expovariate(1 / 5)))
        last_in_planted = rng.random() < PLANTED_SHARE
        basket: list[Product] = []
        for number in range(num_events):
            if last_in_planted and number == num_events - 1:
                basket.append(self._pick(self._by_leaf[taste.planted], taste, basket))
            else:
                basket.append(self._next(taste, basket))
        kinds = rng.choices(("purchase", "view", "cart"), weights=(82, 11, 7), k=num_events - 1)
        times = self._times(num_events)
        events = [
            DemoEvent(timestamp, user_id, product.item_id, kind)
            for timestamp, product, kind in zip(times, basket, [*kinds, "purchase"], strict=True)
        ]
        return events, PlantedInterest(user_id, group.name, taste.planted, last_in_planted)

    def _taste(self, group: Group) -> _Taste:
        rng = self._rng
        planted = rng.choice(group.leaves)
        leaves = [leaf for leaf in group.leaves if leaf != planted]
        return _Taste(
            group=group,
            planted=planted,
            route=rng.sample(leaves, len(leaves)),
            tier=group.tier if rng.random() < 0.7 else rng.randrange(3),
            brands=frozenset(rng.sample(self._brands, len(self._brands) // 3)),
        )

    def _next(self, taste: _Taste, basket: list[Product]) -> Product:
        rng = self._rng
        if basket and rng.random() < COMPANION_SHARE:
            companions = self._companions.get(basket[-1].item_id, [])
            fitting = [p for p in companions if p not in basket and p.leaf != taste.planted]
            if fitting:
                return rng.choice(fitting)
        if rng.random() < NOISE_SHARE:
            return self._pick([p for p in self._products if p.leaf != taste.planted], taste, basket)
        return self._pick(self._by_leaf[self._next_leaf(taste.route, basket)], taste, basket)

    def _next_leaf(self, route: list[str], basket: list[Product]) -> str:
        """Returns the next category: the same one, a known one, or the next new one of the route."""
        visited = [product.leaf for product in basket if product.leaf in route]
        known = [leaf for leaf in route if leaf in visited]
        new = [leaf for leaf in route if leaf not in visited]
        draw = self._rng.random()
        if new and (not known or draw < DISCOVER_SHARE):
            return new[0]
        return self._rng.choice(known) if draw < DISCOVER_SHARE + RETURN_SHARE else visited[-1]

    def _pick(self, shelf: list[Product], taste: _Taste, basket: list[Product]) -> Product:
        taken = {product.item_id for product in basket}
        shelf = [product for product in shelf if product.item_id not in taken]
        staples = self._staples[taste.group.name]
        weights = [
            product.popularity
            * (1.0, 0.35, 0.15)[abs(product.tier - taste.tier)]
            * (1.8 if product.brand in taste.brands else 1.0)
            * (STAPLE_WEIGHT if product.item_id in staples else 1.0)
            for product in shelf
        ]
        return self._rng.choices(shelf, weights=weights)[0]

    def _times(self, num_events: int) -> list[int]:
        """Returns rising seconds, unique in the shop: evenings on some days, minutes apart within a visit."""
        rng = self._rng
        opens = [True, *(rng.random() < NEW_SESSION_SHARE for _ in range(num_events - 1))]
        first_day = rng.randrange(NUM_DAYS * 2 // 3)
        days = iter(sorted(rng.sample(range(first_day, NUM_DAYS), sum(opens))))
        times: list[int] = []
        for opens_visit in opens:
            if opens_visit:
                second = FIRST_DAY + next(days) * _DAY_S + int(rng.triangular(7 * 3600, 23 * 3600, 20 * 3600))
            else:
                second = times[-1] + rng.randint(40, 900)
            while second in self._taken_seconds:
                second += 1
            self._taken_seconds.add(second)
            times.append(second)
        return times
