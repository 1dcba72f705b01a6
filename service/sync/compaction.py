"""Removes state that a release has learned: the release holds the same information.

Merging gives the same user before and after, so that no answer changes. A user's newer events stay, and so does a
recent `remove`, which must still cancel an older event that arrives late. Of sessions, which no release holds, what is
a month older than the release goes. One replica goes through the users in the store once, in the background.
"""

import asyncio
from collections.abc import Sequence

import structlog

from isrf.contract.errors import StoreError
from isrf.contract.ids import session_of
from service.release.opening import Release
from service.state.events import EventRules
from service.state.item_store import ItemStore
from service.state.merge import learned
from service.state.records import Learned, UserRecord
from service.state.store import Store
from service.state.user_store import UserStore
from service.sync.catalogue_sync import CatalogueSync

PAGE = 200
TOGETHER = 16
PAUSE_S = 0.02
GRACE_S = 600.0
"""How long compaction waits after a release opens: other replicas may still serve the previous release, which has
learned less, and an operator may go back to it."""
CLAIM_S = 3600
SESSION_KEPT_S = 30 * 86_400.0
"""What a session did so long before a release was read is removed: no release holds it, and most never return."""

_log = structlog.get_logger("service")


async def collect_learned(store: UserStore, release: Release, rules: EventRules) -> int:
    """Removes learned state of all users; returns the number of users with removed state, 0 where the store fails."""
    try:
        if not await store.claim(f"collect:{release.manifest.release_id}", CLAIM_S):
            return 0
        count = 0
        # The users in the store, not those of the release: these are many more, and each costs a read.
        async for page in store.user_ids():
            user_ids = [
                user_id for user_id in page if release.users.row(user_id) >= 0 or session_of(user_id) is not None
            ]
            for start in range(0, len(user_ids), PAGE):
                count += await _collect(store, release, rules, user_ids[start : start + PAGE])
                await asyncio.sleep(PAUSE_S)
        await store.compact()
    except StoreError as error:
        _log.info("not_collected", code=error.code)
        return 0
    if count:
        _log.info("collected", users=count, release_id=release.manifest.release_id)
    return count


async def collect_later(
    store: Store, release: Release, rules: EventRules, items: CatalogueSync, grace_s: float
) -> None:
    """Removes learned state after `grace_s`, when all replicas have had time to open the release."""
    await asyncio.sleep(grace_s)
    await collect_learned(store, release, rules)
    await collect_items(store, items)


async def collect_items(store: ItemStore, items: CatalogueSync) -> int:
    """Removes learned changes of items; returns the number of items without changes left, 0 where the store fails."""
    try:
        count = await store.collect_items(items.learned())
    except StoreError as error:
        _log.info("items_not_collected", code=error.code)
        return 0
    if count:
        _log.info("items_collected", items=count)
    return count


async def _collect(store: UserStore, release: Release, rules: EventRules, user_ids: Sequence[str]) -> int:
    doomed: list[tuple[str, str, Learned]] = []
    for user_id, record in zip(user_ids, await store.read_many(user_ids), strict=True):
        if record.erased or not (record.history or record.marks):
            continue
        if session_of(user_id) is not None:
            found = _older_than(record, release.learned_until - SESSION_KEPT_S)
        else:
            past = release.users.past(user_id, lambda kind: rules.effect(kind) == "B")
            found = learned(record, past, release.learned_until)
        if found.entries or found.items:
            doomed.append((user_id, record.version, found))
    for start in range(0, len(doomed), TOGETHER):
        # Concurrent writes to the embedded store share one commit.
        await asyncio.gather(*(store.collect(*arguments) for arguments in doomed[start : start + TOGETHER]))
    return len(doomed)


def _older_than(record: UserRecord, moment: float) -> Learned:
    """Returns the part of a record from before a moment, in seconds."""
    entries = [entry for entry in record.history if (entry.timestamp or 0.0) < moment]
    items = [item for item, mark in record.marks.items() if max(at for at in (*mark, 0.0) if at is not None) < moment]
    return Learned(entries, items)
