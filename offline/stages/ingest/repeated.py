"""Leaves out rows that repeat another row of the interactions file.

A row repeats another row if all columns have the same value: user, item, timestamp, position, event and weight. Without
this, a file that was written twice, or two overlapping exports, would put the same event into training and into the
held-out data. A second purchase at another time or position is another event and stays. Several pieces in one purchase
are one event; `weight` tells how many.
"""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from isrf.contract.shown import printable
from offline.reading.lines import line_text

IDENTITY = ("user_id", "item_id", "timestamp", "position", "event", "weight")
NUM_LINES_NAMED = 5


class Repeated(NamedTuple):
    """The rows that were left out."""

    rows: int
    lines: list[int]  # line numbers of the first of them
    whole_file: int  # how often every row occurs in the file; 1 where the rows do not occur equally often

    def describe(self, file: str, parts: Sequence[str] = ()) -> str:
        """A sentence for people; empty where no row was left out."""
        if not self.rows:
            return ""
        if self.whole_file > 1:
            times = "twice" if self.whole_file == 2 else f"{self.whole_file} times"
            return f"{printable(file)} holds every row {times}: {self.rows} repeated rows were left out"
        lines = ", ".join(line_text(line, parts) for line in self.lines)
        more = ", …" if self.rows > len(self.lines) else ""
        return f"{printable(file)}: {self.rows} rows repeat an earlier one exactly and were left out ({lines}{more})"


def without_repeated(events: pl.DataFrame) -> tuple[pl.DataFrame, Repeated]:
    """Keeps the first of equal rows, in file order; the columns are those of `offline.stages.ingest.interactions`."""
    counted = events.with_columns(pl.len().over(IDENTITY).alias("times"))
    first = counted.unique(IDENTITY, keep="first", maintain_order=True)
    others = events.join(first, on="line", how="anti").sort("line")
    times = first["times"].unique().to_list()
    whole = int(times[0]) if len(times) == 1 else 1
    return first.drop("times"), Repeated(others.height, others["line"].head(NUM_LINES_NAMED).to_list(), whole)
