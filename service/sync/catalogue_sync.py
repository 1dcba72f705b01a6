"""Keeps a replica's items up to date: what the shop said of them since the release, on whichever replica.

The store numbers every change, so a look costs one small question where nothing is new. The replica that took a change
looks at once; the others within `poll_s`. Whoever asks for a look shares the next one with all who wait. What the store
cannot tell now stays as it was until it can; until then requests do not wait for it.
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
from service.inference.engine import Engine
from service.inference.task_cancellation import end
from service.release.item_changes import changed_line, is_learned, standing, text_of
from service.release.opening import Release
from service.state.item_store import ItemsCursor, ItemStore
from service.state.redis.failures import FOREIGN

CLOSE_S = 2.0
FIRST_LOOK_S = 5.0
"""How long the start waits for the items."""
AGAIN_S = 1.0
"""How soon a store that could not tell is asked again."""

_log = structlog.get_logger("service")


class CatalogueSync:
    """One per release that is open."""

    def __init__(
        self, engine: Engine, store: ItemStore, *, poll_s: float, before: "CatalogueSync | None" = None
    ) -> None:
        """`before` is the feed of another release: what it knows holds here too, store or no store."""
        self._engine, self._store, self._poll_s = engine, store, poll_s
        self._base: Release = engine.release
        self._entries: dict[str, ItemEntry] = {}
        self._inherited: dict[str, ItemEntry] = {} if before is None else dict(before._entries)
        self._inherited_version = "" if before is None else f"{before._engine.release.catalogue.version} inherited"
        self._cursor: ItemsCursor | None = None
        self._read: dict[str, ReadItem] = {}  # in the order of their rows
        self._looking = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None  # the look that begins when the one under way has ended
        self._silent: StoreError | None = None  # why the last look learned nothing
        self._task: asyncio.Task[None] | None = None

    @property
    def reads_new_items(self) -> bool:
        return self._base.new_items is not None

    def is_new(self, item_id: str) -> bool:
        """Whether the release does not hold an item."""
        return not self._base.catalogue.knows(item_id)

    @property
    def entries(self) -> Mapping[str, ItemEntry]:
        """What was said, by item_id."""
        return self._entries

    def standing(self, item_id: str, entry: ItemEntry) -> dict[str, Any]:
        """The fields of an entry that count beside the release."""
        return standing(entry, self._base.catalogue.find(item_id), self._base.items_learned_until)

    def understands(self, item_id: str) -> bool:
        """Whether a word of a new item's texts is known to the release."""
        read = self._read.get(item_id)
        return read is not None and len(read.near.rows) > 0

    async def start(self) -> None:
        """Looks once, if that can be done soon, and then every `poll_s` until `close`."""
        if self._inherited:
            async with self._looking:
                await self._take(self._inherited, set(self._inherited), self._inherited_version)
        first = asyncio.create_task(self.look())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(first), FIRST_LOOK_S)
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        for task in (self._task, self._next):
            if task is not None:
                # A store that hangs must not hold up the end.
                await end(task, within_s=CLOSE_S)
        # A cancelled task keeps the frames it ended in, and with them all that this holds.
        self._task = self._next = None

    async def bring_up_to_date(self) -> None:
        """Takes in what was said until now; `StoreError` where that cannot be known now."""
        if self._next is None:
            self._next = asyncio.create_task(self._next_look())
            # Those who asked may all be gone.
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._next)

    async def look(self) -> None:
        """As `bring_up_to_date`; what the store cannot tell now stays as it was."""
        try:
            await self.bring_up_to_date()
        except IsrfError as error:
            _log.info("items_unchanged", code=error.code)

    async def ask(self) -> None:
        """As `look`, for a request about an item that is not known here.

        Raises:
            StoreError: the store cannot tell now, and is not waited for.
        """
        if self._silent is None:
            await self.look()
        # What others wrote there stands until somebody takes it away: nothing is known by waiting.
        if self._silent is not None and self._silent.code != FOREIGN:
            raise _copy(self._silent)

    def learned(self) -> dict[str, ItemEntry]:
        """Entries without which the release says the same."""
        catalogue, until = self._base.catalogue, self._base.items_learned_until
        return {
            item_id: entry
            for item_id, entry in self._entries.items()
            if is_learned(entry, catalogue.find(item_id), until)
        }

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s if self._silent is None else min(self._poll_s, AGAIN_S))
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - items that grow old must not end the service
                _log.error("items_failed", exc_info=error)

    async def _next_look(self) -> None:
        async with self._looking:
            # Who asks from now on may know of something that this look does not find.
            self._next = None
            try:
                await self._look()
            except StoreError as error:
                self._silent = _copy(error)
                raise
            self._silent = None

    async def _look(self) -> None:
        found = await self._store.items(self._cursor)
        if found.cursor == self._cursor and not found.entries and self._cursor is not None:
            return
        entries = dict(found.entries) if found.whole else {**self._entries, **found.entries}
        changed = set(found.entries)
        if found.whole:
            changed |= set(self._entries)
        version = "" if found.cursor is None else f"{found.cursor.counting.decode()}.{found.cursor.last}"
        if changed or version != self._engine.release.catalogue.version:
            await self._take(entries, changed, version)
        self._cursor = found.cursor

    async def _take(self, entries: dict[str, ItemEntry], changed: set[str], version: str) -> None:
        before = self._engine.release
        release, read = await asyncio.to_thread(self._applied, before, entries, sorted(changed), version)
        self._entries, self._read = entries, read
        self._engine.change_release(release)

    def _applied(
        self, release: Release, entries: Mapping[str, ItemEntry], changed: list[str], version: str
    ) -> tuple[Release, dict[str, ReadItem]]:
        """The release with the changed items as they are now. Takes milliseconds an item that is new."""
        base, until = self._base.catalogue, self._base.items_learned_until
        read = self._read | self._read_new({item_id: entries[item_id] for item_id in changed if item_id in entries})
        lines = {}
        for item_id in changed:
            line = base.find(item_id)
            if line is None and item_id not in read:
                continue
            lines[item_id] = changed_line(item_id, entries.get(item_id, {}), line, until)
            if line is None and item_id not in entries:
                # Its row stays, and the histories with it, when nothing is said of it any more.
                lines[item_id] = lines[item_id].model_copy(update={"hidden": True})
        catalogue = release.catalogue.with_items(lines, version)
        recommender = release.recommender
        if any(read[item_id] is not self._read.get(item_id) for item_id in read):
            recommender = self._base.recommender.with_items(added_items(read))
        return replace(release, catalogue=catalogue, recommender=recommender), read

    def _read_new(self, entries: Mapping[str, ItemEntry]) -> dict[str, ReadItem]:
        """Those of the items that the release does not hold, read where that was not done yet."""
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
    """One that holds no frames."""
    return StoreError(error.code, error.message, fix=error.fix)
