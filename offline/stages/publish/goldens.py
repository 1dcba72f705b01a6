"""Chooses the golden requests and golden items of a release, and answers them with its torch model."""

import numpy as np
import polars as pl

from isrf.method.goldens.items import ItemGolden, ReadableItems, TextReading, make_item_golden
from isrf.method.goldens.requests import Golden, make_goldens
from isrf.method.recommend.recommender import Recommender
from isrf.method.text.encoder import item_fields
from offline.context import StageContext

NUM_GOLDENS, NUM_LARGE_GOLDENS = 24, 8
"""The second number where items are searched by HNSW: to replay a golden request scores all items at every opening."""
NUM_GOLDEN_ITEMS = 8
GOLDEN_TEXT_LENGTH = 1000
"""Most characters of each field."""
GOLDEN_ITEM_TRIES = 4


def request_goldens(ctx: StageContext, recommender: Recommender) -> list[Golden]:
    """Makes golden requests of users with short, medium and long histories."""
    lists = recommender.tables.user_items
    with_items = np.flatnonzero(np.diff(lists.indptr) > 0)
    by_length = with_items[np.argsort(np.diff(lists.indptr)[with_items], kind="stable")]
    num_items = len(recommender.tables.item_vectors)
    wanted = NUM_GOLDENS if num_items < ctx.config.search.hnsw_from else NUM_LARGE_GOLDENS
    users = by_length[np.linspace(0, len(by_length) - 1, min(wanted, len(by_length))).astype(np.int64)]
    histories = [lists.indices[lists.row(user)].tolist() for user in users]
    # Also an empty history, and a history that is longer than the model reads.
    longest = max(ctx.config.model.history_length, ctx.config.model.interest_length) + 1
    shuffled = np.random.default_rng(ctx.config.seed).permutation(num_items)
    histories += [[], np.resize(shuffled, longest).tolist()]
    return make_goldens(recommender, histories, [*users.tolist(), -1, -1])


def item_goldens(ctx: StageContext, recommender: Recommender, reading: TextReading | None) -> list[ItemGolden]:
    """Makes golden items spread over all rows; each is the first item of its stretch with a stably readable text.

    Args:
        ctx: the stage's context.
        recommender: a recommender with the tables of the release.
        reading: reads a new item's text; None where the release reads none.
    """
    columns = ["item_id", "title", "brand", "categories", "description"]
    items = pl.read_parquet(ctx.inputs["ingest"] / "items.parquet", columns=columns)
    parts = ReadableItems(
        item_ids=items["item_id"].to_list(),
        item_vectors=recommender.tables.item_vectors,
        item_lists=recommender.tables.item_lists,
        content=recommender.tables.content,
        counts=recommender.tables.counts,
        reading=reading,
    )

    def golden(row: int) -> ItemGolden:
        fields = items.drop("item_id").row(row, named=True)
        if fields["title"]:
            fields["description"] = None  # with its complete text, an item would only find itself
        text = {name: value[:GOLDEN_TEXT_LENGTH] for name, value in item_fields(**fields).items()}
        return make_item_golden(parts, row, text)

    chosen = []
    for stretch in np.array_split(np.arange(len(items)), min(NUM_GOLDEN_ITEMS, len(items))):
        goldens = [golden(row) for row in stretch[:GOLDEN_ITEM_TRIES].tolist()]
        chosen.append(next((item for item in goldens if item.new is not None), goldens[0]))
    return chosen
