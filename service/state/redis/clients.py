"""Two clients of one Redis (or Redis Cluster), for reads and for writes, with their timeouts and errors.

Reads time out early. After several failures in a row they fail at once for a moment, so that requests without Redis are
answered without Redis in time. Writes wait longer, because `appendfsync always` can be slow. Foreign content in a
key raises a `StoreError`, like a server that is gone.
"""

import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

from redis.exceptions import ResponseError

from service.state.redis.durability import Required
from service.state.redis.failures import FAILURES, UNREADABLE, store_error
from service.state.redis.room import Room
from service.state.redis.scripts import Replicas, Scripts

BREAK_AFTER = 3
BREAK_S = 0.25

A = TypeVar("A")
T = TypeVar("T")
RedisClient = Any  # redis.asyncio.Redis | RedisCluster: one interface, no common type


class RedisClients:
    """The clients that the parts of one store share.

    Attributes:
        reads: the client with a short timeout.
        writes: the client with a long one.
        scripts: on `writes`.
        room: whether Redis has memory for caches.
        required: the settings that the servers must have before anything is written.
    """

    def __init__(
        self, reads: RedisClient, writes: RedisClient, *, replicas: Replicas, must_be_durable: bool = False
    ) -> None:
        """As `RedisStore`."""
        self.reads, self.writes = reads, writes
        self.scripts = Scripts(writes, replicas)
        self.room = Room(writes)
        self.required = Required(writes, required=must_be_durable)
        self._failures = 0
        self._asks_again_at = 0.0

    async def read(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Returns what `ask` returns; after `BREAK_AFTER` failures in a row it fails at once for `BREAK_S`."""
        if time.monotonic() < self._asks_again_at:
            raise store_error(TimeoutError("the last reads failed"))
        try:
            answer = await ask()
        except (*FAILURES, UNREADABLE) as error:
            # A server that refuses a write (full, read-only) or has foreign content still answers; only missing
            # answers open the circuit breaker.
            if isinstance(error, FAILURES) and not isinstance(error, ResponseError):
                self._failures += 1
            if self._failures >= BREAK_AFTER:
                self._asks_again_at = time.monotonic() + BREAK_S
            raise store_error(error) from error
        self.close_breaker()
        return answer

    def close_breaker(self) -> None:
        """Lets the next read through, as the server has just answered."""
        self._failures, self._asks_again_at = 0, 0.0

    async def write(self, work: Awaitable[T]) -> T:
        """Awaits work of the client with the long timeout; raises `StoreError` where it fails."""
        with as_store_errors():
            return await work

    async def write_durably(self, work: Callable[[A], Awaitable[T]], what: A) -> T:
        """As `write`, for data that must not be lost once it is acknowledged."""
        with as_store_errors():
            await self.required.check()
            return await work(what)

    async def close(self) -> None:
        for client in (self.reads, self.writes):
            # The connection is closed even if the server does not answer in time.
            with contextlib.suppress(*FAILURES):
                await client.aclose()


class OnRedis:
    """A part of the Redis store.

    Attributes:
        clients: the store's clients.
    """

    def __init__(self, clients: RedisClients) -> None:
        self.clients = clients


@contextlib.contextmanager
def as_store_errors() -> Iterator[None]:
    """Raises a client's errors, and those of reading its answers, as `StoreError`."""
    try:
        yield
    except (*FAILURES, UNREADABLE) as error:
        raise store_error(error) from error
