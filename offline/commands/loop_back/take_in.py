"""Imports the events that the service accepted into the shop's interactions file, each exactly once.

`take_in` reads the entries of the streams (or of the embedded store's journal) since the last run, writes a new file
and renames it to the old one's name. The rename is the commit: the new read positions count only if it happened
(`offline.commands.loop_back.commit`). So a kill at any moment neither loses an event nor imports one twice. The store
may free what the run before imported only when this run ends.

The file loses the rows of users who were erased since the last run. Events from before an erasure never enter it
again. Item changes go into the catalogue file first; writing them twice changes nothing. It knows nothing of stages
and releases.
"""

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from isrf.contract.event_log import Tombstone, tombstone_name
from offline.commands.loop_back.commit import DataFolder
from offline.commands.loop_back.item_rows import write_items
from offline.commands.loop_back.open_source import open_source
from offline.commands.loop_back.rows import holds_forgotten, new_row, write_interactions
from offline.commands.loop_back.source import Source, WaitingEvent


class TakenIn(NamedTuple):
    """What one run imported and removed."""

    events: int  # rows added
    left_out: int  # events of erased users, not imported
    forgotten_rows: int  # rows of erased users, removed from the file
    items: int = 0  # catalogue rows added or changed


def take_in(store: str, data: Path, *, erasure_key: str | None = None) -> TakenIn:
    """Imports the events and item changes since the last run into the two files of `data`.

    Args:
        store: a Redis URL (also of a cluster), or the folder of an embedded store; its service may be running.
        data: the shop's folder.
        erasure_key: the service's `ISRF_ERASURE_KEY`.

    Raises:
        DataError: a file cannot be rewritten, or the store does not exist.
        StoreError: the store cannot be read now; events of earlier commits stay imported.
        ConfigError: `config.erasure_key`, `config.redis_url`.
        StageError: `loop_back.locked`: another run is changing `data`.
    """
    total = TakenIn(0, 0, 0, 0)
    with open_source(store, erasure_key=erasure_key) as source, DataFolder(data) as folder:
        finished = folder.progress(source.store_id).finished
        more = True
        while more:
            batch, more = _take_in_batch(source, folder)
            total = TakenIn(*(before + now for before, now in zip(total, batch, strict=True)))
        # Not what this run imported: the served release has not learned it, and a service that starts before the next
        # release is there counts it from the store.
        source.release(finished)
        folder.finish(source.store_id)
        return total


def _take_in_batch(source: Source, folder: DataFolder) -> tuple[TakenIn, bool]:
    started_at = time.time()
    progress = folder.progress(source.store_id)
    # The tombstones after the events: an erasure that they lack came after all events of this batch.
    batch = source.read(progress.cursors)
    # Read the items after the events and write them before: so no event names a missing item.
    item_batch = source.items(progress.items)
    if item_batch.entries:
        folder.rewrite_items(lambda old, part: write_items(old, part, item_batch.entries), current_at=started_at)
        folder.commit_items(source.store_id, item_batch.cursor)
    tombstones, secret = source.tombstones()
    new_tombstones = {
        name: tombstone for name, tombstone in tombstones.items() if tombstone.nonce not in progress.forgotten
    }
    valid_events = list(_without_erased(batch.entries, tombstones, secret))
    taken_in = TakenIn(len(valid_events), len(batch.entries) - len(valid_events), 0, len(item_batch.entries))
    forgets = _forgets(tombstones, new_tombstones, secret)
    # The shop may have rewritten its file from data that still holds an erased user's rows.
    if (
        valid_events
        or new_tombstones
        or (forgets is not None and folder.any_of(lambda path: holds_forgotten(path, forgets)))
    ):
        rows = [new_row(*entry.event[:3], entry.event.timestamp) for entry in sorted(valid_events, key=_time_order)]
        forgotten = folder.rewrite(
            lambda old, part: write_interactions(old, part, rows, forgets=forgets),
            current_at=None if batch.more or not (valid_events or new_tombstones) else started_at,
        )
        taken_in = taken_in._replace(forgotten_rows=forgotten)
    if batch.entries or new_tombstones or taken_in.forgotten_rows:
        folder.commit(source.store_id, batch.cursors, {tombstone.nonce for tombstone in tombstones.values()})
    return taken_in, batch.more


def _without_erased(
    entries: Iterable[WaitingEvent], tombstones: dict[str, Tombstone], secret: bytes | None
) -> Iterable[WaitingEvent]:
    """Yields the entries except those from before their user's erasure, by position or by timestamp."""
    for entry in entries:
        tombstone = None if secret is None else tombstones.get(tombstone_name(secret, entry.event.user_id))
        if tombstone is None or (entry.position > tombstone.position and _is_after(entry, tombstone)):
            yield entry


def _is_after(entry: WaitingEvent, tombstone: Tombstone) -> bool:
    return entry.event.assigned or entry.event.timestamp > tombstone.erased_at


def _forgets(
    tombstones: dict[str, Tombstone], new: dict[str, Tombstone], secret: bytes | None
) -> Callable[[str], float | None] | None:
    """Leaves out all rows of users erased since the last run; of users erased before, the rows until the erasure."""
    if not tombstones or secret is None:
        return None
    limits: dict[str, float | None] = {}

    def forgets(user_id: str) -> float | None:
        if user_id not in limits:
            name = tombstone_name(secret, user_id)
            tombstone = tombstones.get(name)
            limits[user_id] = None if tombstone is None else math.inf if name in new else tombstone.erased_at
        return limits[user_id]

    return forgets


def _time_order(entry: WaitingEvent) -> tuple[float, int, tuple[int, int]]:
    return entry.event.timestamp, entry.bucket, entry.position
