"""Keeps a replica's items up to date with the shop's changes since the release, made on any replica.

The store numbers every change, so that a look without news costs one small read. The replica that accepts a change
looks at once; the others look within `poll_s`. Callers who wait for a look share the next one. While the store fails,
the items stay as they are, and requests do not wait for it.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from isrf.contract.errors import IsrfError, StoreError
from isrf.contract.item_changes import ItemEntry
from isrf.method.recommend.new_items import ReadItem, added_items
from isrf.method.recommend.product_groups import Products
from service.inference.engine import Engine
from service.inference.task_cancellation import end
from service.release.catalogue import Catalogue
from service.release.item_changes import added_at_of, changed_line, effective_fields, is_learned, text_of
from service.release.opening import Release
from service.state.item_store import ItemsCursor, ItemStore
from service.state.redis.failures import FOREIGN

CLOSE_S = 2.0
FIRST_LOOK_S = 5.0
"""How long the start waits for the items."""
AGAIN_S = 1.0
"""How soon a failed store is read again."""

_log = structlog.get_logger("service")


class CatalogueSync:
    """Keeps the items of one open release up to date."""

    def __init__(
        self, engine: Engine, store: ItemStore, *, poll_s: float, before: "CatalogueSync | None" = None
    ) -> None:
        """before: the sync of the previous release; its changes apply here even if the store fails."""
        self._engine, self._store, self._poll_s = engine, store, poll_s
        self._base: Release = engine.release
        self._entries: dict[str, ItemEntry] = {}
        self._inherited: dict[str, ItemEntry] = {} if before is None else dict(before.entries)
        self._inherited_version = "" if before is None else f"{before.version} inherited"
        self._cursor: ItemsCursor | None = None
        self._read: dict[str, ReadItem] = {}  # in the order of their rows
        self._looking = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None  # the look that begins when the current one has ended
        self._failure: StoreError | None = None  # of the last look
        self._task: asyncio.Task[None] | None = None

    @property
    def reads_new_items(self) -> bool:
        return self._base.new_items is not None

    def is_new(self, item_id: str) -> bool:
        """Whether an item is missing in the release."""
        return not self._base.catalogue.knows(item_id)

    @property
    def entries(self) -> Mapping[str, ItemEntry]:
        """The shop's changes, by item_id."""
        return self._entries

    @property
    def version(self) -> str:
        """The version of the catalogue with the shop's changes so far."""
        return self._engine.release.catalogue.version

    def effective_fields(self, item_id: str, entry: ItemEntry) -> dict[str, Any]:
        """Returns the fields of an item's changes that apply beside the release."""
        return effective_fields(entry, self._base.catalogue.find(item_id), self._base.items_learned_until)

    def understands(self, item_id: str) -> bool:
        """Whether the release knows a word of a new item's texts."""
        read = self._read.get(item_id)
        return read is not None and len(read.near.rows) > 0

    async def start(self) -> None:
        """Updates the items once, within `FIRST_LOOK_S` if possible, and then every `poll_s` until `close`."""
        if self._inherited:
            async with self._looking:
                await self._apply(self._inherited, set(self._inherited), self._inherited_version)
        first = asyncio.create_task(self.look())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(first), FIRST_LOOK_S)
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        for task in (self._task, self._next):
            if task is not None:
                # A store that hangs must not delay the end.
                await end(task, within_s=CLOSE_S)
        # A cancelled task keeps its last frames alive, and with them this object.
        self._task = self._next = None

    async def bring_up_to_date(self) -> None:
        """Applies all changes until now, unless the sync is closed; raises `StoreError` where the store fails."""
        if self._next is None:
            self._next = asyncio.create_task(self._next_look())
            # All callers may be gone: retrieves the outcome, so that asyncio does not report it as lost.
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())
        look, caller = self._next, asyncio.current_task()
        try:
            await asyncio.shield(look)
        except asyncio.CancelledError:
            # `close` ended the look. The caller may have stored a change, and goes on.
            if not look.cancelled() or (caller is not None and caller.cancelling()):
                raise

    async def look(self) -> None:
        """As `bring_up_to_date`; the items stay as they are where the store fails."""
        try:
            await self.bring_up_to_date()
        except IsrfError as error:
            _log.info("items_unchanged", code=error.code)

    async def ask(self) -> None:
        """As `look`, for a request about an item that is unknown here.

        Raises:
            StoreError: the store fails; the request does not wait for it.
        """
        if self._failure is None:
            await self.look()
        # Foreign data in the store stays until an operator removes it: to wait does not help.
        if self._failure is not None and self._failure.code != FOREIGN:
            raise _copy(self._failure)

    def learned(self) -> dict[str, ItemEntry]:
        """Returns the entries that the release has learned, so that they are not needed any more."""
        catalogue, until = self._base.catalogue, self._base.items_learned_until
        return {
            item_id: entry
            for item_id, entry in self._entries.items()
            if is_learned(entry, catalogue.find(item_id), until)
        }

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s if self._failure is None else min(self._poll_s, AGAIN_S))
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - a failed look must not end the loop
                _log.error("items_failed", exc_info=error)

    async def _next_look(self) -> None:
        async with self._looking:
            # Callers from now on need another look: this one may miss their change.
            self._next = None
            try:
                await self._look()
            except StoreError as error:
                self._failure = _copy(error)
                raise
            self._failure = None

    async def _look(self) -> None:
        found = await self._store.items(self._cursor)
        if found.cursor == self._cursor and not found.entries and self._cursor is not None:
            return
        entries = dict(found.entries) if found.whole else {**self._entries, **found.entries}
        changed = set(found.entries)
        if found.whole:
            changed |= set(self._entries)
        version = "" if found.cursor is None else f"{found.cursor.counting.decode()}.{found.cursor.last}"
        if changed or version != self.version:
            await self._apply(entries, changed, version)
        self._cursor = found.cursor

    async def _apply(self, entries: dict[str, ItemEntry], changed: set[str], version: str) -> None:
        before = self._engine.release
        release, read = await asyncio.to_thread(self._applied, before, entries, sorted(changed), version)
        self._entries, self._read = entries, read
        self._engine.change_release(release)

    def _applied(
        self, release: Release, entries: Mapping[str, ItemEntry], changed: list[str], version: str
    ) -> tuple[Release, dict[str, ReadItem]]:
        """Returns the release with its changed items, and the new items. A new item takes milliseconds."""
        base, until = self._base.catalogue, self._base.items_learned_until
        read = self._read | self._read_new({item_id: entries[item_id] for item_id in changed if item_id in entries})
        lines = {}
        for item_id in changed:
            line = base.find(item_id)
            if line is None and item_id not in read:
                continue
            lines[item_id] = changed_line(item_id, entries.get(item_id, {}), line, until)
            if line is None and item_id not in entries:
                # An item without entries keeps its row, because histories refer to it.
                lines[item_id] = lines[item_id].model_copy(update={"hidden": True})
        added_at = {
            item_id: added_at_of(entries[item_id]) for item_id in lines if item_id in read and entries.get(item_id)
        }
        catalogue = release.catalogue.with_items(lines, version, added_at=added_at)
        recommender = release.recommender
        reads_anew = any(read[item_id] is not self._read.get(item_id) for item_id in read)
        if reads_anew or catalogue.groups is not release.catalogue.groups:
            recommender = self._base.recommender.with_items(added_items(read)) if read else self._base.recommender
            if catalogue.groups.any or base.groups.any:
                recommender = recommender.with_products(self._products(catalogue))
        return replace(release, catalogue=catalogue, recommender=recommender), read

    def _products(self, catalogue: Catalogue) -> Products:
        base = self._base.catalogue
        return Products.of_catalogue(catalogue.groups, catalogue.group_ids, base.group_ids, base.popularity)

    def _read_new(self, entries: Mapping[str, ItemEntry]) -> dict[str, ReadItem]:
        """Reads new items whose texts were not read before."""
        reader = self._base.new_items
        if reader is None:
            return {}
        texts = {item_id: text_of(entry) for item_id, entry in entries.items() if self.is_new(item_id)}
        unread = {
            item_id: text
            for item_id, text in texts.items()
            if item_id not in self._read or self._read[item_id].text != text
        }
        return dict(zip(unread, reader.read(list(unread.values())), strict=True))


def _copy(error: StoreError) -> StoreError:
    """Returns the error without its traceback, which would keep frames alive."""
    return StoreError(error.code, error.message, fix=error.fix)
