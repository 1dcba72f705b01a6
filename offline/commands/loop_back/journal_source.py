"""Reads accepted events from the journal of an embedded store, which has one bucket, 0."""

import math
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from isrf.contract.errors import DataError, StoreError
from isrf.contract.event_log import (
    JOURNAL_FILE,
    JOURNAL_VERSION,
    REMEMBER_S,
    Tombstone,
    read_event,
    read_tombstone,
    secret_of,
)
from isrf.contract.item_changes import ItemEntry, decode_entry
from offline.commands.loop_back.commit import ItemChangesCursor, StreamPosition
from offline.commands.loop_back.source import (
    MAX_ENTRIES,
    PAGE,
    TIMEOUT_S,
    EventBatch,
    ItemBatch,
    WaitingEvent,
    foreign_refused,
)


@contextmanager
def open_journal(folder: Path, erasure_key: str | None) -> Iterator["JournalSource"]:
    """Opens the journal in an embedded store's folder; raises `DataError` (`data.no_store`) or `StoreError`."""
    path = folder / JOURNAL_FILE
    if not path.is_file():
        raise DataError(
            "data.no_store",
            f"{folder} has no {JOURNAL_FILE}.",
            fix="Pass a Redis URL, or the folder of the service's ISRF_STATE_DIR.",
        )
    try:
        db = sqlite3.connect(path, timeout=TIMEOUT_S)
        try:
            yield JournalSource(db, erasure_key)
        finally:
            db.close()
    except sqlite3.Error as error:
        raise StoreError(
            "store.journal_unusable",
            f"the journal {path} cannot be used: {error}.",
            fix="Check the file's permissions.",
        ) from error


class JournalSource:
    """The source for an embedded store; a service may write to its database at the same time."""

    @foreign_refused()
    def __init__(self, db: sqlite3.Connection, erasure_key: str | None) -> None:
        self._db, self._erasure_key = db, erasure_key
        (self._version,) = db.execute("PRAGMA user_version").fetchone()
        if self._version > JOURNAL_VERSION:
            raise StoreError(
                "store.journal_newer",
                f"a newer version of the service wrote the store (schema {self._version}; this version reads up "
                f"to {JOURNAL_VERSION}).",
                fix="Run the offline job of the service's version.",
            )
        self._meta: dict[str, str] = dict(db.execute("SELECT name, value FROM meta"))
        self.store_id = self._meta["id"]

    @foreign_refused()
    def read(self, cursors: Mapping[int, StreamPosition]) -> EventBatch:
        after = cursors.get(0, (0, 0))[1]
        if self._version == 0:
            return self._read_old(after)
        entries: list[WaitingEvent] = []
        # Pages, because a long read would keep the service from removing erased bytes from its write-ahead log.
        while len(entries) < MAX_ENTRIES:
            query = "SELECT seq, payload FROM journal WHERE seq > ? ORDER BY seq LIMIT ?"
            page = self._db.execute(query, (after, min(PAGE, MAX_ENTRIES - len(entries)))).fetchall()
            entries += [WaitingEvent(0, (0, seq), read_event(payload)) for seq, payload in page]
            if not page:
                return EventBatch(entries, {0: (0, after)}, more=False)
            after = page[-1][0]
        return EventBatch(entries, {0: (0, after)}, more=True)

    def _read_old(self, after: int) -> EventBatch:
        """Reads a store of schema 0, which the service has not migrated yet and which may hold duplicates."""
        last = after
        entries: list[WaitingEvent] = []
        accepted: dict[tuple[str, str], int] = {}
        # From the beginning, because an event may duplicate one before `after`.
        for seq, payload in self._db.execute("SELECT seq, payload FROM journal ORDER BY seq"):
            event = read_event(payload)
            name, at = (event.user_id, event.event_id), int(event.accepted_at)
            if accepted.get(name, -math.inf) > at - REMEMBER_S:
                last = max(last, seq)
                continue
            accepted[name] = at
            if seq > after:
                entries.append(WaitingEvent(0, (0, seq), event))
                last = seq
                if len(entries) == MAX_ENTRIES:
                    return EventBatch(entries, {0: (0, last)}, more=True)
        return EventBatch(entries, {0: (0, last)}, more=False)

    @foreign_refused()
    def items(self, after: ItemChangesCursor | None) -> ItemBatch:
        if self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'items'").fetchone() is None:
            return ItemBatch({}, after)  # an older service, which accepted no item changes
        last = 0 if after is None else after.last
        rows = self._db.execute("SELECT seq, item_id, entry FROM items WHERE seq > ? ORDER BY seq", (last,)).fetchall()
        entries: dict[str, ItemEntry] = {item_id: decode_entry(entry) for _, item_id, entry in rows}
        return ItemBatch(entries, ItemChangesCursor("journal", rows[-1][0]) if rows else after)

    @foreign_refused()
    def tombstones(self) -> tuple[dict[str, Tombstone], bytes | None]:
        rows = self._db.execute("SELECT name, text FROM tombstones").fetchall()
        found = {name: read_tombstone(text.encode()) for name, text in rows}
        return found, secret_of(self._meta["secret"], self._erasure_key) if found else None

    def release(self, cursors: Mapping[int, StreamPosition]) -> None:
        # The service still needs the rows; it removes them once a release contains them.
        if 0 in cursors:
            with self._db:
                value = str(cursors[0][1])
                self._db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('exported', ?)", (value,))
