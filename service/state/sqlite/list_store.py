"""The lists of a single process: returned lists, which it has in its memory, and placements in the table `placements`.

The number of the last change stands in the table `meta`.
"""

import sqlite3
from collections.abc import Mapping

from service.state.list_store import PlacementChange, PlacementsLook, StoredPlacement
from service.state.sqlite.database import OnDatabase
from service.state.sqlite.schema import meta

_NUMBER = "placements"


class EmbeddedListStore:
    """The `ListStore` of the embedded store: stores nothing."""

    async def keep_lists(self, _lists: Mapping[str, bytes], _ttl_s: int) -> None:
        """Does nothing."""

    async def read_list(self, _recommendation_id: str) -> bytes | None:
        return None


class EmbeddedPlacementStore(OnDatabase):
    """The `PlacementStore` of the embedded store."""

    async def put_placement(
        self, name: str, payload: bytes, /, *, limit: int, expected: int | None = None
    ) -> PlacementChange:
        return await self.database.write(lambda db: _put(db, name, payload, limit, expected))

    async def delete_placement(self, name: str, /, *, expected: int | None = None) -> PlacementChange:
        return await self.database.write(lambda db: _delete(db, name, expected))

    async def placements(self, after: bytes | None, /) -> PlacementsLook:
        return await self.database.read_behind(lambda db: _look(db, after))


def _put(db: sqlite3.Connection, name: str, payload: bytes, limit: int, expected: int | None) -> PlacementChange:
    stored = _version(db, name)
    if expected not in (None, stored):
        return PlacementChange("other_version", stored)
    (count,) = db.execute("SELECT count(*) FROM placements").fetchone()
    if not stored and count >= limit:
        return PlacementChange("too_many", 0)
    number = _next_number(db)
    db.execute("INSERT OR REPLACE INTO placements (name, version, payload) VALUES (?, ?, ?)", (name, number, payload))
    return PlacementChange("done", number)


def _delete(db: sqlite3.Connection, name: str, expected: int | None) -> PlacementChange:
    stored = _version(db, name)
    if expected not in (None, stored):
        return PlacementChange("other_version", stored)
    if not stored:
        return PlacementChange("absent", 0)
    db.execute("DELETE FROM placements WHERE name = ?", (name,))
    return PlacementChange("done", _next_number(db))


def _version(db: sqlite3.Connection, name: str) -> int:
    """Returns a placement's version, 0 where there is none."""
    row = db.execute("SELECT version FROM placements WHERE name = ?", (name,)).fetchone()
    return 0 if row is None else int(row[0])


def _next_number(db: sqlite3.Connection) -> int:
    number = int(meta(db, _NUMBER) or 0) + 1
    db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (_NUMBER, str(number)))
    return number


def _look(db: sqlite3.Connection, after: bytes | None) -> PlacementsLook:
    cursor = (meta(db, _NUMBER) or "").encode()
    if cursor == after:
        return PlacementsLook(cursor, None)
    rows = db.execute("SELECT name, version, payload FROM placements").fetchall()
    return PlacementsLook(cursor, {name: StoredPlacement(version, payload) for name, version, payload in rows})
