"""Remembers the event ids of erased users for a day, as hashes that nobody can read.

An id and the event that it names are stored as hashes of 64 bits, keyed with the store's secret. Nothing connects the
ids of one user with each other, or with a tombstone.
"""

import hashlib
import sqlite3
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

from isrf.contract.event_log import REMEMBER_S
from service.state.events import Event


def remember_erased(db: sqlite3.Connection, secret: bytes, events: Iterable[Event], now: float) -> None:
    """Stores the ids of events that are about to be deleted; `now` in seconds."""
    rows = [
        (_hash(secret, event.event_id), _identity(secret, event), int(event.accepted_at))
        for event in events
        if int(event.accepted_at) > int(now) - REMEMBER_S
    ]
    # Sorted, so that each page of the table changes once.
    db.executemany("INSERT OR REPLACE INTO erased_ids (id, identity, at) VALUES (?, ?, ?)", sorted(rows))


def look_up_erased(db: sqlite3.Connection, secret: bytes, event: Event) -> Literal["erased", "reused"] | None:
    """Returns the outcome of an event whose id was used by an erased user's event; None where it was not.

    Args:
        event: with the current moment as `accepted_at`.
    """
    query = "SELECT identity FROM erased_ids WHERE id = ? AND at > ?"
    row = db.execute(query, (_hash(secret, event.event_id), int(event.accepted_at) - REMEMBER_S)).fetchone()
    if row is None:
        return None
    return "erased" if row[0] == _identity(secret, event) else "reused"


def forget_erased(db: sqlite3.Connection, now: float) -> None:
    """Deletes ids older than a day; `now` in seconds."""
    db.execute("DELETE FROM erased_ids WHERE at <= ?", (int(now) - REMEMBER_S,))


def _identity(secret: bytes, event: Event) -> int:
    return _hash(secret, "\n".join((event.event_id, event.user_id, event.item_id, event.event)))


def _hash(secret: bytes, text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), key=_key(secret), digest_size=8).digest(), signed=True)


@lru_cache(maxsize=1)
def _key(secret: bytes) -> bytes:
    return hashlib.blake2b(secret, digest_size=32, person=b"erased ids").digest()
