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
from offline.stages.ingest.interactions import InteractionReader
from offline.stages.ingest.items import SCHEMA, ShopCatalogue, read_items
from offline.stages.ingest.owners import IS_SESSION
from offline.stages.ingest.parts.raw import boundaries
from offline.stages.ingest.parts.repeated import Repeated, without_repeated
from offline.stages.ingest.parts.spool import PART_ROWS, Spool, divided


class ShopFiles(NamedTuple):
    """A shop's two files."""

    items: ShopFile
    interactions: ShopFile


class ShopData(NamedTuple):
    """The content of the shop's files.

    Attributes:
        events: good rows of known items, each event once; `user_id` is the owner. They are divided into parts of
            ascending users; the rows of a part are in file order.
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

    events: Spool
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
        return int(self.events.gather(lambda part: part.select(IS_SESSION.sum())).sum().item())

    @property
    def interactions(self) -> pl.DataFrame:
        """All of `events` in file order, in memory."""
        return self.events.joined() if len(self.events) == 1 else self.events.joined().sort("line")

    def first_interactions(self, count: int) -> pl.DataFrame:
        """The first rows of `events` in file order."""
        return self.events.gather(lambda part: part.sort("line").head(count)).sort("line").head(count)

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


def read_shop(files: ShopFiles, config: RunConfig, *, part_rows: int = PART_ROWS) -> ShopData:
    """Reads both files of a shop.

    Args:
        files: of the items and of the interactions.
        config: `[ingest]` and `[events]`.
        part_rows: of more interactions only so many are in memory.

    Raises:
        DataError: a file cannot be used, or too many of its rows are bad.
    """
    settings = config.ingest
    bad_items = BadRows(files.items.name, files.items.parts)
    bad_events = BadRows(files.interactions.name, files.interactions.parts)
    catalogue = read_items(files.items, bad_items, settings)
    bad_items.check(catalogue.num_rows, settings.max_bad_rows)
    creates = settings.unknown_items == "create"
    if not creates:
        _check_size(files.items, catalogue)
    ids = catalogue.items["item_id"]
    read = InteractionReader(
        files.interactions, bad_events, settings, config.events, catalogue=ids, part_rows=part_rows
    )
    sorted_rows = _KnownItems(catalogue, bad_events, keep_unknown=creates)
    limits = boundaries(read.sampled_users, -(-read.num_rows // part_rows))
    events = divided(
        (sorted_rows.of(block) for block in read.blocks()),
        lambda table: limits.search_sorted(table["user_id"], side="right"),
        parts=len(limits) + 1,
        rows=part_rows,
    )
    notes = read.notes()
    headers = [catalogue.file_columns, list(notes.columns.header if notes.columns else ())]
    if (error := unused_mapping(settings.columns, headers)) is not None:
        raise error
    bad_events.check(read.num_rows, settings.max_bad_rows)
    unknown = sorted_rows.unknown(files.interactions)
    _check_unknown(files.interactions, unknown, read.num_rows, settings)
    created = list(sorted_rows.unknown_ids) if creates else []
    if created:
        catalogue = _with_created(catalogue, created)
    if creates:
        known = pl.col("item_id").is_in(catalogue.items["item_id"].implode())
        events = events.mapped(lambda part: part.filter(known))
    _check_size(files.items, catalogue)
    events, repeated = without_repeated(events)
    return ShopData(
        events=events,
        catalogue=catalogue,
        repeated=repeated,
        bad_rows=(bad_items, bad_events),
        rows={files.items.name: catalogue.num_rows, files.interactions.name: read.num_rows},
        num_idle=sorted_rows.num_idle,
        unknown=unknown,
        num_created=len(created),
        notes=(catalogue.notes, notes),
        parts=files.interactions.parts,
    )


class _KnownItems:
    """Keeps the rows of items that the catalogue has, and counts the others.

    Attributes:
        num_idle: as in `ShopData`.
        unknown_ids: item ids that the catalogue lacks, in the order of their first rows.
    """

    def __init__(self, catalogue: ShopCatalogue, bad_rows: BadRows, *, keep_unknown: bool) -> None:
        self._known = pl.col("item_id").is_in(catalogue.items["item_id"].implode())
        self._refused = pl.col("item_id").is_in(pl.Series(catalogue.refused, dtype=pl.String).implode())
        self._bad_rows, self._keep_unknown = bad_rows, keep_unknown
        self._num_unknown = 0
        self._first: list[tuple[int, str]] = []
        self.num_idle = 0
        self.unknown_ids: dict[str, None] = {}

    def of(self, block: pl.DataFrame) -> pl.DataFrame:
        """The rows of a block that stay; with `keep_unknown` all that are not refused."""
        block = block.with_columns(self._known.alias("known"))
        others = block.filter(~pl.col("known"))
        block = block.filter(pl.col("known")).drop("known")
        if others.is_empty():
            return block
        idle = others["event"] == REMOVE
        self.num_idle += int(idle.sum())
        refused = others.filter(~idle & others.select(self._refused).to_series())
        named = [shown(item_id) for item_id in refused["item_id"].head(NUM_LINES_NAMED)]
        self._bad_rows.add("item_refused", refused["line"].to_list(), named)
        unknown = others.filter(~idle & ~others.select(self._refused).to_series())
        self._num_unknown += unknown.height
        self._first = [*self._first, *unknown.select("line", "item_id").head(NUM_LINES_NAMED).iter_rows()]
        self._first = self._first[:NUM_LINES_NAMED]
        self.unknown_ids |= dict.fromkeys(unknown["item_id"].unique(maintain_order=True))
        if not self._keep_unknown:
            return block
        return pl.concat([block, others.filter(idle).drop("known"), unknown.drop("known")]).sort("line")

    def unknown(self, source: ShopFile) -> "UnknownItems":
        """The rows of unknown items of all blocks."""
        places = [f"{line_text(line, source.parts)}: {shown(item_id)}" for line, item_id in self._first]
        return UnknownItems(self._num_unknown, len(self.unknown_ids), places)


def _check_size(source: ShopFile, catalogue: ShopCatalogue) -> None:
    if catalogue.items.height < 2:
        raise DataError(
            "data.too_few_items",
            f"{source.path} holds {catalogue.items.height} usable item(s); recommending needs at least 2.",
            fix="Provide a catalogue of at least 2 items.",
        )


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
