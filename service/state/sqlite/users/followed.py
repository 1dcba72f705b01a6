"""Finds the items that an event followed, as `script.lua` does in Redis.

It merges state's history with the release's by time and stops at the eighth item, so that most events need one short
read. It writes nothing.
"""

import math
import sqlite3
from collections.abc import Sequence

from isrf.contract.event_log import FOLLOWED_ITEMS
from service.state.events import Event
from service.state.records import HistoryEntry

LOOKED_AT = 32
"""Entries of state's history that are read: an item may be in several of them."""
MOST_FOUND = FOLLOWED_ITEMS + 1
"""With the event's own item."""


def followed_by(db: sqlite3.Connection, user: int, event: Event, tail: Sequence[HistoryEntry]) -> list[str]:
    """Returns `StoredEvent.followed` of an event before it is written, inside the caller's transaction.

    Args:
        user: the user's row.
        tail: the user's last items in the release, latest first; empty for an erased user.
    """
    if event.effect not in ("B", "H"):
        return []
    found = {event.item_id: None}
    past = iter([entry for entry in tail if entry.timestamp is None or entry.timestamp <= event.timestamp])
    head = next(past, None)

    def add_past(after: float | None) -> None:
        nonlocal head
        while head is not None and len(found) < MOST_FOUND:
            at = -math.inf if head.timestamp is None else head.timestamp
            if after is not None and at <= after:
                return
            if not _is_removed(db, user, head.item_id, at):
                found.setdefault(head.item_id)
            head = next(past, None)

    query = (
        "SELECT item_id, timestamp FROM history WHERE user = ? AND timestamp <= ? "
        "ORDER BY timestamp DESC, item_id DESC, assigned DESC LIMIT ?"
    )
    for item_id, timestamp in db.execute(query, (user, event.timestamp, LOOKED_AT)):
        add_past(timestamp)
        if len(found) >= MOST_FOUND:
            break
        found.setdefault(item_id)
    add_past(None)
    return list(found)[1:]


def _is_removed(db: sqlite3.Connection, user: int, item_id: str, at: float) -> bool:
    """Whether an item was removed at a moment (seconds) or later."""
    query = "SELECT removed FROM marks WHERE user = ? AND item_id = ?"
    row = db.execute(query, (user, item_id)).fetchone()
    return row is not None and row[0] is not None and row[0] >= at
