"""The loop closes: what the service accepted becomes rows of the shop's interactions file, each exactly once.

`take_in` reads what the streams (or the embedded store's journal) hold beyond the last run, writes the file anew beside
its place, and renames it. That rename is the commit: a cursor written before it counts if, and only if, it happened
(`offline.commands.loop_back.take_in.commit`), so that a kill at any moment neither loses an event nor takes one in
twice. Only then may the store let go of what was taken in. Users who were erased since the last run leave the file;
their old events never come into it, nor do rows come back that are dated before their erasure. What the shop said of
its items goes into the catalogue file first: that is a state, and writing it twice changes nothing. It knows nothing of
stages and releases.
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
from offline.commands.loop_back.rows import NewRow, holds_forgotten, write_interactions
from offline.commands.loop_back.source import Source, WaitingEvent


class TakenIn(NamedTuple):
    """What one run did."""

    events: int  # rows added
    left_out: int  # events of erased users
    forgotten_rows: int  # rows of erased users taken out of the file
    items: int = 0  # catalogue rows that were added or changed


def take_in(store: str, data: Path, *, erasure_key: str | None = None) -> TakenIn:
    """Merges what `store` accepted since the last run into the two files of `data`.

    Args:
        store: a Redis URL (a cluster is recognised), or the folder of an embedded store, whose service may be running.
        data: the shop's folder.
        erasure_key: what the service has as `ISRF_ERASURE_KEY`.

    Raises:
        DataError: the file cannot be rewritten as it is, or there is no such store.
        StoreError: the store cannot be read now; what was taken in before stays.
        ConfigError: `config.erasure_key`.
        StageError: `loop_back.locked`, another run is at work in `data`.
    """
    total = TakenIn(0, 0, 0, 0)
    with open_source(store, erasure_key=erasure_key) as source, DataFolder(data) as folder:
        while True:
            done, more = _once(source, folder)
            total = TakenIn(*(before + now for before, now in zip(total, done, strict=True)))
            if not more:
                return total


def _once(source: Source, folder: DataFolder) -> tuple[TakenIn, bool]:
    began = time.time()
    progress = folder.progress(source.store_id)
    # The tombstones after the events: whoever is not among them was erased after everything that was read here.
    batch = source.read(progress.cursors)
    # The items after the events, and into the shop's folder before them: no event may name an item that is not there.
    said = source.items(progress.items)
    if said.entries:
        folder.rewrite_items(lambda old, part: write_items(old, part, said.entries), current_at=began)
        folder.commit_items(source.store_id, said.cursor)
    tombstones, secret = source.tombstones()
    new = {name: stone for name, stone in tombstones.items() if stone.nonce not in progress.forgotten}
    kept = list(_standing(batch.entries, tombstones, secret))
    done = TakenIn(len(kept), len(batch.entries) - len(kept), 0, len(said.entries))
    forgets = _forgets(tombstones, new, secret)
    # The shop may have written its file anew, from data that still has an erased user's old rows.
    if kept or new or (forgets is not None and folder.any_of(lambda path: holds_forgotten(path, forgets))):
        rows = [NewRow(*entry.event[:3], entry.event.timestamp) for entry in sorted(kept, key=_moment)]
        forgotten = folder.rewrite(
            lambda old, part: write_interactions(old, part, rows, forgets=forgets),
            current_at=None if batch.more or not (kept or new) else began,
        )
        done = done._replace(forgotten_rows=forgotten)
    if batch.entries or new or done.forgotten_rows:
        folder.commit(source.store_id, batch.cursors, {stone.nonce for stone in tombstones.values()})
    # Also what an earlier run took in and was killed before it said so.
    source.release(batch.cursors)
    return done, batch.more


def _standing(
    entries: Iterable[WaitingEvent], tombstones: dict[str, Tombstone], secret: bytes | None
) -> Iterable[WaitingEvent]:
    """Entries without those that their user's erasure took back, and without those that are dated before it."""
    for entry in entries:
        stone = None if secret is None else tombstones.get(tombstone_name(secret, entry.event.user_id))
        if stone is None or (entry.position > stone.position and _is_after(entry, stone)):
            yield entry


def _is_after(entry: WaitingEvent, stone: Tombstone) -> bool:
    return entry.event.assigned or entry.event.timestamp > stone.erased_at


def _forgets(
    tombstones: dict[str, Tombstone], new: dict[str, Tombstone], secret: bytes | None
) -> Callable[[str], float | None] | None:
    """All rows of who was erased since the last run; of who was before, those that are dated until then."""
    if not tombstones or secret is None:
        return None
    known: dict[str, float | None] = {}

    def forgets(user_id: str) -> float | None:
        if user_id not in known:
            name = tombstone_name(secret, user_id)
            stone = tombstones.get(name)
            known[user_id] = None if stone is None else math.inf if name in new else stone.erased_at
        return known[user_id]

    return forgets


def _moment(entry: WaitingEvent) -> tuple[float, int, tuple[int, int]]:
    return entry.event.timestamp, entry.bucket, entry.position
