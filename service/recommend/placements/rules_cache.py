"""Caches the rules of placements as masks, where no condition reads the time or the user."""

from typing import NamedTuple
from weakref import WeakKeyDictionary

from cachetools import LRUCache

from isrf.contract.errors import RequestError
from service.recommend.placements.active_rules import ActiveRules, pins_at, read_the_request
from service.recommend.placements.placement import Placement
from service.release.catalogue import Catalogue

MAX_BYTES = 16 * 1024 * 1024
"""Of one version of the catalogue; a placement whose rules take more is read in each call."""
_LEAST_BYTES = 1024
"""What an entry takes beside its masks."""


class _Cached(NamedTuple):
    placement: Placement
    counting: tuple[int, ...]  # pins_at
    active: ActiveRules
    num_bytes: int


class RulesCache:
    """The active rules of the placements that were asked for last, by version of the catalogue."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
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
        num_bytes = _LEAST_BYTES + active.num_bytes
        if num_bytes > self._max_bytes:
            return
        known = self._of_catalogue.setdefault(catalogue, LRUCache(self._max_bytes, getsizeof=lambda one: one.num_bytes))
        known[id(placement)] = _Cached(placement, pins_at(placement.rules, now_s), active, num_bytes)
