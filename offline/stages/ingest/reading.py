"""When the shop's files were read, and which of their rows are dated after that.

What a release has learned is decided by these moments, never by the times that the rows give: one row of the year 2125
would make a release that has learned everything, and whatever the shop says afterwards would count for nothing.
"""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from isrf.contract.manifest import LearnedUntil
from isrf.method.order import MAX_AHEAD_S
from offline.stages.ingest.bad_rows import NUM_LINES_NAMED

TOLERANCE_S = 60.0
"""Clocks differ by seconds: a row dated so little after the reading is not worth a word."""
_NO_TIME_BEFORE = 631_152_000.0
"""1990: archives that keep no times date their files 1970 or 1980, and those say nothing."""
_EARLY_NAMED = 3


def learned_until(items: Path, interactions: Path) -> LearnedUntil:
    """Until when the two files, which nobody has opened yet, can hold what happened.

    A file holds nothing that came after it was last written, nor after now: the earlier of the two. Too early a moment
    makes the service keep more state than it must; too late a one would drop what the release has not learned.
    """
    now = time.time()
    return LearnedUntil(events=min(now, _written(interactions, now)), items=min(now, _written(items, now)))


def _written(path: Path, now: float) -> float:
    written = path.stat().st_mtime
    return written if written >= _NO_TIME_BEFORE else now


def rows_ahead(events: pl.DataFrame, read_at: float) -> dict[str, Any]:
    """The rows dated after the reading, for `report.json`; empty where there are none.

    They are kept: what happened did happen, and the same bytes make the same release whenever they are read. Nothing
    that a release is believed to have learned depends on them.

    Args:
        events: `line`, `timestamp` (seconds or null).
        read_at: seconds.

    Returns:
        `rows`, `of` (all rows), `beyond_a_day` (rows), `hours` (of the farthest within a day), `lines` and their
        `timestamps` (the first few), `latest`.
    """
    ahead = events.filter(pl.col("timestamp") > read_at + TOLERANCE_S).sort("line").select("line", "timestamp")
    if ahead.is_empty():
        return {}
    first = ahead.head(NUM_LINES_NAMED)
    within = ahead["timestamp"].filter(ahead["timestamp"] <= read_at + MAX_AHEAD_S)
    farthest = within.to_numpy().max(initial=read_at)
    return {
        "rows": ahead.height,
        "of": events.height,
        "beyond_a_day": ahead.height - len(within),
        "hours": round((farthest - read_at) / 3600, 1),
        "lines": first["line"].to_list(),
        "timestamps": first["timestamp"].to_list(),
        "latest": ahead["timestamp"].max(),
    }


def describe_ahead(found: dict[str, Any], read_at: float) -> str:
    """What `rows_ahead` found, for people."""
    named = ", ".join(
        f"line {line}: {timestamp:.15g} ({_as_date(timestamp)})"
        for line, timestamp in zip(found["lines"], found["timestamps"], strict=True)
    )
    more = ", …" if found["rows"] > len(found["lines"]) else ""
    text = f"{found['rows']} of {found['of']} rows are dated after they were read ({_as_date(read_at)}): {named}{more}."
    if found["rows"] > found["beyond_a_day"]:
        text += f" Up to {found['hours']:g} hours ahead: is local time written as UTC?"
    if found["beyond_a_day"]:
        text += f" {found['beyond_a_day']} are more than a day ahead: the service would refuse such events."
    return text + " They are kept. Write `timestamp` as seconds since 1970 in UTC."


def describe_early(events: pl.DataFrame) -> str:
    """What is to be said of rows whose time is so long ago that it may be none; empty where there are none.

    A day as `20240101`, days since 1900 or a zero for a missing time are numbers too, and dates of 1970 then.
    """
    early = events.filter(pl.col("timestamp") < _NO_TIME_BEFORE).sort("line").select("line", "timestamp")
    if early.is_empty():
        return ""
    named = ", ".join(
        f"line {line}: {timestamp:.15g} ({_as_date(timestamp)})"
        for line, timestamp in early.head(_EARLY_NAMED).iter_rows()
    )
    return (
        f"{early.height} of {events.height} rows are dated before 1990: {named}"
        f"{', …' if early.height > _EARLY_NAMED else ''}. If these are no seconds "
        "since 1970, write seconds, or name the column `position` where it is an order and no time."
    )


def _as_date(timestamp: float) -> str:
    return f"{datetime.fromtimestamp(timestamp, UTC):%Y-%m-%d %H:%M} UTC"
