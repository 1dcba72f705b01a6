"""Reads the two files of a shop together: events of known items, each once, and what was left out of both files.

The stage `ingest` and the replay read a shop's folder through it.
"""

from pathlib import Path
from typing import NamedTuple

import polars as pl

from isrf.contract.errors import DataError
from isrf.contract.event_types import REMOVE
from isrf.contract.shown import shown
from offline.config import RunConfig
from offline.stages.ingest.bad_rows import NUM_LINES_NAMED, BadRows
from offline.stages.ingest.files import find_file
from offline.stages.ingest.interactions import read_interactions
from offline.stages.ingest.items import ShopCatalogue, read_items
from offline.stages.ingest.repeated import Repeated, without_repeated


class ShopData(NamedTuple):
    """The content of the shop's files.

    Attributes:
        interactions: good rows of known items, each event once.
        catalogue: the content of the items file.
        repeated: rows of `interactions` that were left out as repetitions.
        bad_rows: bad rows of the catalogue and of the interactions.
        rows: number of rows of each file, by its name.
        num_idle: number of removes of items that the catalogue lacks. They are no bad rows: the service accepts a
            remove of an item that left the catalogue, and it has no effect here.
    """

    interactions: pl.DataFrame
    catalogue: ShopCatalogue
    repeated: Repeated
    bad_rows: tuple[BadRows, BadRows]
    rows: dict[str, int]
    num_idle: int


def shop_files(data: Path) -> tuple[Path, Path]:
    """The files of the items and of the interactions in a shop's folder."""
    return find_file(data, "items", ("jsonl", "parquet")), find_file(data, "interactions", ("csv", "parquet"))


def read_shop(items_path: Path, path: Path, config: RunConfig) -> ShopData:
    """Reads both files of a shop.

    Args:
        items_path: of the items.
        path: of the interactions.
        config: `ingest.max_bad_rows` and `[events]`.

    Raises:
        DataError: a file cannot be used, or too many of its rows are bad.
    """
    bad_items, bad_events = BadRows(items_path.name), BadRows(path.name)
    catalogue = read_items(items_path, bad_items)
    bad_items.check(catalogue.num_rows, config.ingest.max_bad_rows)
    if catalogue.items.height < 2:
        raise DataError(
            "data.too_few_items",
            f"{items_path} holds {catalogue.items.height} usable item(s); recommending needs at least 2.",
            fix="Provide a catalogue of at least 2 items.",
        )
    events, num_rows = read_interactions(path, bad_events, config.events)
    known = pl.col("item_id").is_in(catalogue.items["item_id"].implode())
    refused = pl.col("item_id").is_in(pl.Series(catalogue.refused, dtype=pl.String).implode())
    idle = ~known & (pl.col("event") == REMOVE)
    for kind, rows in (
        ("item_refused", events.filter(refused & ~idle)),
        ("unknown_item", events.filter(~known & ~refused & ~idle)),
    ):
        named = [shown(item_id) for item_id in rows["item_id"].head(NUM_LINES_NAMED)]
        bad_events.add(kind, rows["line"].to_list(), named)
    bad_events.check(num_rows, config.ingest.max_bad_rows)
    interactions, repeated = without_repeated(events.filter(known))
    return ShopData(
        interactions=interactions,
        catalogue=catalogue,
        repeated=repeated,
        bad_rows=(bad_items, bad_events),
        rows={items_path.name: catalogue.num_rows, path.name: num_rows},
        num_idle=events.filter(idle).height,
    )
