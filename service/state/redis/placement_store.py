"""Stores placements in Redis: one hash by name, and the number of the last change, so that an idle look is one read.

isrf:{items}:p  hash  name → version, a space, payload
isrf:{items}:q  hash  `id` of the numbering, `n` the number of the last change
"""

import secrets

import structlog

from service.state.list_store import PlacementChange, PlacementsLook, StoredPlacement
from service.state.redis.clients import OnRedis
from service.state.redis.scripts import ITEMS_MARK, lua_script

PLACEMENTS_KEY, NUMBERING_KEY = "isrf:{items}:p", "isrf:{items}:q"
SCRIPT = lua_script("placements")

_log = structlog.get_logger("service")


class RedisPlacementStore(OnRedis):
    """The `PlacementStore` in Redis, on the client with the long timeout: no recommendation waits for it."""

    async def put_placement(
        self, name: str, payload: bytes, /, *, limit: int, expected: int | None = None
    ) -> PlacementChange:
        return await self.clients.write_durably(self._change_placements, (name, payload, limit, expected))

    async def delete_placement(self, name: str, /, *, expected: int | None = None) -> PlacementChange:
        return await self.clients.write_durably(self._change_placements, (name, b"", 0, expected))

    async def placements(self, after: bytes | None, /) -> PlacementsLook:
        return await self.clients.write(self._look_at_placements(after))

    async def _change_placements(self, change: tuple[str, bytes, int, int | None]) -> PlacementChange:
        name, payload, limit, expected = change
        wanted = "" if expected is None else expected
        call = (2, [PLACEMENTS_KEY, NUMBERING_KEY, name, payload, limit, secrets.token_hex(8), wanted])
        outcome, version = await self.clients.scripts.run_one(SCRIPT, call)
        if outcome == b"done":
            await self.clients.scripts.confirm_one(ITEMS_MARK)
        return PlacementChange(outcome.decode(), int(version))

    async def _look_at_placements(self, after: bytes | None) -> PlacementsLook:
        client = self.clients.writes
        # The number before the placements: a change in between is found by the next look.
        numbering, number = await client.hmget(NUMBERING_KEY, ["id", "n"])
        cursor = b"" if numbering is None else numbering + b"." + (number or b"0")
        if cursor == after:
            return PlacementsLook(cursor, None)
        found: dict[str, StoredPlacement] = {}
        for name, value in (await client.hgetall(PLACEMENTS_KEY)).items():
            version, _, payload = value.partition(b" ")
            try:
                found[name.decode()] = StoredPlacement(int(version), payload)
            except ValueError:
                _log.warning("foreign_placement", size=len(value))
        return PlacementsLook(cursor, found)
