"""Whether a Redis is set so that what was accepted is kept: looked at when the service starts, and now and then.

Redis keeps nothing on disk by default, and no answer of its own says so. Every server of a cluster that takes writes is
asked. Where it may not be asked (a managed Redis forbids CONFIG), INFO says a part; what nobody says is unknown.
"""

import time
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

ASK_AGAIN_S = 1.0
"""While a server of a cluster is away."""


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
        self._client = client
        self.is_sure = not required
        """Whether every server said that it keeps what it takes: no write asks any more."""
        self._asks_again_at = 0.0

    async def check(self) -> None:
        """Asks until every server that takes writes was once set so; `service.sync.durability_watch` looks for changes.

        While some server of a cluster is away, writes to the others go on: one write every `ASK_AGAIN_S` asks again.

        Raises:
            StoreError: `store.not_durable`; and the client's errors.
        """
        now = time.monotonic()
        if self.is_sure or now < self._asks_again_at:
            return
        if self._asks_again_at:
            # Not every write that comes meanwhile asks as well, and waits for whoever is away.
            self._asks_again_at = now + ASK_AGAIN_S
        try:
            settings = await _of_every_master(self._client)
            found = _read(settings)
            if found.problems:
                message = f"this Redis would lose it: {'; '.join(found.problems)}."
                raise StoreError("store.not_durable", message, fix=FIX)
        except Exception:  # not where the caller gave up: whoever is away is not asked by everybody then
            self._asks_again_at = 0.0
            raise
        self.is_sure = None not in settings
        self._asks_again_at = time.monotonic() + ASK_AGAIN_S


async def look(client: Any) -> Durability:
    """What the servers behind a client say; raises the client's errors."""
    return _read(await _of_every_master(client))


def _read(every: Sequence[Mapping[str, str] | None]) -> Durability:
    problems: dict[str, None] = {}
    unknown: dict[str, None] = {}
    for settings in (one or {} for one in every):
        for name, wanted in WANTED.items():
            value = settings.get(name)
            if value is None:
                unknown[name] = None
            elif value != wanted:
                problems[f"{name} is {value}: {CONSEQUENCES[name]}"] = None
    return Durability(tuple(problems), tuple(unknown))


async def info_of_every_master(client: Any, section: str) -> list[Mapping[str, str]]:
    """A section of INFO of every server that takes writes; raises the client's errors."""
    if not hasattr(client, "get_primaries"):
        return [_texts(await client.execute_command("INFO", section))]
    return [_texts(await client.execute_command("INFO", section, target_nodes=node)) for node in client.get_primaries()]


async def _of_every_master(client: Any) -> Sequence[Mapping[str, str] | None]:
    """The settings of each; None for one that is away, where others are there."""
    if not hasattr(client, "get_primaries"):
        return [await _settings(client, {})]
    await client.initialize()
    found: list[Mapping[str, str] | None] = []
    errors: list[Exception] = []
    for node in client.get_primaries():
        try:
            found.append(await _settings(client, {"target_nodes": node}))
        except FAILURES as error:
            errors.append(error)
    if errors and not found:
        raise errors[0]
    # One that is away says nothing, and takes nothing either.
    return [*found, *(None for _ in errors)]


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
