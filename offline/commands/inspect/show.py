"""Prints how a shop's folder is read: columns, ten rows of each file, and whether a run would work."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from isrf.contract.errors import DataError
from isrf.contract.item_changes import METADATA
from isrf.contract.shown import printable
from offline.commands.inspect.heads import NUM_ROWS, read_head
from offline.commands.reingest import read_again
from offline.config import RunConfig
from offline.pipeline import STAGES
from offline.preconditions import check_settings, check_shop
from offline.reading.columns import Wanted, find_columns, found_columns, possible_columns
from offline.reading.files import ShopFile
from offline.reading.names import option
from offline.reading.settings import IngestConfig
from offline.runtime.ingest_report import ingest_report
from offline.runtime.left_out import parts_left_out
from offline.sizes import fit_to_shop
from offline.stages.ingest import interactions, item_records
from offline.stages.ingest import stage as ingest
from offline.stages.ingest.owners import is_session, session_id
from offline.stages.ingest.shop import ShopData, shop_files

_WIDTH = 40


def inspect_data(data: Path, config: RunConfig, *, output: Console, progress: Progress) -> None:
    """Prints what the files hold and what a run would do with them.

    Args:
        data: the shop's folder.
        config: of the run.
        output: takes the tables.
        progress: its console takes the report of `ingest`, with its questions.

    Raises:
        DataError: a run would be refused; what could be understood is printed before.
        ConfigError: a setting cannot work with the shop's size.
    """
    files = shop_files(data)
    asked: dict[str, None] = {}
    for file, wanted, others in (
        (files.items, item_records.WANTED, "attribute"),
        (files.interactions, interactions.WANTED, "not used"),
    ):
        output.print(_columns(file, wanted, others, config.ingest, asked))
    if asked:
        text = f"Columns that a run needs may be these, which only you can know: {'; '.join(asked)}."
        output.print(Text(text), soft_wrap=True)
    reading = ingest.read_folder(data, config)
    output.print(_events(reading.shop))
    output.print(_items(reading.shop))
    with read_again(data, config, progress, reading=reading) as ingested:
        report = ingest_report(ingested)
    check_shop(report)
    fitted, changes = fit_to_shop(config, report["counts"], num_targets=report["learning"]["targets"])
    check_settings(fitted, report["counts"]["items"], set(STAGES))
    counts = report["counts"]
    output.print(
        f"A run would work: {counts['train']} training events of {report['learning']['users']} users"
        f"{' and ' + str(counts['sessions']) + ' sessions' if counts['sessions'] else ''}, "
        f"{counts['test']} to evaluate on, {counts['items']} items.",
        highlight=False,
    )
    for change in changes:
        output.print(f"It would adjust to the shop's size: {change}", highlight=False)
    for part, reason in parts_left_out(report, config).items():
        output.print(f"It would leave out: {part} ({reason})", highlight=False)


def _columns(file: ShopFile, wanted: Wanted, others: str, settings: IngestConfig, asked: dict[str, None]) -> Table:
    """Adds to `asked` the options for columns that the file may have under another name."""
    head = read_head(file, settings)
    meanings = _meanings_of_fields if file.format == "jsonl" else _meanings_of_columns
    meaning = meanings(file, head.columns, wanted, others, settings)
    if not meaning:  # a refused header
        names, ours = found_columns(file.name, head.columns, wanted, settings.columns)
        possible = possible_columns(names, ours, wanted)
        asked |= dict.fromkeys(option(field, name) for field, name in possible)
        meaning = {place: name for name, place in ours.items()}
        meaning |= {names.index(name): f"{field}?" for field, name in possible}
    parts = f", {len(file.parts)} parts" if file.parts else ""
    table = _table(f"{file.name}: {head.how or 'Parquet'}{parts}", "column", "read as", "first row")
    for place, name in enumerate(head.columns):
        first = head.rows[0][place] if head.rows else None
        table.add_row(_cell(name), _cell(meaning.get(place, "?")), _cell(first))
    return table


def _meanings_of_columns(
    file: ShopFile, names: list[str], wanted: Wanted, others: str, settings: IngestConfig
) -> dict[int, str]:
    """Place → what a column is read as; empty where the header is refused."""
    try:
        columns = find_columns(file.name, names, wanted, settings.columns)
    except DataError:  # raised again, with all that was found, by the reading that follows
        return {}
    return {place: name for name, place in columns.ours.items()} | dict.fromkeys(columns.others.values(), others)


def _meanings_of_fields(
    _: ShopFile, names: list[str], wanted: Wanted, others: str, settings: IngestConfig
) -> dict[int, str]:
    """Place → what a field of JSON is read as."""
    mapped = item_records.json_names(settings)
    given = {mapped[name] for name in names if name in mapped}
    own = {name: "not used" if name in given else name for name in wanted.known}
    return {place: mapped.get(name) or own.get(name, others) for place, name in enumerate(names)}


def _events(shop: ShopData) -> Table:
    table = _table("The first events as read", "line", "user_id", "item_id", "time (UTC)", "event", "weight")
    columns = ["line", "user_id", "item_id", "timestamp", "position", "event", "weight"]
    for line, owner, item, timestamp, position, event, weight in shop.first_interactions(NUM_ROWS)[columns].iter_rows():
        user = f"session {session_id(owner)}" if is_session(owner) else owner
        moment = f"position {position}" if timestamp is None else _moment(timestamp)
        table.add_row(*map(_cell, (shop.line_text(line), user, item, moment, event, f"{weight:g}")))
    return table


def _items(shop: ShopData) -> Table:
    items = shop.catalogue.items.drop("line").head(NUM_ROWS)
    names = [column.name for column in items.iter_columns() if column.null_count() < items.height]
    table = _table("The first items as read", *("other fields" if name == METADATA else name for name in names))
    for row in items.select(names).iter_rows():
        table.add_row(*map(_cell, row))
    return table


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="auto")[:-6]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for name in columns:
        table.add_column(name, no_wrap=True)
    return table


def _cell(value: Any) -> Text:
    text = "" if value is None else " > ".join(map(str, value)) if isinstance(value, list) else str(value)
    return Text(printable(text, _WIDTH))
