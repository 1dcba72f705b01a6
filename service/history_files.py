"""Reads a release's users and their histories; held against the catalogue, the manifest and each other."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isrf import bundle
from isrf.bundle import Manifest
from isrf.errors import BundleError, DataError
from isrf.event_types import plain
from isrf.ids import IdMap, UserId, UserIndex
from service.catalogue import Catalogue
from service.release_users import Dislikes, Events, ReleaseUsers

PUBLISH = "Publish the release again."
_COLUMNS: dict[str, Any] = {
    "user_index": pl.Int32,
    "item_ids": pl.List(pl.String),
    "timestamps": pl.List(pl.Float64),
    "events": pl.List(pl.String),
    "disliked_item_ids": pl.List(pl.String),
}


def read_users(folder: Path, manifest: Manifest, catalogue: Catalogue) -> ReleaseUsers:
    """`users.parquet` and `histories.parquet` of a verified release folder; `BundleError` where they do not fit."""
    user_ids = _table(folder, bundle.USERS_FILE, {"user_id": pl.String})["user_id"]
    num_users = manifest.counts.num_users
    if len(user_ids) != num_users:
        raise BundleError(
            "bundle.array_mismatch",
            f"{bundle.USERS_FILE} has {len(user_ids)} rows, the manifest says {num_users}.",
            fix=PUBLISH,
        )
    try:
        ids: IdMap[UserId, UserIndex] = IdMap(UserId(user_id) for user_id in user_ids.to_list())
    except DataError as error:
        raise BundleError("bundle.users", f"{bundle.USERS_FILE}: {error.message}", fix=PUBLISH) from error
    table = _table(folder, bundle.HISTORIES_FILE, _COLUMNS).sort("user_index")
    _check_rows(table, num_users)
    known = {str(item_id): row for row, item_id in enumerate(catalogue.ids)}
    events = table.select("item_ids", "timestamps", "events").filter(pl.col("item_ids").list.len() > 0)
    events = events.explode("item_ids", "timestamps", "events")
    kinds = {kind: plain(kind) for kind in events["events"].unique().to_list()}
    kind_names = sorted(set(kinds.values()))
    place = {kind: kind_names.index(name) for kind, name in kinds.items()}
    return ReleaseUsers(
        ids,
        catalogue,
        events=Events(
            indptr=_indptr(table, "item_ids", num_users),
            items=_item_rows(events["item_ids"], known),
            timestamps=events["timestamps"].fill_null(math.nan).to_numpy().astype(np.float64),
            kinds=np.array([place[kind] for kind in events["events"].to_list()], dtype=np.int32),
            kind_names=kind_names,
        ),
        dislikes=Dislikes(
            indptr=_indptr(table, "disliked_item_ids", num_users),
            items=_item_rows(table["disliked_item_ids"].explode().drop_nulls(), known),
        ),
    )


def _check_rows(table: pl.DataFrame, num_users: int) -> None:
    rows, lengths = table["user_index"], table["item_ids"].list.len().fill_null(0)
    sound = (
        rows.n_unique() == len(rows)
        and (len(rows) == 0 or bool(rows.is_between(0, num_users - 1).all()))
        and all(bool((lengths == table[name].list.len().fill_null(0)).all()) for name in ("timestamps", "events"))
    )
    if not sound:
        raise BundleError(
            "bundle.histories",
            f"{bundle.HISTORIES_FILE} names a user twice or not at all, or has items without their times and events.",
            fix=PUBLISH,
        )


def _indptr(table: pl.DataFrame, column: str, num_users: int) -> NDArray[np.int64]:
    lengths = np.zeros(num_users + 1, dtype=np.int64)
    lengths[table["user_index"].to_numpy() + 1] = table[column].list.len().fill_null(0).to_numpy()
    return np.cumsum(lengths)


def _item_rows(item_ids: pl.Series, known: Mapping[str, int]) -> NDArray[np.int32]:
    rows = np.array([known.get(item_id, -1) for item_id in item_ids.to_list()], dtype=np.int32)
    strange = np.flatnonzero(rows < 0)
    if len(strange):
        raise BundleError(
            "bundle.histories",
            f"{bundle.HISTORIES_FILE} holds the item {item_ids[int(strange[0])]!r}, {bundle.ITEMS_FILE} does not.",
            fix=PUBLISH,
        )
    return rows


def _table(folder: Path, name: str, columns: dict[str, Any]) -> pl.DataFrame:
    try:
        table = pl.read_parquet(folder / name)
        return table.select(pl.col(column).cast(dtype, strict=True) for column, dtype in columns.items())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BundleError(
            "bundle.table", f"{name} is no table with the columns {', '.join(columns)}: {error}.", fix=PUBLISH
        ) from error
