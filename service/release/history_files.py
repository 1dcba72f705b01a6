"""Reads a release's users and their histories, and checks them against the catalogue and the manifest."""

import math
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isrf.contract.errors import BundleError
from isrf.contract.event_types import EventVocabulary, plain
from isrf.contract.ids import IdMap, UserId, UserIndex
from isrf.contract.manifest import HISTORIES_FILE, ITEMS_FILE, USERS_FILE
from isrf.method.recommend.live.live_events import whole_weight
from isrf.runtime.bundle.reader import Bundle
from isrf.runtime.bundle.refusals import PUBLISH, refusing
from isrf.runtime.bundle.tables import table_of
from service.release.catalogue import Catalogue
from service.release.history_facts import Events
from service.release.users import Dislikes, ReleaseUsers

_COLUMNS: dict[str, Any] = {
    "user_index": pl.Int32,
    "item_ids": pl.List(pl.String),
    "timestamps": pl.List(pl.Float64),
    "events": pl.List(pl.String),
    "disliked_item_ids": pl.List(pl.String),
}


def read_users(parts: Bundle, catalogue: Catalogue, vocabulary: EventVocabulary) -> ReleaseUsers:
    """Reads `users.parquet` and `histories.parquet` of a verified release; `BundleError` where they do not fit."""
    num_users = parts.manifest.counts.num_users
    table = table_of(USERS_FILE, parts.take(USERS_FILE), {"user_id": pl.String}, most_rows=num_users)
    user_ids = table["user_id"]
    if len(user_ids) != num_users:
        raise BundleError(
            "bundle.array_mismatch",
            f"{USERS_FILE} has {len(user_ids)} rows, the manifest says {num_users}.",
            fix=PUBLISH,
        )
    if user_ids.null_count():
        raise BundleError("bundle.users", f"{USERS_FILE} has a user without an id.", fix=PUBLISH)
    with refusing("bundle.users", USERS_FILE):
        ids: IdMap[UserId, UserIndex] = IdMap(UserId(user_id) for user_id in user_ids.to_list())
    content = parts.take(HISTORIES_FILE)
    with refusing("bundle.histories", HISTORIES_FILE):
        histories = table_of(HISTORIES_FILE, content, _COLUMNS, most_rows=num_users).sort("user_index")
        return _users(ids, catalogue, histories, vocabulary)


def _users(
    ids: IdMap[UserId, UserIndex], catalogue: Catalogue, table: pl.DataFrame, vocabulary: EventVocabulary
) -> ReleaseUsers:
    num_users = len(ids)
    _check_rows(table, num_users)
    rows = pl.DataFrame(
        {"item_id": pl.Series(list(catalogue.ids), dtype=pl.String), "row": np.arange(len(catalogue), dtype=np.int32)}
    )
    events = table.select("item_ids", "timestamps", "events").filter(pl.col("item_ids").list.len() > 0)
    events = events.explode("item_ids", "timestamps", "events")
    if not events["timestamps"].drop_nulls().is_finite().all():
        raise BundleError("bundle.histories", f"{HISTORIES_FILE} has a timestamp that is not a number.", fix=PUBLISH)
    written = events["events"].unique().to_list()
    names = [plain(kind) for kind in written]
    kind_names = sorted(set(names))
    places = [kind_names.index(name) for name in names]
    return ReleaseUsers(
        ids,
        catalogue,
        events=Events(
            indptr=_indptr(table, "item_ids", num_users),
            items=_item_rows(events["item_ids"], rows),
            timestamps=events["timestamps"].fill_null(math.nan).to_numpy().astype(np.float64),
            kinds=events["events"].replace_strict(written, places, return_dtype=pl.Int32).to_numpy(),
            kind_names=kind_names,
            kind_weights=[whole_weight(vocabulary.weight(vocabulary.read(name))) for name in kind_names],
        ),
        dislikes=Dislikes(
            indptr=_indptr(table, "disliked_item_ids", num_users),
            items=_item_rows(table["disliked_item_ids"].explode().drop_nulls(), rows),
        ),
    )


def _check_rows(table: pl.DataFrame, num_users: int) -> None:
    rows, lengths = table["user_index"], table["item_ids"].list.len().fill_null(0)
    is_valid = (
        rows.n_unique() == len(rows)
        and (len(rows) == 0 or bool(rows.is_between(0, num_users - 1).all()))
        and all(bool((lengths == table[name].list.len().fill_null(0)).all()) for name in ("timestamps", "events"))
    )
    if not is_valid:
        raise BundleError(
            "bundle.histories",
            f"{HISTORIES_FILE} has a user twice, an unknown user, or items without their timestamps and events.",
            fix=PUBLISH,
        )


def _indptr(table: pl.DataFrame, column: str, num_users: int) -> NDArray[np.int64]:
    lengths = np.zeros(num_users + 1, dtype=np.int64)
    lengths[table["user_index"].to_numpy() + 1] = table[column].list.len().fill_null(0).to_numpy()
    return np.cumsum(lengths)


def _item_rows(item_ids: pl.Series, rows: pl.DataFrame) -> NDArray[np.int32]:
    found = item_ids.to_frame("item_id").join(rows, on="item_id", how="left", maintain_order="left")["row"]
    if found.null_count():
        item_id = item_ids.filter(found.is_null())[0]
        raise BundleError(
            "bundle.histories",
            f"{HISTORIES_FILE} contains the item {item_id!r}, {ITEMS_FILE} does not.",
            fix=PUBLISH,
        )
    return found.to_numpy()
