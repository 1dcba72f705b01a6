"""Reads the interactions' own values block by block, and notes what must be known of all rows before one is read.

It finds the columns, and takes no value for good or bad.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count

import polars as pl

from isrf.contract.errors import DataError
from isrf.contract.shown import shown
from offline.reading.bad_rows import BadRows
from offline.reading.cells import whole_ids
from offline.reading.columns import Wanted, find_columns
from offline.reading.files import ShopFile, check_same_columns, parquet_columns, read_parquet
from offline.reading.lines import first_line
from offline.reading.names import INTERACTION_NAMES
from offline.reading.notes import FileNotes, notes_of_text
from offline.reading.settings import INTERACTION_COLUMNS, IngestConfig
from offline.reading.text_table import TextPart, read_text_part
from offline.reading.times import count_forms
from offline.stages.ingest.owners import session_owner
from offline.stages.ingest.parts.spool import PART_ROWS, Spool

REQUIRED = ("user_id", "item_id")
OPTIONAL = tuple(name for name in INTERACTION_COLUMNS if name not in REQUIRED)
WANTED = Wanted(INTERACTION_COLUMNS, REQUIRED, INTERACTION_NAMES, order=("timestamp", "position"))
OF_PEOPLE = ("user_id", "session_id")
IDS = (*REQUIRED, "session_id")
ENDS_IN_POINT_ZERO = r"^\d{1,15}\.0$"
BLOCK_ROWS = 1_000_000
"""Rows that are read at once."""
SAMPLED_ROWS = 2_000
"""Rows of a block whose users say how users are divided."""
_TEXTS = (*REQUIRED, "event", "session_id")


class RawInteractions:
    """The file's own values, and what all of them have in common.

    Attributes:
        num_rows: read.
        notes: how the file was read.
        num_values: values of each column.
        time_forms: values of `timestamp` by form.
        first_time: line and text of the first value of `timestamp`; None where there is none.
        event_types: distinct values of `event`.
        first_ids: the first value of each column of ids.
        point_zero: columns of ids of which every value is a number that ends in .0.
        item_ids_as_listed: whether the catalogue has an item_id of the file's exact text.
        names_addresses: whether an id of a person has an @.
        sampled_users: ids of users, and of sessions where a row has no user, of a sample of rows.
    """

    def __init__(
        self,
        source: ShopFile,
        bad_rows: BadRows,
        settings: IngestConfig,
        catalogue: pl.Series | None,
        *,
        part_rows: int = PART_ROWS,
    ) -> None:
        self._spool = Spool(part_rows)
        self._block_rows = min(BLOCK_ROWS, part_rows)
        self._kinds: dict[str, set[pl.DataType]] = {}
        self._catalogue = None if catalogue is None else catalogue.implode()
        self.notes = FileNotes(source.name, source.format, source.parts)
        self.num_values: Counter[str] = Counter()
        self.time_forms: Counter[str] = Counter()
        self.first_time: tuple[int, str] | None = None
        self.event_types: set[str | None] = set()
        self.first_ids: dict[str, str] = {}
        self.point_zero = set(IDS)
        self.item_ids_as_listed = False
        self.names_addresses = False
        self.sampled_users: list[str] = []
        is_text = source.format != "parquet"
        empty = []
        for block in self._text(source, bad_rows, settings) if is_text else self._parquet(source, settings):
            self._note(block)
            self._spool.add(block)
            empty.append(block.clear())
        self._types = pl.concat(empty, how="vertical_relaxed").schema
        self.num_rows = self._spool.height
        self._check_kinds(source)

    def blocks(self) -> Iterator[pl.DataFrame]:
        """Blocks of rows in file order: `line` i64 and every column of ours, of one type in all blocks."""
        found = self._types
        missing = [pl.lit(None, dtype=pl.String).alias(name) for name in OPTIONAL if name not in found]
        ours = [pl.col(name).cast(pl.String if kind == pl.Null else kind) for name, kind in found.items()]
        for block in self._spool.tables():
            yield block.select(*ours, *missing).select("line", *REQUIRED, *OPTIONAL)

    def _note(self, block: pl.DataFrame) -> None:
        for name in block.columns:
            values = block[name].drop_nulls()
            if not len(values):
                continue
            self.num_values[name] += len(values)
            self._kinds.setdefault(name, set()).add(values.dtype)
            if name in IDS:
                self.first_ids.setdefault(name, values[0])
                if name in self.point_zero and not values.str.contains(ENDS_IN_POINT_ZERO).all():
                    self.point_zero.discard(name)
            if name in OF_PEOPLE and not self.names_addresses:
                self.names_addresses = bool(values.str.contains("@", literal=True).any())
        if "item_id" in self.point_zero and self._catalogue is not None and not self.item_ids_as_listed:
            self.item_ids_as_listed = bool(block["item_id"].is_in(self._catalogue).any())
        self.event_types |= set(block["event"].unique().to_list() if "event" in block.columns else [None])
        if self.num_values["timestamp"] and "timestamp" in block.columns:
            self.time_forms.update(count_forms(block["timestamp"]))
            timed = block.filter(pl.col("timestamp").is_not_null())
            if self.first_time is None and timed.height:
                self.first_time = timed["line"][0], str(timed["timestamp"][0])
        sampled = block.gather_every(max(block.height // SAMPLED_ROWS, 1))
        sessions = [session_owner(pl.col("session_id"))] if "session_id" in block.columns else []
        owners = sampled.select(pl.coalesce(pl.col("user_id"), *sessions).cast(pl.String).alias("owner"))["owner"]
        self.sampled_users += owners.drop_nulls().to_list()

    def _check_kinds(self, source: ShopFile) -> None:
        for name, kinds in sorted(self._kinds.items()):
            if len(kinds) > 1 and any(kind.is_temporal() for kind in kinds):  # polars would count days as seconds
                raise DataError(
                    "data.bad_column_type",
                    f"the parts of {source.path} hold {name} as {' and '.join(sorted(map(str, kinds)))}.",
                    fix="Write the same type in all parts.",
                )

    def _text(self, source: ShopFile, bad_rows: BadRows, settings: IngestConfig) -> Iterator[pl.DataFrame]:
        """The file's columns as strings, empty values as null."""
        parts: list[TextPart] = []
        for number, path in enumerate(source.files):
            part = read_text_part(
                path,
                f"{path}",
                bad_rows,
                settings,
                lambda where, header: find_columns(where, header, WANTED, settings.columns),
                part=number,
            )
            check_same_columns(source, number, parts[0].columns.header if parts else (), part.columns.header)
            parts.append(part)
            for block in _of_size(part.blocks, self._block_rows):
                yield block.select("line", *sorted(part.columns.ours))
        self.notes = notes_of_text(source.name, source.parts, parts)

    def _parquet(self, source: ShopFile, settings: IngestConfig) -> Iterator[pl.DataFrame]:
        """Ids and event as strings, other columns as they are; `line` counts rows from 1."""
        for number, path in enumerate(source.files):
            names = parquet_columns(path)
            columns = find_columns(str(path), names, WANTED, settings.columns)
            first = columns if self.notes.columns is None else self.notes.columns
            check_same_columns(source, number, first.header, columns.header)
            self.notes = self.notes._replace(columns=first)
            wanted = list(dict.fromkeys(names[place] for place in columns.ours.values()))
            for offset in count(0, self._block_rows):
                table = read_parquet(path, wanted, first_row=offset, num_rows=self._block_rows)
                table = table.select(pl.col(names[place]).alias(field) for field, place in columns.ours.items())
                typed = [_typed(path, field, table[field]) for field in columns.ours]
                lines = pl.int_range(pl.len(), dtype=pl.Int64) + (first_line(number) + offset + 1)
                if table.height or not offset:
                    yield table.select(lines.alias("line"), *typed).select("line", *sorted(columns.ours))
                if table.height < self._block_rows:
                    break


