"""Assigns row numbers that depend on neither the order of rows nor the spelling of ids.

Items are ordered by their content, and items of equal content by a signature of their training events. Users are
ordered by a signature of their training sequences. Signatures are refined until no more items or users can be
distinguished (Weisfeiler and Leman's colours on the graph of users and items). Ids only order the remaining ones, which
are equal in everything that training sees. Held-out events are not used, so a row number reveals nothing about them.
Users who have only dislikes come last, ordered by their disliked items. Sessions are numbered after all users, ordered
by their signatures too.
"""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isrf.contract.item_changes import GROUP_ID
from isrf.method.order import Split
from offline.stages.ingest.items import CONTENT, content_json
from offline.stages.ingest.owners import IS_SESSION
from offline.stages.ingest.parts.spool import Spool

MAX_ROUNDS = 16
_TEXT_ORDER = ("title", "brand", "category_path", "description", "price", "metadata")


class Numbering(NamedTuple):
    items: pl.DataFrame  # row = item_index: item_id, group_id and CONTENT
    users: pl.DataFrame  # row = user_index: user_id
    sessions: pl.DataFrame  # row = user_index − number of users: the owner's name, as `user_id`


def number(items: pl.DataFrame, events: Spool, excluded: pl.DataFrame) -> Numbering:
    """Numbers all items, all users with a training event or a dislike, and all sessions with a training event.

    Args:
        items: `item_id`, `group_id` and `offline.stages.ingest.items.CONTENT`.
        events: a user's adjacent and in order: `user_id`, `item_id`, `timestamp`, `event`, `weight`, `split`.
        excluded: `user_id`, `item_id`, each pair once.
    """
    items = items.with_columns(
        content_json(items, group=False), pl.col("categories").list.join("\x1f").alias("category_path")
    )
    items = items.sort(*_TEXT_ORDER, "content", "item_id", nulls_last=False).with_row_index("row")
    user_ids: list[pl.Series] = []
    coded = events.mapped(_Coded(items.select("item_id", "row"), _ranks_of_types(events), user_ids).of)
    users = pl.DataFrame({"user_id": pl.concat(user_ids)})
    classes = items["content"].rank("dense").cast(pl.UInt64).to_numpy()
    item_signature, user_signature = _refine(classes, coded, num_users=users.height)
    items = items.with_columns(pl.Series("signature", item_signature))
    items = items.sort(*_TEXT_ORDER, "content", "signature", "item_id", nulls_last=False)
    users = users.with_columns(pl.Series("signature", user_signature)).sort("signature", "user_id")
    items = items.select("item_id", *CONTENT, GROUP_ID)
    sessions, users = users.filter(IS_SESSION), users.filter(~IS_SESSION)
    idle = _users_without_events(items, users, excluded.filter(~IS_SESSION))
    return Numbering(items, pl.concat([users.select("user_id"), idle]), sessions.select("user_id"))


def _ranks_of_types(events: Spool) -> dict[str, int]:
    """The types of training events in alphabetical order, from 1."""
    training = pl.col("split") == Split.TRAIN
    types = events.gather(lambda part: part.filter(training).select("event").unique())["event"].unique().sort()
    return {name: rank for rank, name in enumerate(types.to_list(), start=1)}


class _Coded:
    """Makes numbers of training events, part by part, and collects their users' ids."""

    def __init__(self, rows: pl.DataFrame, ranks: dict[str, int], user_ids: list[pl.Series]) -> None:
        self._rows, self._ranks, self._user_ids = rows, ranks, user_ids
        self._num_users = 0

    def of(self, part: pl.DataFrame) -> pl.DataFrame:
        """`user` i64 (in the order of `user_ids`), `row` i64, `event` u64 (equal for equal type, time and weight)."""
        train = part.filter(pl.col("split") == Split.TRAIN)
        user_ids = train["user_id"].unique(maintain_order=True)
        users = train["user_id"].rle_id().cast(pl.Int64) + self._num_users
        self._user_ids.append(user_ids)
        self._num_users += len(user_ids)
        events = train.join(self._rows, on="item_id", how="left", maintain_order="left")
        signature = pl.Series(_event_signature(events, self._ranks))
        return pl.DataFrame({"user": users, "row": events["row"].cast(pl.Int64), "event": signature})


def _users_without_events(items: pl.DataFrame, users: pl.DataFrame, excluded: pl.DataFrame) -> pl.DataFrame:
    """`user_id` of the users who are only in `excluded`, ordered by the rows of their items."""
    rows = items.select("item_id").with_row_index("row")
    dislikes = excluded.join(users, on="user_id", how="anti").join(rows, on="item_id")
    texts = dislikes.group_by("user_id").agg(pl.col("row").sort().cast(pl.String).str.join(" ").alias("disliked"))
    return texts.sort("disliked", "user_id").select("user_id")


def _refine(
    item_class: NDArray[np.uint64], coded: Spool, *, num_users: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Signatures of items (N,) and users (U,), both uint64, refined by each other until no more of them differ.

    Args:
        item_class: (N,) uint64, equal for items of equal content.
        coded: as of `_Coded`, a user's events adjacent and in order, in parts that divide nobody's events.
        num_users: U.
    """
    base = _mix(item_class)
    signature, num_classes = base, len(np.unique(base))
    user_signature = np.zeros(num_users, dtype=np.uint64)
    for _ in range(MAX_ROUNDS):
        profile = np.zeros(len(item_class), dtype=np.uint64)
        for part in coded.tables():
            if part.is_empty():
                continue
            user, item, event = (part[name].to_numpy() for name in ("user", "row", "event"))
            starts = np.concatenate([[0], np.flatnonzero(np.diff(user)) + 1]).astype(np.int64)
            lengths = np.diff(np.append(starts, len(user)))
            place = _mix((np.arange(len(user)) - np.repeat(starts, lengths)).astype(np.uint64))
            found = _mix(np.add.reduceat(_mix(_mix(signature[item] + event) ^ place), starts))
            user_signature[user[starts]] = found
            np.add.at(profile, item, _mix(_mix(np.repeat(found, lengths) + event) ^ place))
        signature = _mix(base ^ _mix(profile))
        refined = len(np.unique(signature))
        if refined == num_classes:
            break
        num_classes = refined
    return signature, user_signature


def _event_signature(events: pl.DataFrame, ranks: dict[str, int]) -> NDArray[np.uint64]:
    """A signature of each event's type, timestamp and weight, (E,) uint64; `ranks` numbers the types."""
    kinds = events["event"].replace_strict(list(ranks), list(ranks.values()), return_dtype=pl.UInt64)
    signature: NDArray[np.uint64] = kinds.to_numpy()
    for column in ("timestamp", "weight"):
        bits = events[column].fill_null(0.0).to_numpy().astype(np.float64).view(np.uint64)
        signature = _mix(signature) ^ bits
    return _mix(signature)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hashes 64-bit numbers with SplitMix64's finaliser (Steele, Lea and Flood 2014); equal on every machine."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
