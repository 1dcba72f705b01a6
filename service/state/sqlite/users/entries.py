"""Reads the journal of accepted events in order, for those who count them; all buckets are in one journal."""

import sqlite3
from collections.abc import Mapping
from typing import NamedTuple

from isrf.contract.errors import StoreError
from isrf.contract.event_log import TRIMMED, StoredEvent, bucket_of
from service.state import payload
from service.state.sqlite.schema import meta
from service.state.user_store import AcceptedEntry

SCANNED_AT_ONCE = 5000


class JournalPage(NamedTuple):
    """A part of the journal.

    Attributes:
        last: the last seq that was looked at.
        is_full: whether the journal may have more rows.
    """

    entries: list[AcceptedEntry]
    last: int
    is_full: bool
    trimmed_until: float


def seq_before(db: sqlite3.Connection, after: int, since: float) -> tuple[int, bool]:
    """Looks in some rows after a seq for the first one accepted at `since` (seconds) or later.

    Returns:
        The seq before that row, True; or the last seq that was looked at, and whether it was the journal's last.
    """
    query = "SELECT seq, payload FROM journal WHERE seq > ? ORDER BY seq LIMIT ?"
    num_rows = 0
    # Row by row: where the search begins at its end, it reads one.
    for seq, encoded in db.execute(query, (after, SCANNED_AT_ONCE)):
        event = _event_of(encoded)
        if event is not None and event.accepted_at >= since:
            return after, True
        after, num_rows = seq, num_rows + 1
    return after, num_rows < SCANNED_AT_ONCE


def journal_page(db: sqlite3.Connection, after: Mapping[int, int], limit: int) -> JournalPage:
    """Returns the next rows of some buckets; `after` has the last seq of each bucket."""
    start = min(after.values())
    query = "SELECT seq, user_id, payload FROM journal WHERE seq > ? ORDER BY seq LIMIT ?"
    rows = db.execute(query, (start, limit)).fetchall()
    entries = [
        AcceptedEntry(bucket, _event_of(encoded))
        for seq, user_id, encoded in rows
        if (bucket := bucket_of(user_id)) in after and seq > after[bucket]
    ]
    trimmed_until = float(meta(db, TRIMMED) or 0.0)
    return JournalPage(entries, rows[-1][0] if rows else start, len(rows) == limit, trimmed_until)


def rows_after(db: sqlite3.Connection, seq: int) -> int:
    (count,) = db.execute("SELECT count(*) FROM journal WHERE seq > ?", (seq,)).fetchone()
    return int(count)


def _event_of(encoded: bytes) -> StoredEvent | None:
    try:
        return payload.decode_stored(encoded)
    except StoreError:
        return None
