"""Opens the store that the settings name. Redis may start later: the service starts degraded, and recovers."""

import asyncio
from collections.abc import Iterable
from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis, RedisCluster, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from isrf.contract.errors import ConfigError
from service.settings import Settings
from service.state.redis.scripts import Replicas
from service.state.redis.store import RedisStore
from service.state.sqlite import EmbeddedStore
from service.state.store import Store

READ_CONNECTIONS = 64
WRITE_CONNECTIONS = 32


async def open_store(settings: Settings) -> Store:
    """Opens Redis where `REDIS_URL` is set, else the embedded store; the caller closes it."""
    key = None if settings.erasure_key is None else settings.erasure_key.get_secret_value()
    if settings.redis_url is None:
        return await EmbeddedStore.open(settings.state_dir, erasure_key=key)
    url = settings.redis_url.get_secret_value()
    try:
        return RedisStore(
            _client(url, settings.redis_read_timeout_s, READ_CONNECTIONS, cluster=settings.redis_cluster),
            _client(url, settings.redis_write_timeout_s, WRITE_CONNECTIONS, cluster=settings.redis_cluster),
            erasure_key=key,
            replicas=Replicas(settings.redis_wait_replicas, settings.redis_wait_timeout_s),
            must_be_durable=settings.redis_durability == "require",
        )
    except ValueError:
        # redis-py's message may quote a part of the password.
        raise ConfigError(
            "config.redis_url",
            "REDIS_URL is not the URL of a Redis server.",
            fix="Write redis://[user:password@]host:port/0, with reserved characters percent-encoded.",
        ) from None


def _client(url: str, timeout_s: float, connections: int, *, cluster: bool) -> Any:
    # One retry, and only after a dropped connection: a pooled connection may be older than a restart of Redis.
    # A retried write is the same script call with the same event ids, so it cannot count twice.
    retry = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "protocol": 2,
        "retry": retry,
    }
    if cluster:
        return _with_checked_connections(RedisCluster.from_url(url, **options))
    pool = BlockingConnectionPool.from_url(url, max_connections=connections, timeout=timeout_s, **options)
    return Redis.from_pool(pool)


class _CheckedConnection:
    """A connection that raises a connection error where it is closed before a write.

    After one failure a cluster's client also closes the node's other connections, even those that a task has just
    taken; redis-py would write to None.
    """

    _writer: asyncio.StreamWriter | None

    async def _send_packed_command(self, command: Iterable[bytes]) -> None:
        if self._writer is None:
            raise RedisConnectionError("closed by another task")
        await super()._send_packed_command(command)  # type: ignore[misc]


class _CheckedPlainConnection(_CheckedConnection, Connection):
    pass


class _CheckedSSLConnection(_CheckedConnection, SSLConnection):
    pass


def _with_checked_connections(client: Any) -> Any:
    """Makes a cluster's client use `_CheckedConnection`s."""
    kinds = {Connection: _CheckedPlainConnection, SSLConnection: _CheckedSSLConnection}
    for node in client.startup_nodes:
        node.connection_class = kinds[node.connection_class]
    # For the nodes that it discovers later.
    options = client.nodes_manager.connection_kwargs
    options["connection_class"] = kinds[options["connection_class"]]
    return client
