"""Who a split can be asked about: histories before a held-out item, and that item."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from isrf.contract.errors import DataError
from isrf.method.interest import IntArray
from offline.stages.ingest.report import excluding_types


class EvaluationSplit(NamedTuple):
    """The users that a split can ask about, with everything before their held-out item."""

    users: IntArray  # (R,)
    histories: list[list[int]]  # item rows, oldest first
    bought: list[list[int]]  # those of the history that the service takes off the list
    targets: IntArray  # (R,)
    typed: bool  # whether some event of the data leaves its item on the list

    def rows(self, kept: IntArray) -> "EvaluationSplit":
        """The part of some of the users, in the given order."""
        return self._replace(
            users=self.users[kept],
            histories=[self.histories[row] for row in kept],
            bought=[self.bought[row] for row in kept],
            targets=self.targets[kept],
        )


def load_split(ingest: Path, split: str) -> EvaluationSplit:
    """Histories and held-out items of `split` ("valid" or "test") from ingest's output."""
    needed = ["valid", "test"] if split == "test" else [split]
    heldout = pl.scan_parquet(ingest / "heldout.parquet").filter(pl.col("split").is_in(needed)).collect()
    columns = ["user_index", "item_index", "event"]
    past = pl.read_parquet(ingest / "train.parquet", columns=columns)
    excludes = pl.col("event").is_in(excluding_types(ingest))
    typed = not (past.select(excludes.all()).item() and heldout.select(excludes.all()).item())
    if split == "test":
        past = pl.concat([past, heldout.filter(pl.col("split") == "valid").select(columns)])
    asked = heldout.filter(pl.col("split") == split).sort("user_index")
    if not len(asked):
        raise DataError(
            "evaluate.nothing_held_out",
            f"the data holds out no {split} interaction.",
            fix="Evaluate data with users of three events and more, ingested with --fit train.",
        )
    bought = pl.col("item_index").filter(excludes)
    histories = past.group_by("user_index", maintain_order=True).agg("item_index", bought=bought)
    rows = asked.select("user_index").join(histories, on="user_index", how="left", maintain_order="left")
    return EvaluationSplit(
        users=asked["user_index"].to_numpy().astype(np.int64),
        histories=rows["item_index"].to_list(),
        bought=rows["bought"].to_list(),
        targets=asked["item_index"].to_numpy().astype(np.int64),
        typed=typed,
    )


def sample_rows(split: EvaluationSplit, count: int, seed: int) -> IntArray:
    """Rows of `count` users of a split in ascending order, drawn by seed; all rows where it has no more."""
    if count >= len(split.users):
        return np.arange(len(split.users))
    return np.sort(np.random.default_rng(seed).choice(len(split.users), count, replace=False))
