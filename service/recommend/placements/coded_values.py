"""An attribute's values as numbers, so that a limit per value compares them without reading the column anew.

The numbers of one version of the catalogue are made at their first use and kept as long as that version.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import polars as pl
from numpy.typing import NDArray

from service.release.conditions.attributes import AttributeTable


@dataclass(frozen=True, kw_only=True, eq=False)
class CodedValues:
    """The values of one attribute, equal ones with equal numbers.

    Attributes:
        codes: (V,) int32, those of one item after the other, each once.
        ends: (N,) int64, behind the last one of each item; None where item n has `codes[n]`, negative for no value.
    """

    codes: NDArray[np.int32]
    ends: NDArray[np.int64] | None

    def of(self, rows: Sequence[int]) -> list[tuple[int, ...]]:
        """Returns the numbers of the values of each item."""
        if self.ends is None:
            return [(code,) if code >= 0 else () for code in self.codes[np.asarray(rows, dtype=np.int64)].tolist()]
        ends = self.ends
        begins = (ends.item(row - 1) if row else 0 for row in rows)
        return [tuple(self.codes[begin : ends.item(row)].tolist()) for row, begin in zip(rows, begins, strict=True)]


class CodedColumns:
    """The attributes that limits have read, by version of the catalogue. Threads may share it."""

    def __init__(self) -> None:
        self._of_table: WeakKeyDictionary[AttributeTable, dict[str, CodedValues]] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def find(self, table: AttributeTable, attribute: str) -> CodedValues | None:
        """Returns the numbers where they are made."""
        with self._lock:
            return self._of_table.get(table, {}).get(attribute)

    def coded(self, table: AttributeTable, attribute: str) -> CodedValues:
        """Returns the numbers of an attribute of the table; it makes them at the first call: run it in a thread."""
        found = self.find(table, attribute)
        if found is None:
            found = coded_values(table.columns[attribute])
            with self._lock:
                self._of_table.setdefault(table, {})[attribute] = found
        return found


def coded_values(column: pl.Series) -> CodedValues:
    """Numbers the values of a column (N,); of a list its texts, each once."""
    if column.dtype != pl.List(pl.String):
        return CodedValues(codes=_codes(column), ends=None)
    once = column.list.drop_nulls().list.unique(maintain_order=True)
    lengths = once.list.len().fill_null(0)
    flat = once.filter(lengths > 0).explode()
    return CodedValues(codes=_codes(flat), ends=lengths.cast(pl.Int64).cum_sum().to_numpy())


def _codes(values: pl.Series) -> NDArray[np.int32]:
    """(V,) int32 a number for each value, -1 for null."""
    frame = values.alias("value").to_frame()
    known = frame.drop_nulls().unique(maintain_order=True).with_row_index("code")
    found = frame.join(known, on="value", how="left", maintain_order="left")["code"]
    return found.cast(pl.Int32).fill_null(-1).to_numpy()
