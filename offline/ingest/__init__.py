"""The stage `ingest`: a shop's two files become numbered, ordered, split tables.

It alone reads the shop's folder. Runs as `python -m offline ingest`. It writes `items.parquet`, `users.parquet`,
`train.parquet`, `heldout.parquet` and `report.json` as ARCHITECTURE.md lists them, and `excluded.parquet` (user_index,
item_index): items that a user dislikes, for serving only.
"""

import json
import time
from pathlib import Path
from typing import Any

import polars as pl
from rich.markup import escape
from rich.table import Table

from isrf.errors import DataError
from isrf.order import Split
from offline.context import StageContext
from offline.ingest.bad_rows import BadRows
from offline.ingest.files import find_file
from offline.ingest.fingerprint import data_fingerprint, order_fingerprint
from offline.ingest.histories import REMOVE, Histories, build_histories
from offline.ingest.interactions import read_interactions
from offline.ingest.items import read_items
from offline.ingest.numbering import Numbering, number
from offline.ingest.reading import describe_ahead, learned_until, rows_ahead

__all__ = ["VERSION", "run"]

VERSION = 4


def run(ctx: StageContext) -> None:
    """Reads `ctx.data`, writes the stage's tables to `ctx.out`.

    Raises:
        DataError: the shop's files cannot be used; `code` and `fix` say why and what to do.
    """
    settings = ctx.config.ingest
    items_path = find_file(ctx.data, "items", ("jsonl", "parquet"))
    path = find_file(ctx.data, "interactions", ("csv", "parquet"))
    read_at = time.time()
    until = learned_until(items_path, path)
    interactions, items, bad_rows, num_rows, num_idle = _read(ctx, items_path, path)
    ahead = rows_ahead(interactions, read_at)
    if ahead:
        ctx.progress.console.print(f"[bold yellow]ingest: {path.name}: {escape(describe_ahead(ahead, read_at))}")
    histories = build_histories(
        interactions,
        shuffle_seed=settings.shuffle_ties,
        hold_out=ctx.config.fit == "train",
        learned_until=until.events,
    )
    _check_histories(histories, fit=ctx.config.fit)
    numbering = number(items, histories.events.filter(pl.col("split") == Split.TRAIN), histories.excluded)
    _write(ctx, histories, numbering)
    report = {
        "rows": num_rows,
        "bad_rows": {rows.file: rows.as_json() for rows in bad_rows},
        "counts": _counts(histories, numbering),
        "duplicate_interactions": interactions.height - interactions.drop("line").n_unique(),
        "taken_back": histories.taken_back,
        "removes_of_unknown_items": num_idle,
        "disliked_pairs": histories.excluded.height,
        "users_with_tied_last_events": histories.tied_users,
        "tie_seed": settings.shuffle_ties,
        "events_through": histories.events["timestamp"].max(),
        "learned_until": until.model_dump(),
        "ahead_of_clock": ahead,
        "fingerprint": data_fingerprint(interactions, items),
        "order_fingerprint": order_fingerprint(histories.events),
    }
    (ctx.out / "report.json").write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    _show(ctx, report)


def _read(
    ctx: StageContext, items_path: Path, path: Path
) -> tuple[pl.DataFrame, pl.DataFrame, tuple[BadRows, BadRows], dict[str, int], int]:
    """Good interactions of known items, the catalogue, bad rows, rows per file, removes of items it does not hold.

    Such a remove is no bad row: the service takes one of an item that left the catalogue, and it changes nothing here.
    """
    bad_items, bad_events = BadRows(items_path.name), BadRows(path.name)
    catalogue = read_items(items_path, bad_items)
    bad_items.check(catalogue.num_rows, ctx.config.ingest.max_bad_rows)
    if catalogue.items.height < 2:
        raise DataError(
            "data.too_few_items",
            f"{items_path} holds {catalogue.items.height} usable item(s); recommending needs a choice.",
            fix="Give a catalogue of at least 2 items.",
        )
    events, num_rows = read_interactions(path, bad_events)
    known = pl.col("item_id").is_in(catalogue.items["item_id"].implode())
    refused = pl.col("item_id").is_in(pl.Series(catalogue.refused, dtype=pl.String).implode())
    idle = ~known & (pl.col("event") == REMOVE)
    bad_events.add("item_refused", events.filter(refused & ~idle)["line"].to_list())
    bad_events.add("unknown_item", events.filter(~known & ~refused & ~idle)["line"].to_list())
    bad_events.check(num_rows, ctx.config.ingest.max_bad_rows)
    rows = {items_path.name: catalogue.num_rows, path.name: num_rows}
    return events.filter(known), catalogue.items, (bad_items, bad_events), rows, events.filter(idle).height


