"""Events that stand in the data more than once, or almost: what lets a held-out event be known from training.

Rows that are equal in every column are left out by `ingest`, and said here. What only looks like the same event again
(seconds apart, an id in other letters, the last event once more) is kept, since a shop may mean it, and warned of.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from offline.commands.audit.findings import Finding

NEAR_S = 5.0
"""Seconds between two events of one user, item and type within which they may be one that was written twice."""

MANY = 0.01
"""Share from which on events that are almost the same need care."""


def audit_duplicates(ingested: Path, report: dict[str, Any]) -> Iterator[Finding]:
    """Findings over what `ingest` wrote and its report."""
    yield _exact(report)
    events = _events(ingested)
    yield _near(events)
    yield _last_again(events)
    for kind, name in (("user", "users.parquet"), ("item", "items.parquet")):
        yield _spellings(kind, pl.read_parquet(ingested / name, columns=[f"{kind}_id"])[f"{kind}_id"].to_list())


def _exact(report: dict[str, Any]) -> Finding:
    rows, items = int(report["duplicate_interactions"]), int(report["duplicate_items"])
    return Finding(
        "duplicates",
        "warning" if rows else "ok",
        f"{rows} interactions and {items} catalogue rows repeat another one exactly; they were left out"
        + (": look at how the file is exported" if rows else ""),
        {"interactions": rows, "items": items},
    )


def _events(ingested: Path) -> pl.DataFrame:
    """Every event beside the one before it of the same user, oldest first; `place` 0 for the last one."""
    columns = ["user_index", "item_index", "timestamp", "event"]
    train = pl.read_parquet(ingested / "train.parquet", columns=columns).with_columns(part=pl.lit(0))
    held_out = pl.read_parquet(ingested / "heldout.parquet")
    part = pl.when(pl.col("split") == "valid").then(1).otherwise(2).cast(pl.Int32)
    events = pl.concat([train, held_out.with_columns(part=part).select([*columns, "part"])])
    return events.sort("user_index", "part", maintain_order=True)


def _near(events: pl.DataFrame) -> Finding:
    if events["timestamp"].null_count():
        return Finding("near duplicates", "note", "the data has no times to see them by", {})
    same = ["user_index", "item_index", "event"]
    ordered = events.sort(*same, "timestamp", maintain_order=True)
    after = (pl.col("timestamp") - pl.col("timestamp").shift(1).over(same)).alias("after")
    near = ordered.with_columns(after).filter(pl.col("after") <= NEAR_S)
    held_out = near.filter(pl.col("part") > 0).height
    share = near.height / max(events.height, 1)
    return Finding(
        "near duplicates",
        "warning" if share >= MANY or held_out >= MANY * max(events.filter(pl.col("part") > 0).height, 1) else "ok",
        f"{near.height} of {events.height} events repeat one of the same user, item and type within {NEAR_S:g} s, "
        f"{held_out} of them held out",
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
    counts = Counter(one.strip().casefold() for one in ids)
    alike = sum(count for count in counts.values() if count > 1)
    return Finding(
        f"{kind} ids",
        "warning" if alike else "ok",
        f"{alike} of {len(ids)} {kind}_ids differ from another one in capitals or blanks alone"
        + (": to this program they are different ones" if alike else ""),
        {"ids": len(ids), "alike": alike},
    )
