"""Rules are read once for many calls, and anew for each call that they depend on."""

from pathlib import Path
from typing import Any

import pytest

from service.recommend.placements.active_rules import active_rules
from service.recommend.placements.coded_values import CodedColumns
from service.recommend.placements.placement import Placement
from service.recommend.placements.rules_cache import RulesCache
from service.release.catalogue import Catalogue
from service.release.conditions import RequestValues
from service.release.opening import open_release

BOOST = {"boost": {"where": "price < 10", "by": 2}}
PIN = {"pin": {"where": "price > 10", "place": 1, "from": "2026-01-01T00:00:00Z"}}
BEFORE_S, AFTER_S = 1_000_000_000.0, 1_900_000_000.0


@pytest.fixture(scope="module")
def catalogue(tiny_release: Path) -> Catalogue:
    return open_release(tiny_release).catalogue


def placement(*rules: dict[str, Any]) -> Placement:
    return Placement.model_validate({"kind": "popular", "rules": list(rules)})


def cached(cache: RulesCache, one: Placement, catalogue: Catalogue, now_s: float = BEFORE_S) -> bool:
    """Whether a second call finds what the first one read."""
    active = active_rules(one.rules, catalogue, RequestValues(now_s=now_s), CodedColumns())
    cache.keep(one, catalogue, now_s, active)
    return cache.get(one, catalogue, now_s) is active


def test_rules_of_items_alone_are_read_once(catalogue: Catalogue) -> None:
    cache, one = RulesCache(), placement(BOOST, {"at_most": {"attribute": "brand", "count": 1}})
    assert cached(cache, one, catalogue)
    assert cache.get(placement(BOOST), catalogue, BEFORE_S) is None


def test_a_pin_that_comes_is_read_anew(catalogue: Catalogue) -> None:
    cache, one = RulesCache(), placement(BOOST, PIN)
    assert cached(cache, one, catalogue)
    assert cache.get(one, catalogue, AFTER_S) is None


@pytest.mark.parametrize("where", ["user.bought", "price < 10 OR user.disliked", "price < now", "no_column = 3"])
def test_rules_of_a_call_are_read_in_each(catalogue: Catalogue, where: str) -> None:
    assert not cached(RulesCache(), placement(BOOST, {"boost": {"where": where, "by": 2}}), catalogue)


def test_the_cache_is_bounded_by_bytes(catalogue: Catalogue) -> None:
    one, other = placement(BOOST), placement({"at_least": {"where": "price > 5", "count": 1}})
    both = RulesCache(2 * (1024 + 5 * len(catalogue)))
    assert cached(both, one, catalogue)
    assert cached(both, other, catalogue)
    assert both.get(one, catalogue, BEFORE_S) is not None
    for_one = RulesCache(1024 + 5 * len(catalogue))
    assert cached(for_one, one, catalogue), "a byte of the mask and four of the sum of the boosts for each item"
    assert cached(for_one, other, catalogue)
    assert for_one.get(one, catalogue, BEFORE_S) is None
    assert not cached(RulesCache(1023 + 5 * len(catalogue)), one, catalogue)


def test_another_catalogue_has_rules_of_its_own(catalogue: Catalogue, tiny_release: Path) -> None:
    cache, one = RulesCache(), placement(BOOST)
    assert cached(cache, one, catalogue)
    assert cache.get(one, open_release(tiny_release).catalogue, BEFORE_S) is None
