"""Caches the rules of placements as masks, where no condition reads the time or the user."""

from typing import NamedTuple
from weakref import WeakKeyDictionary

from cachetools import LRUCache

from isrf.contract.errors import RequestError
from service.recommend.placements.active_rules import ActiveRules, pins_at, read_the_request
from service.recommend.placements.placement import Placement
from service.release.catalogue import Catalogue

MOST_PLACEMENTS = 64


class _Cached(NamedTuple):
    placement: Placement
    counting: tuple[int, ...]  # pins_at
    active: ActiveRules


class RulesCache:
    """The active rules of the placements that were asked for last, by version of the catalogue."""

    def __init__(self) -> None:
        self._of_catalogue: WeakKeyDictionary[Catalogue, LRUCache[int, _Cached]] = WeakKeyDictionary()

    def get(self, placement: Placement, catalogue: Catalogue, now_s: float) -> ActiveRules | None:
        """Returns the rules as they count at a moment, where they are cached."""
        known = self._of_catalogue.get(catalogue)
        found = None if known is None else known.get(id(placement))
        if found is None or found.placement is not placement or found.counting != pins_at(placement.rules, now_s):
            return None
        return found.active

    def keep(self, placement: Placement, catalogue: Catalogue, now_s: float, active: ActiveRules) -> None:
        """Caches the rules, unless they hold for one call alone."""
        try:
            if read_the_request(placement.rules, catalogue):
                return
        except RequestError:  # a rule that is left out
            return
        known = self._of_catalogue.setdefault(catalogue, LRUCache(MOST_PLACEMENTS))
        known[id(placement)] = _Cached(placement, pins_at(placement.rules, now_s), active)
