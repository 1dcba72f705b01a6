"""Loads an evaluation split: the users with a held-out item, their histories before it, and the item.

Sessions with a held-out item are a split of their own. They are asked for as the service is asked: by history alone.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from isrf.contract.errors import DataError
from isrf.method.interest import IntArray
from offline.runtime.ingest_report import excluding_types, num_users


class EvaluationSplit(NamedTuple):
    """The users, or users and sessions, of a split with their histories before the held-out item."""

    users: IntArray  # (R,) rows; −1 for a session
    histories: list[list[int]]  # item rows, oldest first
    bought: list[list[int]]  # items of the history that the service takes off the list
    targets: IntArray  # (R,)
    typed: bool  # whether the data has events that leave their item on the list

    @property
    def of_users(self) -> IntArray:
        """Rows of the split that are users."""
        return np.flatnonzero(self.users >= 0)

    @property
    def of_sessions(self) -> IntArray:
        """Rows of the split that are sessions."""
        return np.flatnonzero(self.users < 0)

    def rows(self, chosen: IntArray) -> "EvaluationSplit":
        """The split of some of the users, in the given order."""
        return self._replace(
            users=self.users[chosen],
            histories=[self.histories[row] for row in chosen],
            bought=[self.bought[row] for row in chosen],
            targets=self.targets[chosen],
        )


def load_split(ingest: Path, split: str) -> EvaluationSplit:
    """Loads the split "valid" or "test" of the users from the output of `ingest`.

    Raises:
        DataError: `evaluate.nothing_held_out`, no user has a held-out item.
    """
    owners = load_owners(ingest, split)
    users = owners.rows(owners.of_users)
    if not len(users.users):
        raise DataError(
            "evaluate.nothing_held_out",
            f"the data holds out no {split} interaction.",
            fix="Evaluate data that has users with at least three events and was ingested with --fit train.",
        )
    return users


def load_owners(ingest: Path, split: str) -> EvaluationSplit:
    """Loads a split of all users, then all sessions, with a held-out item; it may be empty."""
    needed = ["valid", "test"] if split == "test" else [split]
    heldout = pl.scan_parquet(ingest / "heldout.parquet").filter(pl.col("split").is_in(needed)).collect()
    columns = ["user_index", "item_index", "event"]
    past = pl.read_parquet(ingest / "train.parquet", columns=columns)
    excludes = pl.col("event").is_in(excluding_types(ingest))
    typed = not (past.select(excludes.all()).item() and heldout.select(excludes.all()).item())
    if split == "test":
        past = pl.concat([past, heldout.filter(pl.col("split") == "valid").select(columns)])
    targets = heldout.filter(pl.col("split") == split).sort("user_index")
    owners = targets["user_index"].to_numpy().astype(np.int64)
    bought = pl.col("item_index").filter(excludes)
    histories = past.group_by("user_index", maintain_order=True).agg("item_index", bought=bought)
    rows = targets.select("user_index").join(histories, on="user_index", how="left", maintain_order="left")
    return EvaluationSplit(
        users=np.where(owners < num_users(ingest), owners, -1),
        histories=rows["item_index"].to_list(),
        bought=rows["bought"].to_list(),
        targets=targets["item_index"].to_numpy().astype(np.int64),
        typed=typed,
    )


def sample_rows(split: EvaluationSplit, count: int, seed: int) -> IntArray:
    """Rows of `count` users of a split, drawn with `seed`, in ascending order; all rows where there are no more."""
    if count >= len(split.users):
        return np.arange(len(split.users))
    return np.sort(np.random.default_rng(seed).choice(len(split.users), count, replace=False))
