"""The stage `ingest`: turns a shop's two files into numbered, ordered, split tables.

It is the only stage that reads the shop's folder. Run it with `python -m offline ingest`. It writes `items.parquet`,
`users.parquet`, `train.parquet`, `heldout.parquet` and `report.json`, which docs/concepts/bundle.md describes, and
`excluded.parquet` (user_index, item_index): items that a user dislikes, for serving only. A `user_index` from the
number of users on is that of a session (`offline.stages.ingest.owners`).
"""

import json
import time
from pathlib import Path
from typing import NamedTuple

import polars as pl
from rich.markup import escape
from rich.text import Text

from isrf.contract.errors import DataError
from isrf.contract.manifest import LearnedUntil
from isrf.method.order import Split
from offline.config import RunConfig
from offline.context import StageContext
from offline.reading.names import event_questions
from offline.stages.ingest.histories import Histories, build_histories
from offline.stages.ingest.numbering import Numbering, number
from offline.stages.ingest.owners import IS_SESSION
from offline.stages.ingest.parts.fingerprint import data_fingerprint, order_fingerprint
from offline.stages.ingest.parts.spool import PART_ROWS, Spool, divided
from offline.stages.ingest.reading import describe_ahead, describe_early, learned_until, rows_ahead
from offline.stages.ingest.shop import ShopData, read_shop, shop_files
from offline.stages.ingest.weights import check_weights, describe_weights, rows_by_type, type_weights, weighed

VERSION = 14
_TRAINING = pl.col("split") == Split.TRAIN
_EVERY = pl.lit(True)


class ShopReading(NamedTuple):
    """A shop's folder as it was read.

    Attributes:
        shop: the content of its files.
        at: when, seconds since 1970.
        until: the times until which the files can contain events and items.
    """

    shop: ShopData
    at: float
    until: LearnedUntil


def read_folder(data: Path, config: RunConfig, *, part_rows: int = PART_ROWS) -> ShopReading:
    """Reads a shop's folder.

    Args:
        data: the folder.
        config: `[ingest]` and `[events]`.
        part_rows: of more interactions only so many are in memory; results do not depend on it.

    Raises:
        DataError: the shop's files cannot be used; `code` and `fix` say why and what to do.
    """
    files = shop_files(data)
    read_at = time.time()
    until = learned_until(files.items, files.interactions)
    return ShopReading(read_shop(files, config, part_rows=part_rows), read_at, until)


def run(ctx: StageContext) -> None:
    """Reads `ctx.data`, writes the stage's tables to `ctx.out`.

    Raises:
        DataError: as `read_folder` and `write_outputs`.
    """
    write_outputs(ctx, read_folder(ctx.data, ctx.config))


