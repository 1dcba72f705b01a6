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
from offline.stages.ingest.parts.spool import Spool

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


def without_repeated(events: Spool) -> tuple[Spool, Repeated]:
    """Keeps the first of equal rows, in file order; the columns are those of `offline.stages.ingest.interactions`.

    Args:
        events: in parts that divide nobody's rows.
    """
    others: list[pl.Series] = []
    times: set[int] = set()

    def of_part(part: pl.DataFrame) -> pl.DataFrame:
        counted = part.with_columns(pl.len().over(IDENTITY).alias("times"))
        first = counted.unique(IDENTITY, keep="first", maintain_order=True)
        others.append(part.filter(~pl.col("line").is_in(first["line"].implode()))["line"])
        times.update(first["times"].unique().to_list())
        return first.drop("times")

    kept = events.mapped(of_part)
    lines = pl.concat([found.sort().head(NUM_LINES_NAMED) for found in others]).sort().head(NUM_LINES_NAMED)
    whole = times.pop() if len(times) == 1 else 1
    return kept, Repeated(sum(map(len, others)), lines.to_list(), whole)
