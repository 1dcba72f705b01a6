"""Reads the two files of a shop together: events of known items, each once, and what was left out of both files.

The stage `ingest` and the replay read a shop's folder through it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from isrf.contract.errors import DataError
from isrf.contract.event_types import REMOVE
from isrf.contract.shown import shown
from offline.config import RunConfig
from offline.reading.bad_rows import NUM_LINES_NAMED, BadRows
from offline.reading.columns import unused_mapping
from offline.reading.files import INTERACTION_FORMATS, ITEM_FORMATS, ShopFile, find_source
from offline.reading.lines import line_text
from offline.reading.notes import FileNotes
from offline.reading.settings import IngestConfig
from offline.stages.ingest.interactions import read_interactions
from offline.stages.ingest.items import SCHEMA, ShopCatalogue, read_items
from offline.stages.ingest.owners import IS_SESSION
from offline.stages.ingest.repeated import Repeated, without_repeated


class ShopFiles(NamedTuple):
    """A shop's two files."""

    items: ShopFile
    interactions: ShopFile


class ShopData(NamedTuple):
    """The content of the shop's files.

    Attributes:
        interactions: good rows of known items, each event once; `user_id` is the owner.
        catalogue: the content of the items file, and items that `unknown_items=create` adds.
        repeated: rows of `interactions` that were left out as repetitions.
        bad_rows: bad rows of the catalogue and of the interactions.
        rows: number of rows of each file, by its name.
        num_idle: number of removes of items that the catalogue lacks. They are no bad rows: the service accepts a
            remove of an item that left the catalogue, and it has no effect here.
        unknown: rows of items that the catalogue lacks.
        num_created: items that were added.
        notes: how the two files were read.
        parts: names of the parts of the interactions; empty for a single file.
    """

    interactions: pl.DataFrame
    catalogue: ShopCatalogue
    repeated: Repeated
    bad_rows: tuple[BadRows, BadRows]
    rows: dict[str, int]
    num_idle: int
    unknown: "UnknownItems"
    num_created: int
    notes: tuple[FileNotes, FileNotes]
    parts: tuple[str, ...]

    @property
    def num_session_rows(self) -> int:
        """Events of visitors without an account."""
        return self.interactions.filter(IS_SESSION).height

    def line_text(self, line: int) -> str:
        """A row of the interactions, as messages name it."""
        return line_text(line, self.parts)

    def describe_left_out(self, settings: IngestConfig) -> list[str]:
        """Sentences on rows of unknown items."""
        sentences: list[str] = []
        if self.unknown.rows:
            done = f"{self.num_created} items were added with nothing but their id"
            what = done if settings.unknown_items == "create" else "left out"
            sentences.append(
                f"{self.unknown.rows} rows are of {self.unknown.items} items that the items file lacks "
                f"({', '.join(self.unknown.places[:5])}{', …' if self.unknown.rows > 5 else ''}): {what}"
            )
        return sentences


class UnknownItems(NamedTuple):
    """Rows of the interactions whose item the catalogue lacks."""

    rows: int
    items: int
    places: list[str]  # the first lines with their item ids

    def as_json(self) -> dict[str, Any]:
        """For `report.json`."""
        return {"rows": self.rows, "items": self.items, "places": self.places}


def shop_files(data: Path) -> ShopFiles:
    """The files of the items and of the interactions in a shop's folder."""
    return ShopFiles(find_source(data, "items", ITEM_FORMATS), find_source(data, "interactions", INTERACTION_FORMATS))


