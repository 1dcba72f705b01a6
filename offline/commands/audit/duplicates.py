"""Finds events that the data holds twice, exactly or almost; a training copy gives a held-out event away.

`ingest` leaves out rows that are equal in every column; this module reports their number. Events that only look like
copies (seconds apart, an id in other capitals, the last event repeated) stay, because a shop may mean them. The module
warns about them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from offline.commands.audit.findings import Finding
from offline.runtime.ingest_report import num_users

NEAR_S = 5.0
"""Two events of one user, item and type within this time may be one event that was written twice."""

MANY = 0.01
"""From this share of almost equal events on, the finding is a warning."""


def audit_duplicates(ingested: Path, report: dict[str, Any]) -> Iterator[Finding]:
    """Yields the findings about the output of `ingest` and its report."""
    yield _exact(report)
    events = _events(ingested)
    yield _near(events)
    yield _last_again(events.filter(pl.col("user_index") < num_users(ingested)))
    for kind, name in (("user", "users.parquet"), ("item", "items.parquet")):
        yield _spellings(kind, pl.read_parquet(ingested / name, columns=[f"{kind}_id"])[f"{kind}_id"].to_list())


def _exact(report: dict[str, Any]) -> Finding:
    rows, items = int(report["duplicate_interactions"]), int(report["duplicate_items"])
    return Finding(
        "duplicates",
        "warning" if rows else "ok",
        f"{rows} interactions and {items} catalogue rows are exact copies of another row; ingest left them out"
        + (": check the export of the file" if rows else ""),
        {"interactions": rows, "items": items},
    )


def _events(ingested: Path) -> pl.DataFrame:
    """Returns every user's events, oldest first; `part` is 0 for training, 1 for validation, 2 for test."""
    columns = ["user_index", "item_index", "timestamp", "event"]
    train = pl.read_parquet(ingested / "train.parquet", columns=columns).with_columns(part=pl.lit(0))
    held_out = pl.read_parquet(ingested / "heldout.parquet")
    part = pl.when(pl.col("split") == "valid").then(1).otherwise(2).cast(pl.Int32)
    events = pl.concat([train, held_out.with_columns(part=part).select([*columns, "part"])])
    return events.sort("user_index", "part", maintain_order=True)


def _near(events: pl.DataFrame) -> Finding:
    if events["timestamp"].null_count():
        return Finding("near duplicates", "note", "the data has no timestamps, which this check needs", {})
    same = ["user_index", "item_index", "event"]
    ordered = events.sort(*same, "timestamp", maintain_order=True)
    after = (pl.col("timestamp") - pl.col("timestamp").shift(1).over(same)).alias("after")
    near = ordered.with_columns(after).filter(pl.col("after") <= NEAR_S)
    held_out = near.filter(pl.col("part") > 0).height
    share = near.height / max(events.height, 1)
    return Finding(
        "near duplicates",
        "warning" if share >= MANY or held_out >= MANY * max(events.filter(pl.col("part") > 0).height, 1) else "ok",
        f"{near.height} of {events.height} events follow an event of the same user, item and type within {NEAR_S:g} s; "
        f"{held_out} of them are held out",
        {"events": events.height, "near": near.height, "held_out": held_out},
    )


def _last_again(events: pl.DataFrame) -> Finding:
    last = events.with_columns(
        (
            (pl.col("item_index") == pl.col("item_index").shift(1).over("user_index"))
            & (pl.col("event") == pl.col("event").shift(1).over("user_index"))
        ).alias("again")
    ).filter(pl.col("part") == 2)
    again = int(last["again"].fill_null(False).sum())
    share = again / max(last.height, 1)
    return Finding(
        "last event again",
        "warning" if share >= MANY else "ok",
        f"the last event of {again} of {last.height} users ({share:.1%}) repeats the one before (item and type)",
        {"users": last.height, "again": again},
    )


def _spellings(kind: str, ids: Sequence[str]) -> Finding:
    counts = Counter(shop_id.strip().casefold() for shop_id in ids)
    alike = sum(count for count in counts.values() if count > 1)
    return Finding(
        f"{kind} ids",
        "warning" if alike else "ok",
        f"{alike} of {len(ids)} {kind}_ids differ from another {kind}_id only in capitals or spaces"
        + ("; this program treats them as different ids" if alike else ""),
        {"ids": len(ids), "alike": alike},
    )
