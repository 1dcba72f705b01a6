"""Creates the tables of the embedded store; `isrf.contract.event_log` describes those that the offline job reads."""

import secrets
import sqlite3
import time

from isrf.contract.event_log import new_secret_record

APPLICATION_ID = 0x49535246  # "ISRF"

TABLES = {"journal", "tombstones", "meta", "items", "users", "history", "marks", "counts", "probes"}

_TABLES = """
-- The journal: every accepted event, for at least a day, and until the offline job has used it and no state needs it.
-- `digest` finds an event by its event id.
CREATE TABLE IF NOT EXISTS journal
  (seq INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL, payload BLOB NOT NULL);
ALTER TABLE journal ADD COLUMN digest INTEGER;
CREATE INDEX IF NOT EXISTS journal_user ON journal (user_id);
CREATE INDEX journal_digest ON journal (digest);
CREATE TABLE IF NOT EXISTS tombstones
  (name TEXT PRIMARY KEY, bucket INTEGER NOT NULL, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
-- A change gets a new seq, never one that was used before.
CREATE TABLE IF NOT EXISTS items
  (seq INTEGER PRIMARY KEY AUTOINCREMENT, item_id TEXT NOT NULL UNIQUE, entry BLOB NOT NULL, added INTEGER NOT NULL);
-- The effects. `version` is a nonce and a count; `latest` the latest timestamp; `active` the last seq in the journal.
CREATE TABLE users
  (id INTEGER PRIMARY KEY, user_id TEXT NOT NULL UNIQUE, nonce TEXT NOT NULL, count INTEGER NOT NULL,
   latest REAL NOT NULL, active INTEGER NOT NULL);
CREATE TABLE history
  (user INTEGER NOT NULL, timestamp REAL NOT NULL, item_id TEXT NOT NULL, assigned INTEGER NOT NULL,
   PRIMARY KEY (user, timestamp, item_id, assigned)) WITHOUT ROWID;
CREATE TABLE marks
  (user INTEGER NOT NULL, item_id TEXT NOT NULL, bought REAL, disliked REAL, removed REAL,
   PRIMARY KEY (user, item_id)) WITHOUT ROWID;
CREATE TABLE counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
-- Readiness probes write here, and delete it again.
CREATE TABLE probes (content BLOB NOT NULL);
"""

# Event ids of erased users (`service.state.sqlite.users.erased_ids`).
_ERASED_IDS = """CREATE TABLE IF NOT EXISTS erased_ids
  (id INTEGER PRIMARY KEY, identity INTEGER NOT NULL, at INTEGER NOT NULL)"""

# The shop's placements; `version` is the number of the change that put one.
_PLACEMENTS = """CREATE TABLE IF NOT EXISTS placements
  (name TEXT PRIMARY KEY, version INTEGER NOT NULL, payload BLOB NOT NULL) WITHOUT ROWID"""


def create_tables(db: sqlite3.Connection) -> None:
    """Creates missing tables, inside the caller's transaction."""
    # Not `executescript`, which commits.
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            db.execute(statement)


def create_later_tables(db: sqlite3.Connection) -> None:
    """Creates tables that are newer than the schema number."""
    db.execute(_ERASED_IDS)
    db.execute(_PLACEMENTS)


def create_identity(db: sqlite3.Connection, erasure_key: str | None) -> None:
    """Writes the store's id and the secret of its tombstones, where they are missing."""
    for name, value in (("secret", new_secret_record(erasure_key)), ("id", secrets.token_hex(8)), ("changes", "0")):
        db.execute("INSERT OR IGNORE INTO meta (name, value) VALUES (?, ?)", (name, value))


def number_on(db: sqlite3.Connection, table: str) -> None:
    """Moves the table's next seq beyond those that any copy of this store has used.

    A reader with a cursor then misses nothing of a store that was restored from an older copy: seqs start at the
    microsecond of the start.
    """
    now = int(time.time() * 1e6)
    db.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (now, table))
    if not db.execute("SELECT 1 FROM sqlite_sequence WHERE name = ?", (table,)).fetchone():
        db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, now))


def meta(db: sqlite3.Connection, name: str) -> str | None:
    """Returns a value of the table `meta`, or None."""
    row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def tombstone_text(db: sqlite3.Connection, name: str) -> str | None:
    """Returns the tombstone with this name, as `isrf.contract.event_log.Tombstone.text` writes it, or None."""
    row = db.execute("SELECT text FROM tombstones WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])
