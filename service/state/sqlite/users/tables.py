"""Reads, erases and compacts users in the tables, and reads the journal of accepted events."""

import contextlib
import math
import secrets
import sqlite3
from collections.abc import Iterator

from isrf.contract.errors import StoreError
from isrf.contract.event_log import REMEMBER_S, TRIMMED, Tombstone, bucket_of, read_tombstone, tombstone_name
from service.state import payload
from service.state.events import Event
from service.state.records import NO_VERSION, HistoryEntry, ItemMark, Learned, UserRecord
from service.state.sqlite.schema import meta, tombstone_text
from service.state.sqlite.users.erased_ids import forget_erased, remember_erased

PAGE = 500
COMPACTED_AT_ONCE = 2000


def read_user(db: sqlite3.Connection, secret: bytes, user_id: str) -> UserRecord:
    """Returns a user's record, inside the caller's read transaction."""
    name = tombstone_name(secret, user_id)
    stone = tombstone_text(db, name)
    found = db.execute("SELECT id, nonce, count FROM users WHERE user_id = ?", (user_id,)).fetchone()
    if found is None:
        version = NO_VERSION if stone is None else "erased-" + stone.split(" ")[0]
        return UserRecord(version, [], {}, stone is not None, None)
    user, nonce, count = found
    query = "SELECT item_id, timestamp, assigned FROM history WHERE user = ? ORDER BY timestamp, item_id, assigned"
    history = [HistoryEntry(item_id, t, bool(assigned)) for item_id, t, assigned in db.execute(query, (user,))]
    query = "SELECT item_id, bought, disliked, removed FROM marks WHERE user = ?"
    marks = {item_id: ItemMark(*moments) for item_id, *moments in db.execute(query, (user,))}
    return UserRecord(f"{nonce}.{count}", history, marks, stone is not None, None)


def erase_user(db: sqlite3.Connection, secret: bytes, user_id: str, now: float) -> None:
    """Deletes everything about a user, and writes a tombstone under a keyed hash; `now` in seconds.

    The ids of their events of the last day stay known, as hashes, so that events sent again do not bring them back.
    """
    (last,) = db.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'journal'").fetchone()
    row = db.execute("SELECT id, latest FROM users WHERE user_id = ?", (user_id,)).fetchone()
    name = tombstone_name(secret, user_id)
    before = tombstone_text(db, name)
    erased_at = now
    # The shop's clock may run ahead: the erasure covers all stored events, and never less than an earlier erasure.
    if before is not None:
        erased_at = max(erased_at, read_tombstone(before.encode()).erased_at)
    if row is not None:
        erased_at = max(erased_at, row[1])
        for query in (
            "DELETE FROM history WHERE user = ?",
            "DELETE FROM marks WHERE user = ?",
            "DELETE FROM users WHERE id = ?",
        ):
            db.execute(query, row[:1])
    forget_erased(db, now)
    remember_erased(db, secret, _events_of(db, user_id), now)
    db.execute("DELETE FROM journal WHERE user_id = ?", (user_id,))
    tombstone = Tombstone(secrets.token_hex(8), (0, last), erased_at)
    values = (name, bucket_of(user_id), tombstone.text())
    db.execute("INSERT OR REPLACE INTO tombstones (name, bucket, text) VALUES (?, ?, ?)", values)


def _events_of(db: sqlite3.Connection, user_id: str) -> Iterator[Event]:
    """Yields a user's events in the journal, without rows that the service did not write."""
    for (encoded,) in db.execute("SELECT payload FROM journal WHERE user_id = ?", (user_id,)):
        with contextlib.suppress(StoreError):
            yield payload.decode(encoded)


def collect_user(db: sqlite3.Connection, user_id: str, version: str, learned: Learned) -> bool:
    """Removes state that a release has learned, unless it has changed since `version`; returns whether some is left."""
    row = db.execute("SELECT id, nonce, count FROM users WHERE user_id = ?", (user_id,)).fetchone()
    if row is None:
        return False
    user, nonce, count = row
    if f"{nonce}.{count}" != version:
        return True
    db.executemany(
        "DELETE FROM history WHERE user = ? AND timestamp = ? AND item_id = ? AND assigned = ?",
        [(user, entry.timestamp, entry.item_id, entry.assigned) for entry in learned.entries],
    )
    db.executemany("DELETE FROM marks WHERE user = ? AND item_id = ?", [(user, item_id) for item_id in learned.items])
    query = "SELECT EXISTS (SELECT 1 FROM history WHERE user = ?1) OR EXISTS (SELECT 1 FROM marks WHERE user = ?1)"
    (left,) = db.execute(query, (user,)).fetchone()
    if not left:
        db.execute("DELETE FROM users WHERE id = ?", (user,))
    return bool(left)


def user_page(db: sqlite3.Connection, after: int) -> tuple[int, list[str]]:
    """Returns the next users with state, and where the next page starts."""
    rows = db.execute("SELECT id, user_id FROM users WHERE id > ? ORDER BY id LIMIT ?", (after, PAGE)).fetchall()
    return (rows[-1][0] if rows else after), [user_id for _, user_id in rows]


def event_page(db: sqlite3.Connection, after: int) -> tuple[int, list[Event]]:
    """Returns the next accepted events of the journal, and where the next page starts."""
    rows = db.execute("SELECT seq, payload FROM journal WHERE seq > ? ORDER BY seq LIMIT ?", (after, PAGE)).fetchall()
    return (rows[-1][0] if rows else after), [payload.decode(encoded) for _, encoded in rows]


def compact_record(db: sqlite3.Connection, after: int, now: float) -> int | None:
    """Deletes rows of the journal that the offline job has used and that no state needs any more.

    It keeps those of the last day before `now` (seconds), which detect duplicates.

    Returns:
        The last seq that was checked; None where there are no more rows.
    """
    forget_erased(db, now)
    exported = int(meta(db, "exported") or 0)
    query = (
        "SELECT seq, payload, (SELECT id FROM users WHERE users.user_id = journal.user_id) FROM journal "
        "WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
    )
    rows = db.execute(query, (after, exported, COMPACTED_AT_ONCE)).fetchall()
    before = now - REMEMBER_S
    events = [(seq, payload.decode(encoded), user) for seq, encoded, user in rows]
    doomed = [
        (seq, event.accepted_at)
        for seq, event, user in events
        if event.accepted_at < before and (user is None or not _is_in_state(db, user, event))
    ]
    if doomed:
        db.executemany("DELETE FROM journal WHERE seq = ?", [(seq,) for seq, _ in doomed])
        last = max(accepted_at for _, accepted_at in doomed)
        trimmed_until = max(float(meta(db, TRIMMED) or 0.0), math.nextafter(last, math.inf))
        db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (TRIMMED, repr(trimmed_until)))
    return rows[-1][0] if rows else None


def _is_in_state(db: sqlite3.Connection, user: int, event: Event) -> bool:
    """Whether a user's history or marks still contain an event's item."""
    query = (
        "SELECT EXISTS (SELECT 1 FROM history WHERE user = ?1 AND timestamp = ?2 AND item_id = ?3) "
        "OR EXISTS (SELECT 1 FROM marks WHERE user = ?1 AND item_id = ?3)"
    )
    return bool(db.execute(query, (user, event.timestamp, event.item_id)).fetchone()[0])
