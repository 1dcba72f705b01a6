"""Finds what items, or similar users, have in common: phrases of the reasoner's texts, categories and brands.

Only phrases that several similar users share (`LEAST_USERS`) leave the service, so that they identify no user.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl

from isrf.contract.errors import BundleError
from isrf.contract.manifest import USER_REASONING_FILE
from isrf.method.text.phrases import PhraseTable, background, common_phrases, phrases
from isrf.runtime.bundle.reader import Bundle
from isrf.runtime.bundle.refusals import PUBLISH
from isrf.runtime.bundle.tables import table_of
from service.release.catalogue import LEAST_USERS, Catalogue, ItemLine

SAMPLED_TEXTS = 2000
"""How many items and users, spread evenly over the rows, give the phrases that texts in general have."""
REMEMBERED = 4096
"""How many texts' phrases are cached."""


class Wording:
    """The reasoner's texts of one release; threads may share it."""

    def __init__(self, catalogue: Catalogue, cores: pl.Series) -> None:
        """cores: (U,) the users' core preferences; empty where the release has none."""
        self._catalogue, self._cores = catalogue, cores
        items = catalogue.items
        self._items_in_general = background(_without_empty(items[row].feature for row in _sample(len(items))))
        self._users_in_general = background(_without_empty(cores[row] for row in _sample(len(cores))))
        self._phrases = lru_cache(maxsize=REMEMBERED)(phrases)

    def common(self, first: int, second: int, *, limit: int) -> list[str]:
        """Returns phrases that the semantic features of two items (rows) share."""
        items = self._catalogue.items
        # An item that is newer than the release has no semantic feature.
        found = [self._phrases((items[row].feature or "") if row < len(items) else "") for row in (first, second)]
        return common_phrases(found[0], found[1], self._items_in_general, limit=limit)

    def group(self, users: Sequence[int]) -> PhraseTable:
        """Returns the phrases that the core preferences of similar users (rows) share; unknown users have none."""
        texts = [(self._cores[user] or "") if user < len(self._cores) else "" for user in users]
        return PhraseTable([self._phrases(text) for text in texts], self._users_in_general, at_least=LEAST_USERS)


def _sample(count: int) -> range:
    return range(0, count, max(1, count // SAMPLED_TEXTS))


def _without_empty(texts: Iterable[str | None]) -> Iterable[str]:
    return (text for text in texts if text)


def read_cores(parts: Bundle) -> pl.Series:
    """Reads the users' core preferences of a verified release; empty where the release has none."""
    name, num_users = USER_REASONING_FILE, parts.manifest.counts.num_users
    if name not in parts.contents:
        return pl.Series(dtype=pl.String)
    columns = {"user_index": pl.Int64, "core": pl.String}
    table = table_of(name, parts.take(name), columns, most_rows=num_users).sort("user_index")
    if not np.array_equal(table["user_index"].to_numpy(), np.arange(num_users)):
        raise BundleError(
            "bundle.array_mismatch", f"{name} has {len(table)} rows, the manifest says {num_users}.", fix=PUBLISH
        )
    return table["core"]


def words(items: Iterable[ItemLine], *, limit: int) -> list[dict[str, Any]]:
    """Returns what items have in common, most frequent first: their categories, else their brands.

    Returns:
        `{"words", "items"}`: the shared word, and how many of the items have it.
    """
    best = sorted(_word_counts(items).items(), key=lambda pair: (-pair[1], pair[0]))[:limit]
    return [{"words": name, "items": count} for name, count in best]


def group_words(histories: Iterable[Iterable[ItemLine]], *, limit: int) -> list[dict[str, Any]]:
    """Returns words that the items of at least `LEAST_USERS` users share, those of most users first.

    Args:
        histories: each user's items, each item once.
        limit: number of words at most.

    Returns:
        As `words`; an item counts for each user who has it.
    """
    users: dict[str, int] = {}
    counts: dict[str, int] = {}
    for items in histories:
        for name, count in _word_counts(items).items():
            users[name] = users.get(name, 0) + 1
            counts[name] = counts.get(name, 0) + count
    shared = [name for name in users if users[name] >= LEAST_USERS]
    best = sorted(shared, key=lambda name: (-users[name], -counts[name], name))[:limit]
    return [{"words": name, "items": counts[name]} for name in best]


def _word_counts(items: Iterable[ItemLine]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in items:
        for name in dict.fromkeys(item.categories or ([item.brand] if item.brand else [])):
            counts[name] = counts.get(name, 0) + 1
    return counts
