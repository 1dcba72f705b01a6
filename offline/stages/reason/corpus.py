"""Reads what the reasoners may use: the catalogue and the training events, never the held-out events.

It knows the ingest stage's tables. It knows nothing of the reasoners.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from offline.runtime.ingest_report import num_users

HISTORY_LENGTH = 20
"""The reasoners use at most this many training items of a user, the most recent ones (the method's paper)."""


class Item(NamedTuple):
    """One catalogue row; a missing text is empty, a missing price is None."""

    title: str
    brand: str
    categories: tuple[str, ...]
    description: str
    price: float | None


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The catalogue and the training histories; row of `items` = item_index, row of `histories` = user_index.

    Sessions tell what is taken together. Nothing is written about them.
    """

    items: list[Item]
    histories: list[NDArray[np.int64]]  # per user: training items, oldest first
    currency: str
    sessions: list[NDArray[np.int64]] = field(default_factory=list)  # per session, likewise

    def recent(self, user: int) -> list[int]:
        """Returns a user's last `HISTORY_LENGTH` distinct training items, most recent first."""
        newest_first: dict[int, None] = dict.fromkeys(self.histories[user][::-1].tolist())
        return list(newest_first)[:HISTORY_LENGTH]

    def in_training(self) -> list[bool]:
        """Returns, per item, whether anybody took it in training; statistics are fitted on these items alone."""
        taken = set(np.concatenate([np.zeros(0, dtype=np.int64), *self.histories, *self.sessions]).tolist())
        return [row in taken for row in range(len(self.items))]

    def interactions(self) -> sparse.csr_array:
        """Returns the matrix of users, then sessions, and items: 1 where one took the item in training, float32."""
        histories = [*self.histories, *self.sessions]
        users = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
        items = np.concatenate([np.zeros(0, dtype=np.int64), *histories])
        shape = (len(histories), len(self.items))
        matrix = sparse.coo_array((np.ones(len(items), dtype=np.float32), (users, items)), shape=shape).tocsr()
        matrix.data[:] = 1.0
        return matrix


def read_corpus(ingest: Path, *, currency: str) -> Corpus:
    """Reads the ingest stage's items, users and training events."""
    table = pl.read_parquet(ingest / "items.parquet", columns=["title", "brand", "categories", "description", "price"])
    items = [
        Item(_clean(title), _clean(brand), _clean_path(categories), _clean(description), price)
        for title, brand, categories, description, price in table.iter_rows()
    ]
    train = pl.read_parquet(ingest / "train.parquet", columns=["user_index", "item_index"])
    users = train["user_index"].to_numpy().astype(np.int64)
    taken = train["item_index"].to_numpy().astype(np.int64)
    count = num_users(ingest)
    histories = np.split(taken, np.cumsum(np.bincount(users, minlength=count))[:-1])
    return Corpus(items=items, histories=histories[:count], currency=currency, sessions=histories[count:])


def _clean(text: str | None) -> str:
    return " ".join(text.split()) if text else ""


def _clean_path(categories: list[str | None] | None) -> tuple[str, ...]:
    cleaned = (_clean(category) for category in categories or ())
    return tuple(category for category in cleaned if category)
