"""Hashes that identify the data that a release was made from."""

import hashlib

import numpy as np
import polars as pl

from offline.stages.ingest.items import content_json


def data_fingerprint(interactions: pl.DataFrame, items: pl.DataFrame) -> str:
    """SHA-256 over all good rows of both files, ids included; it does not depend on the order of rows."""
    columns = ("user_id", "item_id", "timestamp", "position", "event", "weight")
    events = interactions.select(columns).sort(columns, nulls_last=False)
    catalogue = items.with_columns(content_json(items)).sort("item_id").select("item_id", "content")
    return _sha256(events, catalogue)


def order_fingerprint(events: pl.DataFrame) -> str:
    """SHA-256 over every user's items in order; another order of ties gives another hash."""
    return _sha256(events.select("user_id", "item_id"))


def _sha256(*tables: pl.DataFrame) -> str:
    digest = hashlib.sha256()
    for table in tables:
        digest.update(f"{table.height} {table.columns}\n".encode())
        for column in table.iter_columns():
            if column.dtype == pl.String:  # no string holds a newline: ids and events by contract, content as JSON
                digest.update("\n".join(column.to_list()).encode())
            else:
                missing = float("nan") if column.dtype == pl.Float64 else np.iinfo(np.int64).min
                little_endian = column.fill_null(missing).to_numpy()
                digest.update(little_endian.astype(little_endian.dtype.newbyteorder("<")).tobytes())
            digest.update(b"\n")
    return digest.hexdigest()
