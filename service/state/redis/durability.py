"""Whether a Redis is set so that what was accepted is kept: looked at when the service starts, and now and then.

Redis keeps nothing on disk by default, and no answer of its own says so. Every server of a cluster that takes writes is
asked. Where it may not be asked (a managed Redis forbids CONFIG), INFO says a part; what nobody says is unknown.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from isrf.contract.errors import StoreError
from service.state.redis.failures import FAILURES

WANTED = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
CONSEQUENCES = {
    "appendonly": "what was accepted is lost when Redis is killed",
    "appendfsync": "what was accepted last is lost when its machine fails",
    "maxmemory-policy": "full memory makes Redis forget users",
}
FIX = (
    "Start it with docker/redis.conf, or " + ", ".join(f"`CONFIG SET {k} {v}`" for k, v in WANTED.items()) + "; "
    "ISRF_REDIS_DURABILITY=warn goes on without."
)


class Durability(NamedTuple):
    """What was found.

    Attributes:
        problems: a sentence for each setting with which something accepted can be lost.
        unknown: settings that could not be read.
    """

    problems: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


class Required:
    """Lets no write through before the servers said that they keep it: they need not be there at the start."""

    def __init__(self, client: Any, *, required: bool) -> None:
        self._client, self._is_sure = client, not required

    async def check(self) -> None:
        """Asks until they once were set so; what changes later is told by `service.sync.durability_watch`.

        Raises:
            StoreError: `store.not_durable`; and the client's errors.
        """
        if self._is_sure:
            return
        found = await look(self._client)
        if found.problems:
            raise StoreError("store.not_durable", f"this Redis would lose it: {'; '.join(found.problems)}.", fix=FIX)
        self._is_sure = True


async def look(client: Any) -> Durability:
    """What the servers behind a client say; raises the client's errors."""
    problems: dict[str, None] = {}
    unknown: dict[str, None] = {}
    for settings in await _of_every_master(client):
        for name, wanted in WANTED.items():
            value = settings.get(name)
            if value is None:
                unknown[name] = None
            elif value != wanted:
                problems[f"{name} is {value}: {CONSEQUENCES[name]}"] = None
    return Durability(tuple(problems), tuple(unknown))


async def _of_every_master(client: Any) -> Sequence[Mapping[str, str]]:
    if not hasattr(client, "get_primaries"):
        return [await _settings(client, {})]
    await client.initialize()
    found: list[Mapping[str, str]] = []
    errors: list[Exception] = []
    for node in client.get_primaries():
        try:
            found.append(await _settings(client, {"target_nodes": node}))
        except FAILURES as error:
            errors.append(error)
    if errors and not found:
        raise errors[0]
    # One that is gone says nothing, and takes nothing either.
    return [*found, *({} for _ in errors)]


async def _settings(client: Any, target: Mapping[str, Any]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    try:
        for name in WANTED:
            found |= _texts(await client.execute_command("CONFIG GET", name, **target))
    except ResponseError:
        found = {}
    if found.keys() >= WANTED.keys():
        return found
    try:
        persistence = _texts(await client.execute_command("INFO", "persistence", **target))
        memory = _texts(await client.execute_command("INFO", "memory", **target))
    except ResponseError:
        return found
    if "aof_enabled" in persistence:
        found.setdefault("appendonly", "yes" if persistence["aof_enabled"] == "1" else "no")
    if "maxmemory_policy" in memory:
        found.setdefault("maxmemory-policy", memory["maxmemory_policy"])
    return found


def _texts(answer: Any) -> dict[str, str]:
    """Names and values of an answer; a cluster's client gives it by node."""
    if len(answer) == 1 and isinstance(one := next(iter(answer.values())), dict):
        answer = one
    return {_text(name): _text(value) for name, value in answer.items()}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
