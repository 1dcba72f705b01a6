"""Chooses the golden requests and golden items of a release, and answers them with its torch model."""

import numpy as np
import polars as pl

from isrf.method.golden import Golden, make_goldens
from isrf.method.golden_items import ItemGolden, ReadableItems, TextReading, make_item_golden
from isrf.method.recommend.recommender import Recommender
from isrf.method.text.encoder import item_fields
from offline.context import StageContext

NUM_GOLDENS = 24
NUM_GOLDEN_ITEMS = 8
GOLDEN_TEXT_LENGTH = 1000
"""Characters of each field."""
GOLDEN_ITEM_TRIES = 4


def request_goldens(ctx: StageContext, recommender: Recommender) -> list[Golden]:
    """Requests spread over the users by length of history."""
    lists = recommender.tables.user_items
    with_items = np.flatnonzero(np.diff(lists.indptr) > 0)
    by_length = with_items[np.argsort(np.diff(lists.indptr)[with_items], kind="stable")]
    users = by_length[np.linspace(0, len(by_length) - 1, min(NUM_GOLDENS, len(by_length))).astype(np.int64)]
    histories = [lists.indices[lists.row(user)].tolist() for user in users]
    # Beside them who has no history, and a history longer than anything reads.
    longest = max(ctx.config.model.history_length, ctx.config.model.interest_length) + 1
    shuffled = np.random.default_rng(ctx.config.seed).permutation(len(recommender.tables.item_vectors))
    histories += [[], np.resize(shuffled, longest).tolist()]
    return make_goldens(recommender, histories, [*users.tolist(), -1, -1])


def item_goldens(ctx: StageContext, recommender: Recommender, reading: TextReading | None) -> list[ItemGolden]:
    """Items spread over the rows, of each stretch the first whose text is surely read.

    Args:
        ctx: of the stage.
        recommender: with the tables of the release.
        reading: how the release reads a new item's text, None where it does not.
    """
    columns = ["item_id", "title", "brand", "categories", "description"]
    items = pl.read_parquet(ctx.inputs["ingest"] / "items.parquet", columns=columns)
    parts = ReadableItems(
        item_ids=items["item_id"].to_list(),
        item_vectors=recommender.tables.item_vectors,
        item_lists=recommender.tables.item_lists,
        reading=reading,
    )

    def golden(row: int) -> ItemGolden:
        fields = items.drop("item_id").row(row, named=True)
        if fields["title"]:
            fields["description"] = None  # read by less than its own text, an item is not just itself again
        text = {name: value[:GOLDEN_TEXT_LENGTH] for name, value in item_fields(**fields).items()}
        return make_item_golden(parts, row, text)

    found = []
    for stretch in np.array_split(np.arange(len(items)), min(NUM_GOLDEN_ITEMS, len(items))):
        some = [golden(row) for row in stretch[:GOLDEN_ITEM_TRIES].tolist()]
        found.append(next((one for one in some if one.new is not None), some[0]))
    return found