def _of_size(blocks: Iterator[pl.DataFrame], num_rows: int) -> Iterator[pl.DataFrame]:
    """The rows in blocks of at least `num_rows`, the last one aside; always one."""
    waiting: list[pl.DataFrame] = []
    for block in blocks:
        waiting.append(block)
        if sum(table.height for table in waiting) >= num_rows:
            yield pl.concat(waiting)
            waiting = []
    if waiting:
        yield pl.concat(waiting)


def _typed(path: object, column: str, values: pl.Series) -> pl.Series:
    dtype = values.dtype
    if column in OPTIONAL and values.null_count() == len(values):
        return pl.repeat(None, len(values), dtype=pl.Null, eager=True).alias(column)  # empty: its type does not matter
    if column in _TEXTS:
        values = whole_ids(values)
        fits = values.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)
    elif column == "timestamp" and dtype.is_temporal():
        fits = dtype in (pl.Date, pl.Datetime)
    else:
        fits = dtype.is_numeric() or dtype in (pl.String, pl.Null)
    if not fits:
        example = shown(values.drop_nulls().head(1).to_list()) if column not in OF_PEOPLE else ""
        raise DataError(
            "data.bad_column_type",
            f"{path}: the column {column} holds {dtype}" + (f", such as {example}." if example else "."),
            fix="Write ids and events as strings, and timestamp, position and weight as numbers.",
        )
    return values.cast(pl.String) if column in _TEXTS else values


def boundaries(sampled: Sequence[str], num_parts: int) -> pl.Series:
    """Ids that divide users into at most `num_parts` ranges of about equally many rows, ascending."""
    ordered = pl.Series("user_id", sampled, dtype=pl.String).sort()
    places = [len(ordered) * part // num_parts for part in range(1, num_parts)] if len(ordered) else []
    return ordered.gather(places).unique().sort()
