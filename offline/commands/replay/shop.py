"""Opens a release as a replay needs it: with its users, their histories and its reader of new items."""

import io
from pathlib import Path

import polars as pl

from isrf.contract.event_types import DISLIKE, EventVocabulary
from isrf.contract.manifest import HISTORIES_FILE, USERS_FILE
from isrf.method.recommend.new_items import NewItemReader
from offline.commands.replay.player import Shop
from offline.commands.replay.steps import UserPast
from offline.runtime.release import open_parts


def open_shop(folder: Path, vocabulary: EventVocabulary) -> Shop:
    """The release in `folder`, verified as the service verifies it; `BundleError` names the file that is wrong."""
    opened = open_parts(folder)
    release = opened.release
    users = pl.read_parquet(io.BytesIO(opened.parts.take(USERS_FILE)))["user_id"].to_list()
    histories = pl.read_parquet(io.BytesIO(opened.parts.take(HISTORIES_FILE)))
    rows = {item_id: row for row, item_id in enumerate(release.item_ids)}
    pasts: dict[str, UserPast] = {}
    for user, item_ids, events, disliked in histories.select(
        "user_index", "item_ids", "events", "disliked_item_ids"
    ).iter_rows():
        past = pasts[users[user]] = UserPast()
        for item_id, event in zip(item_ids, events, strict=True):
            kind = vocabulary.read(event)
            past.count(rows[item_id], kind, excluding=kind in vocabulary.excluding)
        for item_id in disliked:
            past.count(rows[item_id], DISLIKE, excluding=True)
    reader = None
    if opened.reading is not None:
        reader = NewItemReader(opened.reading, release.recommender.tables.content)
    return Shop(
        release_id=release.manifest.release_id,
        recommender=release.recommender,
        user_index=opened.user_index,
        reader=reader,
        item_ids=release.item_ids,
        user_ids=users,
        histories=pasts,
        vocabulary=vocabulary,
    )
