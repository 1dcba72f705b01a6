"""Stores changes of items in the table `items`, merged field by field and numbered in their order."""

import sqlite3
from collections.abc import Mapping, Sequence

from isrf.contract.item_changes import ItemEntry, decode_entry, encode_entry, is_too_much, merged
from service.state.item_store import ItemChange, ItemOutcome, ItemsCursor, ItemsLook
from service.state.sqlite.schema import number_on


def change_items(db: sqlite3.Connection, changes: Sequence[ItemChange], limit: int) -> list[ItemOutcome]:
    """Stores changes in their order; `limit` is how many items without a release there may be."""
    (num_added,) = db.execute("SELECT count(*) FROM items WHERE added").fetchone()
    outcomes: list[ItemOutcome] = []
    for change in changes:
        found = db.execute("SELECT entry, added FROM items WHERE item_id = ?", (change.item_id,)).fetchone()
        known, was_added = found or (None, 0)
        before = None if known is None else decode_entry(known)
        after = merged(before, change.fields, change.at)
        if is_too_much(before, after):
            outcomes.append("too_large")
            continue
        if change.added and not was_added:
            if num_added >= limit:
                outcomes.append("too_many")
                continue
            num_added += 1
        if not last_change(db):
            number_on(db, "items")
        query = "INSERT OR REPLACE INTO items (item_id, entry, added) VALUES (?, ?, ?)"
        db.execute(query, (change.item_id, encode_entry(after), change.added or was_added))
        outcomes.append("accepted")
    return outcomes


def last_change(db: sqlite3.Connection) -> int:
    """Returns the number of the last change of items, 0 where there never was one."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'items'").fetchone()
    return 0 if row is None else int(row[0])


def look_at_items(db: sqlite3.Connection, counting: bytes, after: ItemsCursor | None) -> ItemsLook:
    """Returns the entries that changed after the cursor, or all of them."""
    if not last_change(db):
        return ItemsLook(None, {}, whole=True)
    whole = after is None or after.counting != counting
    start = 0 if after is None or whole else after.last
    rows = db.execute("SELECT seq, item_id, entry FROM items WHERE seq > ? ORDER BY seq", (start,)).fetchall()
    entries: dict[str, ItemEntry] = {item_id: decode_entry(entry) for _, item_id, entry in rows}
    return ItemsLook(ItemsCursor(counting, rows[-1][0] if rows else start), entries, whole)


def collect_entries(db: sqlite3.Connection, doomed: Mapping[str, ItemEntry]) -> int:
    """Removes entries that have not changed since they were read; returns their number."""
    return sum(
        db.execute("DELETE FROM items WHERE item_id = ? AND entry = ?", (item_id, encode_entry(entry))).rowcount
        for item_id, entry in doomed.items()
    )
