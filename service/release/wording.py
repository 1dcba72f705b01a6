"""What a release's reasoner wrote of items and users, as explanations use it: what items, or a group, have in common.

Of a user's text nothing leaves but phrases that several similar users share (`LEAST_USERS`): none can be told apart.
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
"""Items and users, evenly over the rows, by which it is known what texts in general say."""
REMEMBERED = 4096
"""Texts whose phrases are kept."""


class Wording:
    """Of one release; threads may share it."""

    def __init__(self, catalogue: Catalogue, cores: pl.Series) -> None:
        """`cores` (U,) are the users' core preferences; empty where the release tells none."""
        self._catalogue, self._cores = catalogue, cores
        items = catalogue.items
        self._items_in_general = background(_told(items[row].feature for row in _sample(len(items))))
        self._users_in_general = background(_told(cores[row] for row in _sample(len(cores))))
        self._phrases = lru_cache(maxsize=REMEMBERED)(phrases)

    def common(self, one: int, other: int, *, limit: int) -> list[str]:
        """What the semantic features of two items (rows) both say."""
        items = self._catalogue.items
        # Of an item that came since the release no reasoner wrote.
        said = [self._phrases((items[row].feature or "") if row < len(items) else "") for row in (one, other)]
        return common_phrases(said[0], said[1], self._items_in_general, limit=limit)

    def group(self, users: Sequence[int]) -> PhraseTable:
        """What the core preferences of similar users (rows) share; those whom the release does not know say nothing."""
        texts = [(self._cores[user] or "") if user < len(self._cores) else "" for user in users]
        return PhraseTable([self._phrases(text) for text in texts], self._users_in_general, at_least=LEAST_USERS)


def _sample(count: int) -> range:
    return range(0, count, max(1, count // SAMPLED_TEXTS))


def _told(texts: Iterable[str | None]) -> Iterable[str]:
    return (text for text in texts if text)


def read_cores(parts: Bundle) -> pl.Series:
    """The users' core preferences in a verified release; none of a release that does not tell them."""
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