def _check_histories(histories: Histories, *, fit: str) -> None:
    if histories.events.is_empty():
        raise DataError(
            "data.no_history",
            "no usable interaction is left: every row is bad, a dislike, a remove or taken back.",
            fix="Export the shop's interactions again.",
        )
    if fit == "train" and (histories.events["split"] == Split.TRAIN).all():
        raise DataError(
            "data.no_held_out_users",
            "no user has 3 events or more, so nothing can be held out and no release evaluated.",
            fix="Give at least one user with 3 events or more: every release is evaluated before --fit all retrains.",
        )


def _write(ctx: StageContext, histories: Histories, numbering: Numbering) -> None:
    def indexed(table: pl.DataFrame, name: str) -> pl.DataFrame:
        return table.with_row_index(f"{name}_index").select(f"{name}_id", pl.col(f"{name}_index").cast(pl.Int32))

    items, users = indexed(numbering.items, "item"), indexed(numbering.users, "user")

    def rows(table: pl.DataFrame) -> pl.DataFrame:
        joined = table.join(users, on="user_id", how="inner", maintain_order="left")
        joined = joined.join(items, on="item_id", how="inner", maintain_order="left")
        return joined.sort("user_index", maintain_order=True)

    events = rows(histories.events)
    held_out = pl.col("split") != Split.TRAIN
    numbering.items.write_parquet(ctx.out / "items.parquet")
    numbering.users.write_parquet(ctx.out / "users.parquet")
    columns = ("user_index", "item_index", "timestamp")
    events.filter(~held_out).select(*columns, "event", "weight").write_parquet(ctx.out / "train.parquet")
    split = pl.when(pl.col("split") == Split.VALID).then(pl.lit("valid")).otherwise(pl.lit("test")).alias("split")
    events.filter(held_out).select(*columns, "event", split).write_parquet(ctx.out / "heldout.parquet")
    excluded = rows(histories.excluded).select("user_index", "item_index").sort("user_index", "item_index")
    excluded.write_parquet(ctx.out / "excluded.parquet")


def _counts(histories: Histories, numbering: Numbering) -> dict[str, int]:
    split = histories.events["split"]
    interacted = histories.events.filter(pl.col("split") == Split.TRAIN)["item_id"].n_unique()
    return {
        "items": numbering.items.height,
        "items_without_training_events": numbering.items.height - interacted,
        "users": numbering.users.height,
        "interactions": histories.events.height,
        **{part.name.lower(): int((split == part).sum()) for part in Split},
    }


def _show(ctx: StageContext, report: dict[str, Any]) -> None:
    counts = report["counts"]
    console = ctx.progress.console
    console.print(
        f"ingest: {counts['items']} items, {counts['users']} users, {counts['interactions']} interactions "
        f"({counts['train']} training, {counts['valid']} validation, {counts['test']} test)"
    )
    if not any(report["bad_rows"].values()):
        return
    table = Table("file", "kind", "rows", "first lines", title="Rows that were left out")
    for file, kinds in report["bad_rows"].items():
        for kind, entry in kinds.items():
            table.add_row(file, kind, str(entry["rows"]), ", ".join(map(str, entry["lines"])))
    console.print(table)
