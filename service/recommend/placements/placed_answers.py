"""Caches the answers of placements that allow it, for as long as they allow, within a bound of memory."""

from dataclasses import replace
from typing import NamedTuple

import orjson
from cachetools import LRUCache

from service.recommend.placements.placed_query import PlacedQuery
from service.recommend.query_models import Answer

MAX_BYTES = 32 * 1024 * 1024
_LEAST_BYTES = 2048
"""What key and answer take without their lists."""
_ITEM_BYTES, _ID_BYTES = 250, 60
"""Of an item of an answer; of an id beside its characters."""
_OBJECT_TIMES = 6
"""How many times the bytes of its JSON an object of lists and dictionaries takes."""


class PlacedKey(NamedTuple):
    """Everything that a placement's answer depends on, but for live evidence, which `cache_s` lets stand still."""

    asked: PlacedQuery
    others: tuple[object, ...]


class _Kept(NamedTuple):
    answer: Answer
    made_s: float
    given_s: float
    num_bytes: int


class PlacedAnswers:
    """The cached answers of one release in this process."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._kept: LRUCache[PlacedKey, _Kept] = LRUCache(max_bytes, getsizeof=lambda kept: kept.num_bytes)

    @property
    def num_bytes(self) -> int:
        """Estimated bytes of all cached answers."""
        return int(self._kept.currsize)

    def get(self, key: PlacedKey, now_s: float) -> Answer | None:
        """Returns a cached answer that may still be given."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if 0 <= now_s - kept.made_s < kept.given_s:
            return kept.answer
        del self._kept[key]
        return None

    def keep(self, key: PlacedKey, answer: Answer, *, made_s: float, given_s: float, bytes_of_key: int = 0) -> None:
        """Caches an answer for so long; one that is larger than all of the cache is left out.

        Args:
            bytes_of_key: of texts in `key.others`.
        """
        kept = replace(answer, interests=None)  # its reasons are made already
        num_bytes = estimated_bytes(key.asked, kept) + bytes_of_key
        if num_bytes <= self._kept.maxsize:
            self._kept[key] = _Kept(kept, made_s, given_s, num_bytes)

    def forget(self, user_id: str) -> None:
        """Drops the answers of a user."""
        for key in [key for key in self._kept if key.asked.user_id == user_id]:
            del self._kept[key]


def estimated_bytes(asked: PlacedQuery, answer: Answer) -> int:
    """Estimates what a cached answer takes, its key included, to the larger side."""
    ids = (*asked.given, *asked.session, asked.user_id or "")
    found = _LEAST_BYTES + _ITEM_BYTES * len(answer.items) + sum(_ID_BYTES + 4 * len(one) for one in ids)
    return found + _OBJECT_TIMES * len(orjson.dumps((answer.warnings, answer.reasons, answer.moves)))
