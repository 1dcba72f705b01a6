"""`EmbeddedStore`: users, items and counts in one SQLite database of this process."""

import asyncio
import sqlite3
from pathlib import Path

from service.state.sqlite.counters import EmbeddedCounters
from service.state.sqlite.database import Database
from service.state.sqlite.files import unwritable
from service.state.sqlite.item_store import EmbeddedItemStore
from service.state.sqlite.list_store import EmbeddedListStore, EmbeddedPlacementStore
from service.state.sqlite.users.user_store import EmbeddedUserStore

PING_S = 0.8
"""How long a ping may take: probes usually wait for a second."""
PROBE_BYTES = 8192
"""Bytes that a probe writes: more than a page, so that a full disk refuses it as it refuses events."""


class EmbeddedStore(EmbeddedUserStore, EmbeddedItemStore, EmbeddedListStore, EmbeddedPlacementStore, EmbeddedCounters):
    """The `Store` in a SQLite database, for one process."""

    @classmethod
    async def open(cls, folder: Path, *, erasure_key: str | None = None) -> "EmbeddedStore":
        """Locks and checks the folder's files, and imports a journal of the previous version; errors as `Database`."""
        database = await asyncio.to_thread(Database, folder, erasure_key=erasure_key)
        try:
            return await asyncio.to_thread(cls, database)
        except BaseException:
            await database.close()
            raise

    async def ping(self) -> None:
        self.database.check()
        try:
            async with asyncio.timeout(PING_S):
                await self.database.write(_probe)
                await self.database.read(lambda db: db.execute("SELECT 1").fetchone())
        except TimeoutError as error:
            raise unwritable(self.database.path, error) from None

    async def close(self) -> None:
        await self.database.close()


def _probe(db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO probes (content) VALUES (zeroblob(?))", (PROBE_BYTES,))
    db.execute("DELETE FROM probes")
