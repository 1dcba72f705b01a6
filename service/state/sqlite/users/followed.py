"""Finds the items that an event followed, as `script.lua` does in Redis. It writes nothing."""

import heapq
import math
import sqlite3
from collections.abc import Sequence

from isrf.contract.event_log import FOLLOWED_ITEMS
from service.state.events import Event
from service.state.records import HistoryEntry

LOOKED_AT = 32
"""Entries of state's history that are read: an item may be in several of them."""


def followed_by(db: sqlite3.Connection, user: int, event: Event, tail: Sequence[HistoryEntry]) -> list[str]:
    """Returns `StoredEvent.followed` of an event before it is written, inside the caller's transaction.

    Args:
        user: the user's row.
        tail: the user's last items in the release, latest first; empty for an erased user.
    """
    if event.effect not in ("B", "H"):
        return []
    query = (
        "SELECT item_id, timestamp FROM history WHERE user = ? AND timestamp <= ? "
        "ORDER BY timestamp DESC, item_id DESC, assigned DESC LIMIT ?"
    )
    entries: list[tuple[str, float]] = db.execute(query, (user, event.timestamp, LOOKED_AT)).fetchall()
    if tail:
        past = _valid(db, user, event.timestamp, tail)
        entries = list(heapq.merge(entries, past, key=lambda entry: -entry[1]))
    items = dict.fromkeys(item_id for item_id, _ in entries)
    items.pop(event.item_id, None)
    return list(items)[:FOLLOWED_ITEMS]


def _valid(db: sqlite3.Connection, user: int, until: float, tail: Sequence[HistoryEntry]) -> list[tuple[str, float]]:
    """Returns the release's items up to a moment (seconds) that were not removed since; −inf for an unknown time."""
    holes = ", ".join("?" * len(tail))
    query = f"SELECT item_id, removed FROM marks WHERE user = ? AND removed IS NOT NULL AND item_id IN ({holes})"  # noqa: S608
    removed: dict[str, float] = dict(db.execute(query, (user, *(entry.item_id for entry in tail))).fetchall())
    timed = [(item_id, -math.inf if timestamp is None else timestamp) for item_id, timestamp, _ in tail]
    return [(item_id, t) for item_id, t in timed if t <= until and (item_id not in removed or removed[item_id] < t)]
