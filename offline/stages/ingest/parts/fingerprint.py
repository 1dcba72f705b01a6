"""Hashes that identify the data that a release was made from."""

import hashlib
from collections.abc import Sequence

import numpy as np
import polars as pl

from offline.stages.ingest.items import content_json
from offline.stages.ingest.parts.spool import Spool

_EVENT_COLUMNS = ("user_id", "item_id", "timestamp", "position", "event", "weight")
_JOINED_ROWS = 500_000
"""Texts that are hashed at once."""


def data_fingerprint(interactions: Spool, items: pl.DataFrame) -> str:
    """SHA-256 over all good rows of both files, ids included; it does not depend on the order of rows.

    Args:
        interactions: in parts of ascending users.
        items: the catalogue.
    """
    events = interactions.mapped(lambda part: part.select(_EVENT_COLUMNS).sort(_EVENT_COLUMNS, nulls_last=False))
    catalogue = Spool.of(items.with_columns(content_json(items)).sort("item_id").select("item_id", "content"))
    return _sha256((events, _EVENT_COLUMNS), (catalogue, ("item_id", "content")))


def order_fingerprint(events: Spool) -> str:
    """SHA-256 over every user's items in order; another order of ties gives another hash."""
    return _sha256((events, ("user_id", "item_id")))


def _sha256(*tables: tuple[Spool, Sequence[str]]) -> str:
    digest = hashlib.sha256()
    for table, names in tables:
        digest.update(f"{table.height} {list(names)}\n".encode())
        for name in names:
            num_rows = 0
            for part in table.tables([name]):
                _add(digest, part[name], follows=num_rows > 0)
                num_rows += part.height
            digest.update(b"\n")
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", column: pl.Series, *, follows: bool) -> None:
    """Hashes a part of a column; `follows` says whether rows of it were hashed before."""
    if column.dtype != pl.String:
        missing = float("nan") if column.dtype == pl.Float64 else np.iinfo(np.int64).min
        little_endian = column.fill_null(missing).to_numpy()
        digest.update(little_endian.astype(little_endian.dtype.newbyteorder("<")).tobytes())
        return
    for first in range(0, len(column), _JOINED_ROWS):  # no text holds a newline: ids and events by contract, or JSON
        digest.update(b"\n" * (follows or first > 0))
        digest.update("\n".join(column[first : first + _JOINED_ROWS].to_list()).encode())
