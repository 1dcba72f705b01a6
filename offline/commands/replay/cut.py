"""Cuts a shop's data at a moment: a folder with what lies before, and the events that follow in time order."""

import contextlib
import datetime
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from isrf.contract.errors import ConfigError, DataError
from isrf.contract.shown import shown
from offline.config import RunConfig
from offline.stages.ingest.owners import both_ids, is_session
from offline.stages.ingest.shop import read_shop, shop_files


class ReplayEvent(NamedTuple):
    """One event of the stream, as a shop would send it."""

    user_id: str  # its owner (`offline.stages.ingest.owners`)
    item_id: str
    event: str
    timestamp: float  # seconds

    @property
    def of_session(self) -> bool:
        """Whether a visitor without an account did it, who is asked for by the session's items alone."""
        return is_session(self.user_id)


class Cut(NamedTuple):
    """A shop's data before and after a moment.

    Attributes:
        since: the moment, seconds.
        num_before: events before it.
        stream: events from it on, by time, then user_id, then the user's own order.
        new_items: fields of the stream's items that have no event before the moment, by item_id.
    """

    since: float
    num_before: int
    stream: list[ReplayEvent]
    new_items: dict[str, dict[str, Any]]


def cut(data: Path, before: Path, config: RunConfig, *, since: float | None, share: float | None) -> Cut:
    """Writes what lies before the moment into the folder `before`, in the data contract's format.

    Args:
        data: the shop's folder.
        before: the folder to write `interactions.parquet` and `items.jsonl` to.
        config: how the shop's files are read (`[ingest]`, `[events]`).
        since: the moment, seconds; or
        share: the share of all events that lies before it.

    Raises:
        ConfigError: `config.since` where not exactly one of the two is given, or it is out of range.
        DataError: the files cannot be used, have no timestamps (`data.no_timestamps`), or no event lies on one side of
            the moment (`data.nothing_to_replay`).
    """
    if (since is None) == (share is None) or (share is not None and not 0 < share < 1):
        raise ConfigError(
            "config.since",
            f"since is {since} and share is {share}.",
            fix="Give --since MOMENT (seconds, or a date such as 2026-05-01), or --share between 0 and 1.",
        )
    files = shop_files(data)
    shop = read_shop(files, config)
    items, events = shop.catalogue.items, shop.interactions
    if events["timestamp"].null_count():
        raise DataError(
            "data.no_timestamps",
            f"{files.interactions.path} has no timestamps, so nobody knows which event came first.",
            fix="A replay needs the column `timestamp`.",
        )
    if since is None:
        since = float(events["timestamp"].sort()[math.floor(events.height * float(share or 0))])
    early = events.filter(pl.col("timestamp") < since)
    late = events.filter(pl.col("timestamp") >= since).sort("timestamp", "user_id", "position", maintain_order=True)
    if early.is_empty() or late.is_empty():
        raise DataError(
            "data.nothing_to_replay",
            f"{early.height} events lie before {moment_text(since)}, {late.height} after it.",
            fix=f"Name a moment between {moment_text(events['timestamp'].min())} and "
            f"{moment_text(events['timestamp'].max())}.",
        )
    trained = pl.col("item_id").is_in(early["item_id"].unique().implode())
    before.mkdir(parents=True, exist_ok=True)
    early.select(*both_ids(), "item_id", "timestamp", "position", "event", "weight").write_parquet(
        before / "interactions.parquet"
    )
    with (before / "items.jsonl").open("w", encoding="utf-8") as file:
        for item in map(_fields, items.filter(trained).iter_rows(named=True)):
            file.write(json.dumps(item, ensure_ascii=False) + "\n")
    streamed = pl.col("item_id").is_in(late["item_id"].unique().implode())
    new = [_fields(row) for row in items.filter(~trained & streamed).iter_rows(named=True)]
    stream = [ReplayEvent(*row) for row in late.select("user_id", "item_id", "event", "timestamp").iter_rows()]
    return Cut(since, early.height, stream, {item["item_id"]: item for item in new})


def read_moment(text: str) -> float:
    """Seconds since 1970 from a number or an ISO 8601 date or time, UTC where no zone is named.

    Raises:
        ConfigError: `config.since`, it is neither, or outside the years that `datetime` has.
    """
    try:
        with contextlib.suppress(ValueError):
            seconds = float(text)
            moment_text(seconds)
            return seconds
        moment = datetime.datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ConfigError(
            "config.since",
            f"{shown(text)} is not a moment between the years 1 and 9999.",
            fix="Write seconds since 1970 (not milliseconds), or an ISO date or time such as 2026-05-01 or "
            "2026-05-01T12:00:00+02:00.",
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def moment_text(seconds: Any) -> str:
    """A moment for people, UTC."""
    return datetime.datetime.fromtimestamp(float(seconds), datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    extra = row.pop("metadata")
    row.pop("line")
    fields = {name: value for name, value in row.items() if value is not None}
    return fields | (json.loads(extra) if extra else {})
