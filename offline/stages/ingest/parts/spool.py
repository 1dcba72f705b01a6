"""Holds tables that come one after the other: in memory while they are small, else in temporary files.

Temporary files lie where `TMPDIR` says, and go with the spool. It knows nothing of what columns mean.
"""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl

PART_ROWS = 3_000_000
"""Rows that are worked through at once. A smaller table is one part, and stays in memory."""


class Spool:
    """Tables of the same columns, in the order in which they were added; at least one.

    Attributes:
        memory_rows: so many rows stay in memory.
        height: of all tables.
    """

    def __init__(self, memory_rows: int) -> None:
        self.memory_rows = memory_rows
        self.height = 0
        self._tables: list[pl.DataFrame | Path] = []
        self._folder: Path | None = None

    @classmethod
    def of(cls, table: pl.DataFrame) -> "Spool":
        """One table, in memory."""
        spool = cls(table.height)
        spool.add(table)
        return spool

    def __len__(self) -> int:
        """The number of tables."""
        return len(self._tables)

    def add(self, table: pl.DataFrame) -> None:
        """Adds a table; an empty one only where it is the first, for its columns."""
        if table.is_empty() and self._tables:
            return
        self.height += table.height
        self._tables.append(table if self.height <= self.memory_rows else self._written(table))

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
        """The tables, or some of their columns."""
        for table in self._tables:
            if isinstance(table, Path):
                yield pl.read_parquet(table, columns=None if columns is None else list(columns), memory_map=False)
            else:
                yield table if columns is None else table.select(columns)

    def gather(self, of_table: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
        """What a function makes of each table, one below the other, in memory."""
        return pl.concat([of_table(table) for table in self.tables()])

    def mapped(self, of_table: Callable[[pl.DataFrame], pl.DataFrame]) -> "Spool":
        """What a function makes of each table, held as these are."""
        made = Spool(self.memory_rows)
        for table in self.tables():
            made.add(of_table(table))
        return made

    def joined(self) -> pl.DataFrame:
        """All rows as one table, in memory."""
        return pl.concat(list(self.tables()))

    def write(self, path: Path) -> None:
        """Writes all rows into one Parquet file."""
        if len(self._tables) == 1:
            next(self.tables()).write_parquet(path)
            return
        pl.concat(
            [pl.scan_parquet(table) if isinstance(table, Path) else table.lazy() for table in self._tables]
        ).sink_parquet(path)

    def _written(self, table: pl.DataFrame) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="isrf-ingest-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        path = self._folder / f"{len(self._tables)}.parquet"
        table.write_parquet(path, compression="lz4", statistics=False)
        return path


def divided(
    tables: Iterable[pl.DataFrame], part_of: Callable[[pl.DataFrame], pl.Series], parts: int, rows: int
) -> Spool:
    """The rows by part, a table each; the rows of a part stay in their order.

    Args:
        tables: of the same columns, at least one.
        part_of: the number of each row's part.
        parts: the number of parts; one stays in memory.
        rows: that stay in memory where there is one part.
    """
    memory_rows = rows if parts == 1 else 0
    pieces = [Spool(memory_rows) for _ in range(parts)]
    for table in tables:
        if parts == 1:
            pieces[0].add(table)
            continue
        for piece in pieces:
            piece.add(table.clear())
        for (number,), found in table.with_columns(part_of(table).alias("part")).group_by("part", maintain_order=True):
            pieces[int(str(number))].add(found.drop("part"))
    made = Spool(memory_rows)
    for piece in pieces:
        made.add(piece.joined())
    return made
