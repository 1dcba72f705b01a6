"""Finds phrases that items, or similar users, have in common, in the texts of the release's reasoner.

Only phrases that several similar users share (`LEAST_USERS`) leave the service, so that they identify no user.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import polars as pl

from isrf.contract.errors import BundleError
from isrf.contract.manifest import USER_REASONING_FILE
from isrf.method.text.phrases import PhraseTable, background, common_phrases, phrases
from isrf.runtime.bundle.reader import Bundle
from isrf.runtime.bundle.refusals import PUBLISH
from isrf.runtime.bundle.tables import table_of
from service.release.catalogue import LEAST_USERS, Catalogue

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