def write_outputs(ctx: StageContext, reading: ShopReading) -> None:
    """Writes the stage's tables to `ctx.out`, and its report to the console too.

    Raises:
        DataError: `data.no_history`, `data.no_weight`.
    """
    settings = ctx.config.ingest
    shop, read_at, until = reading
    interactions, items = shop.events, shop.catalogue.items
    ahead = rows_ahead(interactions, read_at, shop.parts)
    if ahead:
        name = shop.bad_rows[1].file
        ctx.progress.console.print(f"[bold yellow]ingest: {name}: {escape(describe_ahead(ahead, read_at))}")
    histories = build_histories(
        interactions,
        shuffle_seed=settings.shuffle_ties,
        hold_out=ctx.config.fit == "train",
        learned_until=until.events,
    )
    _check_histories(histories)
    numbering = number(items, histories.events, histories.excluded)
    types = rows_by_type(interactions)
    weights = type_weights(types, ctx.config.events)
    # Only now: row numbers do not depend on what a type weighs.
    histories = histories._replace(events=histories.events.mapped(lambda part: weighed(part, weights)))
    check_weights(rows_by_type(histories.events.mapped(lambda part: part.filter(_TRAINING))))
    _write(ctx, histories, numbering)
    counts = _counts(histories, numbering)
    report = {
        "rows": shop.rows,
        "read": {notes.file: notes.as_json() for notes in shop.notes},
        "bad_rows": {rows.file: rows.as_json() for rows in shop.bad_rows},
        "counts": counts,
        "duplicate_interactions": shop.repeated.rows,
        "duplicate_items": shop.catalogue.num_repeated,
        "items_available": shop.catalogue.num_offered,
        "item_fields": shop.catalogue.names.as_json(),
        "attributes": shop.catalogue.attributes.as_json(),
        "learning": _learning(histories),
        "taken_back": histories.taken_back,
        "removes_of_unknown_items": shop.num_idle,
        "unknown_items": shop.unknown.as_json() | {"rule": settings.unknown_items},
        "sessions": _of_sessions(histories),
        "own_sessions": {"pairs": histories.own_sessions, "left_out": histories.left_out_of_sessions},
        "disliked_pairs": histories.excluded.filter(~IS_SESSION).height,
        "users_with_tied_last_events": histories.tied_users,
        "tie_seed": settings.shuffle_ties,
        "events_through": histories.events.gather(lambda part: part.select(pl.col("timestamp").max())).max().item(),
        "learned_until": until.model_dump(),
        "ahead_of_clock": ahead,
        "event_types": _rows_of_types(types),
        "event_weights": weights,
        "excluding": sorted(ctx.config.events.excluding),
        "fingerprint": data_fingerprint(interactions, items),
        "order_fingerprint": order_fingerprint(histories.events),
    }
    (ctx.out / "report.json").write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    _show(ctx, counts, shop, left_out_of_sessions=histories.left_out_of_sessions)


def _check_histories(histories: Histories) -> None:
    if not histories.events.height:
        raise DataError(
            "data.no_history",
            "there is no usable interaction: every row is bad, a dislike, a remove or taken back by a remove.",
            fix="Export the shop's interactions again.",
        )


