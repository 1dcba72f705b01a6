"""Checks that Redis' settings cannot lose accepted events, when the service starts and periodically.

By default Redis keeps nothing on disk, and its answers do not say so. The check reads the settings of every master of a
cluster. Where CONFIG is forbidden (a managed Redis), INFO has a part of them; the others are unknown.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from isrf.contract.errors import StoreError
from service.state.redis.failures import FAILURES

REQUIRED_SETTINGS = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
CONSEQUENCES = {
    "appendonly": "accepted events are lost when Redis is killed",
    "appendfsync": "the last accepted events are lost when its machine fails",
    "maxmemory-policy": "a full memory makes Redis drop users",
}
FIX = (
    "Start it with docker/redis.conf, or "
    + ", ".join(f"`CONFIG SET {k} {v}`" for k, v in REQUIRED_SETTINGS.items())
    + "; "
    "ISRF_REDIS_DURABILITY=warn accepts the loss."
)

ASK_AGAIN_S = 1.0
"""How often to check while a server of a cluster is away."""


class Durability(NamedTuple):
    """The result of a check.

    Attributes:
        problems: a sentence for each setting that can lose accepted events.
        unknown: settings that could not be read.
    """

    problems: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


class Required:
    """Refuses writes until the servers' settings are checked: the servers may start after the service."""

    def __init__(self, client: Any, *, required: bool) -> None:
        self._client = client
        self.is_sure = not required
        """Whether every server said that it keeps what it takes: no write asks any more."""
        self._asks_again_at = 0.0

    async def check(self) -> None:
        """Checks until every master had the right settings once; `service.sync.durability_watch` looks for changes.

        While a server of a cluster is away, writes to the others go on: one write every `ASK_AGAIN_S` checks again.

        Raises:
            StoreError: `store.not_durable`; and the client's errors.
        """
        now = time.monotonic()
        if self.is_sure or now < self._asks_again_at:
            return
        if self._asks_again_at:
            # Set before the check: concurrent writes must not check too and wait for a server that is away.
            self._asks_again_at = now + ASK_AGAIN_S
        try:
            settings = await _of_every_master(self._client)
            found = _read(settings)
            if found.problems:
                message = f"this Redis could lose accepted events: {'; '.join(found.problems)}."
                raise StoreError("store.not_durable", message, fix=FIX)
        except Exception:  # not after a cancellation: else every write would wait for the server that is away
            self._asks_again_at = 0.0
            raise
        self.is_sure = None not in settings
        self._asks_again_at = time.monotonic() + ASK_AGAIN_S


async def look(client: Any) -> Durability:
    """Returns the durability of the servers behind a client; raises the client's errors."""
    return _read(await _of_every_master(client))


def _read(every: Sequence[Mapping[str, str] | None]) -> Durability:
    problems: dict[str, None] = {}
    unknown: dict[str, None] = {}
    for settings in (of_server or {} for of_server in every):
        for name, required in REQUIRED_SETTINGS.items():
            value = settings.get(name)
            if value is None:
                unknown[name] = None
            elif value != required:
                problems[f"{name} is {value}: {CONSEQUENCES[name]}"] = None
    return Durability(tuple(problems), tuple(unknown))


async def info_of_every_master(client: Any, section: str) -> list[Mapping[str, str]]:
    """Returns a section of INFO of every master; raises the client's errors."""
    if not hasattr(client, "get_primaries"):
        return [_texts(await client.execute_command("INFO", section))]
    return [_texts(await client.execute_command("INFO", section, target_nodes=node)) for node in client.get_primaries()]


async def _of_every_master(client: Any) -> Sequence[Mapping[str, str] | None]:
    """Returns the settings of every master; None for one that is away, unless all are away."""
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
    # A server that is away has no settings to read, and accepts no writes either.
    return [*found, *(None for _ in errors)]


async def _settings(client: Any, target: Mapping[str, Any]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    try:
        for name in REQUIRED_SETTINGS:
            found |= _texts(await client.execute_command("CONFIG GET", name, **target))
    except ResponseError:
        found = {}
    if found.keys() >= REQUIRED_SETTINGS.keys():
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
    """Returns the names and values of an answer, which a cluster's client gives by node."""
    if len(answer) == 1 and isinstance(of_node := next(iter(answer.values())), dict):
        answer = of_node
    return {_text(name): _text(value) for name, value in answer.items()}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
