"""Keeps a replica's placements up to date: the file's defaults, and over them those that the shop stored.

A look without news is one small read. The replica that takes a change looks at once, the others within `POLL_S`. While
the store fails, the last known placements stay, and answers say so.
"""

import asyncio
from collections.abc import Mapping

import structlog

from isrf.contract.errors import IsrfError
from service.inference.task_cancellation import end
from service.recommend.placements.placement import (
    MOST_PLACEMENTS,
    Placement,
    PlacementVersion,
    read_placement,
    stored_form,
)
from service.state.list_store import PlacementChange, PlacementStore, StoredPlacement

POLL_S = 0.5
"""Seconds between two looks: a change counts on every replica within a second."""
FIRST_LOOK_S = 2.0
"""How long the start waits for the stored placements."""
CLOSE_S = 2.0

_log = structlog.get_logger("service")


class PlacementSync:
    """The placements of this process; the app has one."""

    def __init__(self, store: PlacementStore, defaults: Mapping[str, PlacementVersion]) -> None:
        """defaults: by name, which a stored placement of the same name overrides."""
        self._store, self._defaults = store, defaults
        self._stored: dict[str, PlacementVersion] = {}
        self._known: dict[str, tuple[StoredPlacement, PlacementVersion | None]] = {}
        self._cursor: bytes | None = None
        self._looking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.is_current = False
        """Whether the last look at the store succeeded."""

    def find(self, name: str) -> PlacementVersion | None:
        return self._stored.get(name) or self._defaults.get(name)

    def all(self) -> dict[str, PlacementVersion]:
        """Returns all placements in the order of their names."""
        return dict(sorted({**self._defaults, **self._stored}.items()))

    async def start(self) -> None:
        try:
            async with asyncio.timeout(FIRST_LOOK_S):
                await self.try_look()
        except TimeoutError:
            _log.info("placements_unread")
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            await end(self._task, within_s=CLOSE_S)

    async def put(self, name: str, placement: Placement, *, expected: int | None = None) -> PlacementChange:
        """Stores a placement, where the `expected` version is stored (0: none; None: any).

        Raises:
            StoreError: it was not stored. Where only the look after it fails, the next look finds it.
        """
        change = await self._store.put_placement(name, stored_form(placement), limit=MOST_PLACEMENTS, expected=expected)
        if change.outcome != "too_many":
            await self.try_look()
        return change

    async def delete(self, name: str, *, expected: int | None = None) -> PlacementChange:
        """Removes a stored placement; `expected` and errors as in `put`."""
        change = await self._store.delete_placement(name, expected=expected)
        if change.outcome != "absent":
            await self.try_look()
        return change

    async def look(self) -> None:
        """Reads the placements where they have changed; raises `StoreError` where the store fails."""
        async with self._looking:
            try:
                found = await self._store.placements(self._cursor)
            except BaseException:
                self.is_current = False
                raise
            if found.placements is not None:
                await self._take(found.placements)
            self._cursor, self.is_current = found.cursor, True

    async def _take(self, found: Mapping[str, StoredPlacement]) -> None:
        # One of 50 rules takes a millisecond to read: a thousand must not hold up the event loop.
        read = await asyncio.to_thread(self._read, found)
        self._stored = {name: one for name, one in read.items() if one is not None}
        for name in self._known.keys() - found.keys():
            del self._known[name]

    def _read(self, found: Mapping[str, StoredPlacement]) -> dict[str, PlacementVersion | None]:
        """Reads the placements that differ from those of the last time, also of one that was cancelled."""
        read: dict[str, PlacementVersion | None] = {}
        for name, one in found.items():
            known = self._known.get(name)
            if known is None or known[0] != one:
                known = self._known[name] = one, read_placement(one.payload, one.version)
            if known[1] is None:
                _log.warning("unreadable_placement", placement=name[:80], version=one.version)
            read[name] = known[1]
        return read

    async def try_look(self) -> None:
        """As `look`; the placements stay as they are where the store fails."""
        try:
            await self.look()
        except IsrfError as error:
            _log.info("placements_unchanged", code=error.code)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.try_look()
            except Exception as error:  # noqa: BLE001 - a failed look must not end the loop
                _log.error("placements_failed", exc_info=error)
