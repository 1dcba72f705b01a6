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
from offline.stages.ingest.fingerprint import data_fingerprint, order_fingerprint
from offline.stages.ingest.histories import Histories, build_histories
from offline.stages.ingest.numbering import Numbering, number
from offline.stages.ingest.owners import IS_SESSION
from offline.stages.ingest.reading import describe_ahead, describe_early, learned_until, rows_ahead
from offline.stages.ingest.shop import ShopData, read_shop, shop_files
from offline.stages.ingest.weights import check_weights, describe_weights, type_weights, weighed

VERSION = 14


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


def read_folder(data: Path, config: RunConfig) -> ShopReading:
    """Reads a shop's folder.

    Raises:
        DataError: the shop's files cannot be used; `code` and `fix` say why and what to do.
    """
    files = shop_files(data)
    read_at = time.time()
    until = learned_until(files.items, files.interactions)
    return ShopReading(read_shop(files, config), read_at, until)


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
    interactions, items = shop.interactions, shop.catalogue.items
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
    numbering = number(items, histories.events.filter(pl.col("split") == Split.TRAIN), histories.excluded)
    weights = type_weights(interactions, ctx.config.events)
    # Only now: row numbers do not depend on what a type weighs.
    histories = histories._replace(events=weighed(histories.events, weights))
    check_weights(histories.events.filter(pl.col("split") == Split.TRAIN))
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
        "events_through": histories.events["timestamp"].max(),
        "learned_until": until.model_dump(),
        "ahead_of_clock": ahead,
        "event_types": dict(sorted(interactions.group_by("event").len().iter_rows())),
        "event_weights": weights,
        "excluding": sorted(ctx.config.events.excluding),
        "fingerprint": data_fingerprint(interactions, items),
        "order_fingerprint": order_fingerprint(histories.events),
    }
    (ctx.out / "report.json").write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    _show(ctx, counts, shop, left_out_of_sessions=histories.left_out_of_sessions)


def _check_histories(histories: Histories) -> None:
    if histories.events.is_empty():
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

    events = rows(histories.events)
    held_out = pl.col("split") != Split.TRAIN
    numbering.items.write_parquet(ctx.out / "items.parquet")
    numbering.users.write_parquet(ctx.out / "users.parquet")
    columns = ("user_index", "item_index", "timestamp", "event", "weight")
    events.filter(~held_out).select(*columns).write_parquet(ctx.out / "train.parquet")
    split = pl.when(pl.col("split") == Split.VALID).then(pl.lit("valid")).otherwise(pl.lit("test")).alias("split")
    events.filter(held_out).select(*columns, split).write_parquet(ctx.out / "heldout.parquet")
    excluded = rows(histories.excluded.filter(~IS_SESSION)).select("user_index", "item_index")
    excluded.sort("user_index", "item_index").write_parquet(ctx.out / "excluded.parquet")


def _counts(histories: Histories, numbering: Numbering) -> dict[str, int]:
    split = histories.events["split"]
    interacted = histories.events.filter(pl.col("split") == Split.TRAIN)["item_id"].n_unique()
    return {
        "items": numbering.items.height,
        "items_without_training_events": numbering.items.height - interacted,
        "users": numbering.users.height,
        "sessions": numbering.sessions.height,
        "interactions": histories.events.height,
        **{part.name.lower(): int((split == part).sum()) for part in Split},
    }


def _learning(histories: Histories) -> dict[str, int]:
    """The amount of training data: users with a training event; events that weigh something and follow another of
    their user or session; the most events of a user or session, held-out ones too."""
    training = histories.events.filter(pl.col("split") == Split.TRAIN)
    follows = pl.col("user_id") == pl.col("user_id").shift(1)
    return {
        "users": training.filter(~IS_SESSION)["user_id"].n_unique(),
        "targets": training.filter(follows & (pl.col("weight") > 0)).height,
        "longest": histories.longest,
    }


def _of_sessions(histories: Histories) -> dict[str, int]:
    """The number of the sessions' events, of each part of the split."""
    split = histories.events.filter(IS_SESSION)["split"]
    return {"interactions": len(split), **{part.name.lower(): int((split == part).sum()) for part in Split}}


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
    types: dict[str, int] = dict(shop.interactions.group_by("event").len().iter_rows())
    sentences += [f"{events_file}: {question}" for question in event_questions(types, ctx.config.events)]
    sentences += [f"{events_file}: {remark}" for remark in describe_weights(shop.interactions, ctx.config.events)]
    sentences += [f"{events_file}: {remark}"] if (remark := describe_early(shop.interactions, shop.parts)) else []
    sentences += [
        f"{rows.file}: {len(rows)} rows were left out: {rows.describe()}" for rows in shop.bad_rows if len(rows)
    ]
    for sentence in sentences:
        console.print(Text(f"ingest: {sentence}"), soft_wrap=True)
