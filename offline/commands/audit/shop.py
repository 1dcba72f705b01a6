"""Loads what the audit needs of a shop: training interactions and the held-out events after them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isrf.method.interest import IntArray
from offline.runtime.ingest_report import num_users
from offline.stages.evaluate.split import EvaluationSplit, load_split


class AuditedShop(NamedTuple):
    """The output of `ingest`; row numbers are those of `ingest`."""

    folder: Path
    item_ids: list[str]
    user_ids: list[str]
    users: IntArray  # (T,) training events, by user, then order; rows from `num_users` on are sessions
    items: IntArray  # (T,)
    times: NDArray[np.float64]  # (T,) seconds, NaN where unknown
    weights: NDArray[np.float64]  # (T,)
    valid: EvaluationSplit
    test: EvaluationSplit
    tied: dict[str, NDArray[np.bool_]]  # per split (R,): the held-out event has the time of the one before it

    @property
    def num_items(self) -> int:
        return len(self.item_ids)

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    def splits(self) -> dict[str, EvaluationSplit]:
        """Returns the splits by name, as in `tied`."""
        return {"valid": self.valid, "test": self.test}

    def training(self) -> list[list[int]]:
        """Returns every user's training items, oldest first."""
        stops = np.cumsum(np.bincount(self.users, minlength=self.num_users))[: self.num_users]
        return [part.tolist() for part in np.split(self.items, stops)[: self.num_users]]

    def held_out(self) -> tuple[IntArray, IntArray]:
        """Returns user and item rows of the held-out interactions that do not repeat the user's training events."""
        users = np.concatenate([self.valid.users, self.test.users])
        items = np.concatenate([self.valid.targets, self.test.targets])
        known = np.isin(users * self.num_items + items, self.users * self.num_items + self.items)
        return users[~known], items[~known]


def load_shop(ingest: Path) -> AuditedShop:
    """Reads the output of `ingest`."""
    train = pl.read_parquet(ingest / "train.parquet", columns=["user_index", "item_index", "timestamp", "weight"])
    return AuditedShop(
        folder=ingest,
        item_ids=pl.read_parquet(ingest / "items.parquet", columns=["item_id"])["item_id"].to_list(),
        user_ids=pl.read_parquet(ingest / "users.parquet")["user_id"].to_list(),
        users=train["user_index"].to_numpy().astype(np.int64),
        items=train["item_index"].to_numpy().astype(np.int64),
        times=train["timestamp"].cast(pl.Float64).to_numpy(),
        weights=train["weight"].to_numpy(),
        valid=load_split(ingest, "valid"),
        test=load_split(ingest, "test"),
        tied=_tied(train, _of_users(pl.read_parquet(ingest / "heldout.parquet"), ingest)),
    )


def _of_users(events: pl.DataFrame, ingest: Path) -> pl.DataFrame:
    return events.filter(pl.col("user_index") < num_users(ingest))


def _tied(train: pl.DataFrame, heldout: pl.DataFrame) -> dict[str, NDArray[np.bool_]]:
    """Returns, per split, which events have the timestamp of the event before; none without timestamps."""
    last = train.group_by("user_index").agg(last=pl.col("timestamp").last())
    by_split = {split: heldout.filter(pl.col("split") == split).sort("user_index") for split in ("valid", "test")}
    before = {
        "valid": by_split["valid"].join(last, on="user_index", how="left", maintain_order="left")["last"],
        "test": by_split["valid"]["timestamp"],  # every user with a test event has a validation event
    }
    return {split: (by_split[split]["timestamp"] == before[split]).fill_null(False).to_numpy() for split in by_split}