def _write(ctx: StageContext, histories: Histories, numbering: Numbering) -> None:
    def indexed(table: pl.DataFrame, name: str) -> pl.DataFrame:
        return table.with_row_index(f"{name}_index").select(f"{name}_id", pl.col(f"{name}_index").cast(pl.Int32))

    items = indexed(numbering.items, "item")
    users = indexed(pl.concat([numbering.users, numbering.sessions]), "user")

    def rows(table: pl.DataFrame) -> pl.DataFrame:
        joined = table.join(users, on="user_id", how="inner", maintain_order="left")
        joined = joined.join(items, on="item_id", how="inner", maintain_order="left")
        return joined.sort("user_index", maintain_order=True)

    num_parts = len(histories.events)
    width = -(-users.height // num_parts)
    events = divided(
        (rows(part) for part in histories.events.tables()),
        lambda table: table["user_index"] // width,
        parts=num_parts,
        rows=histories.events.memory_rows,
    ).mapped(lambda part: part.sort("user_index", maintain_order=True))
    held_out = pl.col("split") != Split.TRAIN
    numbering.items.write_parquet(ctx.out / "items.parquet")
    numbering.users.write_parquet(ctx.out / "users.parquet")
    columns = ("user_index", "item_index", "timestamp", "event", "weight")
    events.mapped(lambda part: part.filter(~held_out).select(*columns)).write(ctx.out / "train.parquet")
    split = pl.when(pl.col("split") == Split.VALID).then(pl.lit("valid")).otherwise(pl.lit("test")).alias("split")
    events.mapped(lambda part: part.filter(held_out).select(*columns, split)).write(ctx.out / "heldout.parquet")
    excluded = rows(histories.excluded.filter(~IS_SESSION)).select("user_index", "item_index")
    excluded.sort("user_index", "item_index").write_parquet(ctx.out / "excluded.parquet")


def _counts(histories: Histories, numbering: Numbering) -> dict[str, int]:
    trained = histories.events.gather(lambda part: part.filter(_TRAINING).select("item_id").unique())
    return {
        "items": numbering.items.height,
        "items_without_training_events": numbering.items.height - trained["item_id"].n_unique(),
        "users": numbering.users.height,
        "sessions": numbering.sessions.height,
        "interactions": histories.events.height,
        **_of_splits(histories.events),
    }


def _of_splits(events: Spool, condition: pl.Expr = _EVERY) -> dict[str, int]:
    """The number of events of each part of the split, of those under a condition."""
    parts = [((pl.col("split") == part) & condition).sum().alias(part.name.lower()) for part in Split]
    counts: dict[str, int] = events.gather(lambda table: table.select(parts)).sum().row(0, named=True)
    return counts


def _rows_of_types(types: pl.DataFrame) -> dict[str, int]:
    return dict(sorted(types.group_by("event").agg(pl.col("rows").sum()).iter_rows()))


def _learning(histories: Histories) -> dict[str, int]:
    """The amount of training data: users with a training event; events that weigh something and follow another of
    their user or session; the most events of a user or session, held-out ones too."""
    follows = pl.col("user_id") == pl.col("user_id").shift(1)

    def of_part(part: pl.DataFrame) -> pl.DataFrame:
        return part.filter(_TRAINING).select(
            pl.col("user_id").filter(~IS_SESSION).n_unique().alias("users"),
            (follows & (pl.col("weight") > 0)).sum().alias("targets"),
        )

    counts = histories.events.gather(of_part).sum().row(0, named=True)
    return {**counts, "longest": histories.longest}


def _of_sessions(histories: Histories) -> dict[str, int]:
    """The number of the sessions' events, of each part of the split."""
    counts = _of_splits(histories.events, IS_SESSION)
    return {"interactions": sum(counts.values()), **counts}


def _show(ctx: StageContext, counts: dict[str, int], shop: ShopData, *, left_out_of_sessions: int) -> None:
    console = ctx.progress.console
    console.print(
        f"ingest: {counts['items']} items, {counts['users']} users, {counts['interactions']} interactions "
        f"({counts['train']} training, {counts['valid']} validation, {counts['test']} test)"
    )
    items_file, events_file = (rows.file for rows in shop.bad_rows)
    repeated = shop.catalogue.num_repeated
    of_items, of_events = shop.notes
    sentences = [f"{items_file}: {remark}" for remark in of_items.describe(others="attributes")]
    sentences += [f"{events_file}: {remark}" for remark in of_events.describe(others="ignored")]
    sentences += [
        f"{events_file}: {shop.num_session_rows} rows have a session_id and no user_id: visitors without an account, "
        f"{counts['sessions']} sessions, which teach as users do"
    ] * (shop.num_session_rows > 0)
    sentences += [
        f"{events_file}: {left_out_of_sessions} rows of sessions were left out, because their item is held out from "
        "the user who logged in there"
    ] * (left_out_of_sessions > 0)
    sentences += [f"{events_file}: {remark}" for remark in shop.describe_left_out(ctx.config.ingest)]
    sentences += [f"{items_file}: {remark}" for remark in shop.catalogue.names.describe()]
    sentences += [f"{items_file}: {remark}" for remark in shop.catalogue.attributes.describe()]
    sentences += [f"{items_file}: {repeated} rows repeat another row of their item and were left out"] * (repeated > 0)
    if shop.catalogue.num_offered == 0:
        sentences.append(f"{items_file}: no item is available, so nothing can be recommended")
    sentences += [remark] if (remark := shop.repeated.describe(events_file, shop.parts)) else []
    types = rows_by_type(shop.events)
    sentences += [
        f"{events_file}: {question}" for question in event_questions(_rows_of_types(types), ctx.config.events)
    ]
    sentences += [f"{events_file}: {remark}" for remark in describe_weights(types, ctx.config.events)]
    sentences += [f"{events_file}: {remark}"] if (remark := describe_early(shop.events, shop.parts)) else []
    sentences += [
        f"{rows.file}: {len(rows)} rows were left out: {rows.describe()}" for rows in shop.bad_rows if len(rows)
    ]
    for sentence in sentences:
        console.print(Text(f"ingest: {sentence}"), soft_wrap=True)
