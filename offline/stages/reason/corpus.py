"""What reasoning may read: the catalogue and the training events, never the held-out ones.

It knows the ingest stage's tables and nothing of what is reasoned from them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

HISTORY_LENGTH = 20
"""Training items a user is reasoned from, most recent first (the method's paper)."""


class Item(NamedTuple):
    """A catalogue row; a missing text is empty, a missing price None."""

    title: str
    brand: str
    categories: tuple[str, ...]
    description: str
    price: float | None


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Row of `items` = item_index, of `histories` = user_index."""

    items: list[Item]
    histories: list[NDArray[np.int64]]  # per user: training items, oldest first
    currency: str

    def recent(self, user: int) -> list[int]:
        """A user's last `HISTORY_LENGTH` distinct training items, most recent first."""
        newest_first: dict[int, None] = dict.fromkeys(self.histories[user][::-1].tolist())
        return list(newest_first)[:HISTORY_LENGTH]

    def in_training(self) -> list[bool]:
        """Per item whether anybody took it in training: what anything may be fitted on."""
        taken = set(np.concatenate([np.zeros(0, dtype=np.int64), *self.histories]).tolist())
        return [row in taken for row in range(len(self.items))]

    def interactions(self) -> sparse.csr_array:
        """(U, N) float32, 1 where the user took the item in training."""
        lengths = [len(history) for history in self.histories]
        users = np.repeat(np.arange(len(self.histories)), lengths)
        items = np.concatenate([np.zeros(0, dtype=np.int64), *self.histories])
        shape = (len(self.histories), len(self.items))
        taken = sparse.coo_array((np.ones(len(items), dtype=np.float32), (users, items)), shape=shape).tocsr()
        taken.data[:] = 1.0
        return taken


def read_corpus(ingest: Path, *, currency: str) -> Corpus:
    """Reads the ingest stage's items, users and training events."""
    table = pl.read_parquet(ingest / "items.parquet", columns=["title", "brand", "categories", "description", "price"])
    items = [
        Item(_clean(title), _clean(brand), _clean_path(categories), _clean(description), price)
        for title, brand, categories, description, price in table.iter_rows()
    ]
    num_users = pl.scan_parquet(ingest / "users.parquet").select(pl.len()).collect().item()
    train = pl.read_parquet(ingest / "train.parquet", columns=["user_index", "item_index"])
    users = train["user_index"].to_numpy().astype(np.int64)
    taken = train["item_index"].to_numpy().astype(np.int64)
    histories = np.split(taken, np.cumsum(np.bincount(users, minlength=num_users))[:-1])
    return Corpus(items=items, histories=histories, currency=currency)


def _clean(text: str | None) -> str:
    return " ".join(text.split()) if text else ""


def _clean_path(categories: list[str | None] | None) -> tuple[str, ...]:
    cleaned = (_clean(category) for category in categories or ())
    return tuple(category for category in cleaned if category)
