"""Determines when the shop's files were read, and finds rows that are dated after that.

These times decide what a release has learned. The rows' timestamps do not: a single row of the year 2125 would make a
release that seems to have learned everything, and the service would ignore all later events.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl

from isrf.contract.manifest import LearnedUntil
from isrf.method.order import MAX_AHEAD_S
from offline.reading.bad_rows import NUM_LINES_NAMED
from offline.reading.files import ShopFile
from offline.reading.lines import line_number, line_text
from offline.stages.ingest.parts.spool import Spool

TOLERANCE_S = 60.0
"""Clocks differ by seconds: a row dated less than this after the reading is not reported."""
_NO_TIME_BEFORE = 631_152_000.0
"""1990. Archives that store no times date their files 1970 or 1980, so an earlier file time is not a real one."""
_EARLY_NAMED = 3


def learned_until(items: ShopFile, interactions: ShopFile) -> LearnedUntil:
    """The times until which the two files can contain events and items; call it before opening them.

    A file contains nothing that happened after it was last written, nor after now, so the earlier of the two counts. If
    the time is too early, the service stores more state than it needs. If it is too late, the service drops events that
    the release has not learned.
    """
    now = time.time()
    return LearnedUntil(events=min(now, _written(interactions, now)), items=min(now, _written(items, now)))


def _written(source: ShopFile, now: float) -> float:
    written = max(file.stat().st_mtime for file in source.files)
    return written if written >= _NO_TIME_BEFORE else now


def rows_ahead(events: Spool, read_at: float, parts: Sequence[str] = ()) -> dict[str, Any]:
    """Describes the rows that are dated after the reading, for `report.json`; empty where there are none.

    The rows stay in the data: the events did happen, and the same bytes must make the same release whenever they are
    read. What a release counts as learned does not depend on them.

    Args:
        events: `line`, `timestamp` (seconds or null).
        read_at: seconds.
        parts: names of the parts of the interactions; empty for a single file.

    Returns:
        `rows`, `of` (all rows), `beyond_a_day` (rows), `hours` (how far the latest row within a day is ahead), `lines`,
        their `places` in words and their `timestamps` (the first few), `latest`.
    """
    ahead = _where(events, pl.col("timestamp") > read_at + TOLERANCE_S)
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
        "lines": [line_number(line) for line in first["line"]],
        "places": [line_text(line, parts) for line in first["line"]],
        "timestamps": first["timestamp"].to_list(),
        "latest": ahead["timestamp"].max(),
    }


def describe_ahead(found: dict[str, Any], read_at: float) -> str:
    """The result of `rows_ahead` as sentences for people."""
    named = ", ".join(
        f"{place}: {timestamp:.15g} ({_as_date(timestamp)})"
        for place, timestamp in zip(found["places"], found["timestamps"], strict=True)
    )
    more = ", …" if found["rows"] > len(found["lines"]) else ""
    text = f"{found['rows']} of {found['of']} rows are dated after they were read ({_as_date(read_at)}): {named}{more}."
    if found["rows"] > found["beyond_a_day"]:
        text += f" Up to {found['hours']:g} hours ahead: are local times written as UTC?"
    if found["beyond_a_day"]:
        text += f" {found['beyond_a_day']} are more than a day ahead: the service would refuse such events."
    return text + " The rows are used. Write `timestamp` as seconds since 1970 in UTC."


def describe_early(events: Spool, parts: Sequence[str] = ()) -> str:
    """A sentence on rows dated before 1990, which may not be real times; empty where there are none.

    A day written as `20240101`, days since 1900, or 0 for a missing time all look like a time in 1970.
    """
    early = _where(events, pl.col("timestamp") < _NO_TIME_BEFORE)
    if early.is_empty():
        return ""
    named = ", ".join(
        f"{line_text(line, parts)}: {timestamp:.15g} ({_as_date(timestamp)})"
        for line, timestamp in early.head(_EARLY_NAMED).iter_rows()
    )
    return (
        f"{early.height} of {events.height} rows are dated before 1990: {named}"
        f"{', …' if early.height > _EARLY_NAMED else ''}. If these are not seconds "
        "since 1970, say how they are written with --time-format, or name the column `position` if it is an order "
        "and not a time."
    )


def _where(events: Spool, condition: pl.Expr) -> pl.DataFrame:
    """`line` and `timestamp` of the rows under a condition, in file order."""
    return events.gather(lambda part: part.filter(condition).select("line", "timestamp")).sort("line")


def _as_date(timestamp: float) -> str:
    return f"{datetime.fromtimestamp(timestamp, UTC):%Y-%m-%d %H:%M} UTC"
