"""Event ids of the last day whose users were erased: known until the day is over, and readable by nobody.

An id, and what it named, stand as hashes of 64 bits that are keyed with the store's secret. Nothing ties the ids of one
user to each other, or to a tombstone.
"""

import hashlib
import sqlite3
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

from isrf.contract.event_log import REMEMBER_S
from service.state.events import Event


def remember_erased(db: sqlite3.Connection, secret: bytes, events: Iterable[Event], now: float) -> None:
    """Notes the ids of events that are about to be deleted; `now` in seconds."""
    rows = [
        (_hash(secret, event.event_id), _identity(secret, event), int(event.accepted_at))
        for event in events
        if int(event.accepted_at) > int(now) - REMEMBER_S
    ]
    # In order: each page of the table is changed once.
    db.executemany("INSERT OR REPLACE INTO erased_ids (id, identity, at) VALUES (?, ?, ?)", sorted(rows))


def look_up_erased(db: sqlite3.Connection, secret: bytes, event: Event) -> Literal["erased", "reused"] | None:
    """What an event is whose id was given to one of a user who was erased since; None where it was not.

    Args:
        event: whose `accepted_at` is now.
    """
    query = "SELECT identity FROM erased_ids WHERE id = ? AND at > ?"
    row = db.execute(query, (_hash(secret, event.event_id), int(event.accepted_at) - REMEMBER_S)).fetchone()
    if row is None:
        return None
    return "erased" if row[0] == _identity(secret, event) else "reused"


def forget_erased(db: sqlite3.Connection, now: float) -> None:
    """Deletes what is older than a day; `now` in seconds."""
    db.execute("DELETE FROM erased_ids WHERE at <= ?", (int(now) - REMEMBER_S,))


def _identity(secret: bytes, event: Event) -> int:
    return _hash(secret, "\n".join((event.event_id, event.user_id, event.item_id, event.event)))


def _hash(secret: bytes, text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), key=_key(secret), digest_size=8).digest(), signed=True)


@lru_cache(maxsize=1)
def _key(secret: bytes) -> bytes:
    return hashlib.blake2b(secret, digest_size=32, person=b"erased ids").digest()