def read_shop(files: ShopFiles, config: RunConfig) -> ShopData:
    """Reads both files of a shop.

    Args:
        files: of the items and of the interactions.
        config: `[ingest]` and `[events]`.

    Raises:
        DataError: a file cannot be used, or too many of its rows are bad.
    """
    settings = config.ingest
    bad_items = BadRows(files.items.name, files.items.parts)
    bad_events = BadRows(files.interactions.name, files.interactions.parts)
    catalogue = read_items(files.items, bad_items, settings)
    bad_items.check(catalogue.num_rows, settings.max_bad_rows)
    if settings.unknown_items != "create":
        _check_size(files.items, catalogue)
    ids = catalogue.items["item_id"]
    read = read_interactions(files.interactions, bad_events, settings, config.events, catalogue=ids)
    events = read.events
    headers = [catalogue.file_columns, list(read.notes.columns.header if read.notes.columns else ())]
    if (error := unused_mapping(settings.columns, headers)) is not None:
        raise error
    known = pl.col("item_id").is_in(catalogue.items["item_id"].implode())
    refused = pl.col("item_id").is_in(pl.Series(catalogue.refused, dtype=pl.String).implode())
    idle = ~known & (pl.col("event") == REMOVE)
    of_refused = events.filter(refused & ~idle)
    named = [shown(item_id) for item_id in of_refused["item_id"].head(NUM_LINES_NAMED)]
    bad_events.add("item_refused", of_refused["line"].to_list(), named)
    bad_events.check(read.num_rows, settings.max_bad_rows)
    of_unknown = events.filter(~known & ~refused & ~idle)
    unknown = _unknown_items(files.interactions, of_unknown)
    _check_unknown(files.interactions, unknown, read.num_rows, settings)
    num_idle = events.filter(idle).height
    created: list[str] = []
    if settings.unknown_items == "create" and of_unknown.height:
        created = of_unknown["item_id"].unique(maintain_order=True).to_list()
        catalogue = _with_created(catalogue, created)
        known = pl.col("item_id").is_in(catalogue.items["item_id"].implode())
    _check_size(files.items, catalogue)
    interactions, repeated = without_repeated(events.filter(known))
    return ShopData(
        interactions=interactions,
        catalogue=catalogue,
        repeated=repeated,
        bad_rows=(bad_items, bad_events),
        rows={files.items.name: catalogue.num_rows, files.interactions.name: read.num_rows},
        num_idle=num_idle,
        unknown=unknown,
        num_created=len(created),
        notes=(catalogue.notes, read.notes),
        parts=files.interactions.parts,
    )


def _check_size(source: ShopFile, catalogue: ShopCatalogue) -> None:
    if catalogue.items.height < 2:
        raise DataError(
            "data.too_few_items",
            f"{source.path} holds {catalogue.items.height} usable item(s); recommending needs at least 2.",
            fix="Provide a catalogue of at least 2 items.",
        )


def _unknown_items(source: ShopFile, rows: pl.DataFrame) -> UnknownItems:
    first = [
        f"{line_text(line, source.parts)}: {shown(item_id)}"
        for line, item_id in rows.select("line", "item_id").head(NUM_LINES_NAMED).iter_rows()
    ]
    return UnknownItems(rows.height, rows["item_id"].n_unique(), first)


def _check_unknown(source: ShopFile, unknown: UnknownItems, num_rows: int, settings: IngestConfig) -> None:
    if settings.unknown_items == "refuse" and unknown.rows > settings.max_unknown_items * num_rows:
        raise DataError(
            "data.too_many_unknown_items",
            f"{source.name}: {unknown.rows} of {num_rows} rows are of {unknown.items} items that the items file lacks, "
            f"more than the allowed share of {settings.max_unknown_items:g}: {', '.join(unknown.places[:5])}.",
            fix="Add the items (with available false, if they are no longer sold), or leave these rows out with "
            "--unknown-items drop, or add the items with nothing but their id with --unknown-items create.",
        )


def _with_created(catalogue: ShopCatalogue, item_ids: Sequence[str]) -> ShopCatalogue:
    """The catalogue with items that have nothing but an id."""
    created = pl.DataFrame({"line": [0] * len(item_ids), "item_id": item_ids}, schema_overrides=SCHEMA)
    items = pl.concat([catalogue.items, created], how="diagonal_relaxed")
    return catalogue._replace(items=items, num_offered=catalogue.num_offered + len(item_ids))
