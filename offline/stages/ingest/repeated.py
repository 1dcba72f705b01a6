"""Rows of the interactions file that stand there more than once.

A row is the repetition of another where every column of the contract has the same value: user, item, timestamp,
position, event and weight. A file that was written twice over, or two exports that overlap, would else put the same
event into training and into what is held out. A second purchase at another time is another event and stays; so is one
with another position. Several pieces in one purchase are one event: say so with `weight`.
"""

from typing import NamedTuple

import polars as pl

from isrf.contract.shown import printable

IDENTITY = ("user_id", "item_id", "timestamp", "position", "event", "weight")
NUM_LINES_NAMED = 5


class Repeated(NamedTuple):
    """What was left out."""

    rows: int
    lines: list[int]  # of the first of them
    whole_file: int  # how many times every row stands in the file; 1 where not all stand equally often

    def describe(self, file: str) -> str:
        """A sentence for people; empty where nothing was left out."""
        if not self.rows:
            return ""
        if self.whole_file > 1:
            times = "twice" if self.whole_file == 2 else f"{self.whole_file} times"
            return f"{printable(file)} stands in itself {times}: {self.rows} repeated rows were left out"
        lines = ", ".join(map(str, self.lines))
        return f"{printable(file)}: {self.rows} rows repeat an earlier one exactly and were left out (lines {lines}, …)"


def without_repeated(events: pl.DataFrame) -> tuple[pl.DataFrame, Repeated]:
    """The first of equal rows each, in file order; columns of `offline.stages.ingest.stage.interactions`."""
    counted = events.with_columns(pl.len().over(IDENTITY).alias("times"))
    kept = counted.unique(IDENTITY, keep="first", maintain_order=True)
    others = events.join(kept, on="line", how="anti").sort("line")
    times = kept["times"].unique().to_list()
    whole = int(times[0]) if len(times) == 1 else 1
    return kept.drop("times"), Repeated(others.height, others["line"].head(NUM_LINES_NAMED).to_list(), whole)
