"""Reads a bundle's Parquet tables from their files' bytes: counts the rows before reading, and casts the columns."""

import io
from collections.abc import Mapping
from typing import Any

import polars as pl

from isrf.contract.errors import BundleError
from isrf.runtime.bundle.refusals import PUBLISH, refusing


def table_of(name: str, content: bytes, columns: Mapping[str, Any], *, most_rows: int) -> pl.DataFrame:
    """The columns of a `.parquet` file, by name with their Polars types.

    Raises:
        BundleError: `bundle.table`, it has not these columns, or is no table; `bundle.array_mismatch`, too many rows.
    """
    with refusing("bundle.table", f"{name}, a table with the columns {', '.join(columns)},"):
        source = io.BytesIO(content)
        # The file's footer has the number of rows; no column is read.
        rows = pl.scan_parquet(source).select(pl.len()).collect().item()
        if rows > most_rows:
            raise BundleError(
                "bundle.array_mismatch", f"{name} has {rows} rows, the manifest says {most_rows}.", fix=PUBLISH
            )
        source.seek(0)
        table = pl.read_parquet(source, columns=list(columns))
        return table.select(pl.col(column).cast(dtype, strict=True) for column, dtype in columns.items())
