"""Opens the store that holds the accepted events: a Redis, or an embedded store's folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from redis.exceptions import RedisClusterException, RedisError, ResponseError

from isrf.contract.errors import ConfigError
from offline.commands.loop_back.journal_source import open_journal
from offline.commands.loop_back.redis_source import RedisSource, redis_client
from offline.commands.loop_back.source import Source, foreign, unavailable


@contextmanager
def open_source(store: str, *, erasure_key: str | None) -> Iterator[Source]:
    """Opens a Redis URL or an embedded store's folder; errors become `StoreError`, without the address."""
    if "://" not in store:
        with open_journal(Path(store), erasure_key) as source:
            yield source
        return
    client: Any = None
    try:
        client = redis_client(store)
        yield RedisSource(client, erasure_key)
    except ResponseError as error:
        if "WRONGTYPE" in str(error):
            raise foreign() from None
        raise unavailable(error) from None
    except (RedisError, RedisClusterException) as error:
        raise unavailable(error) from None
    finally:
        if client is not None:
            client.close()


def erase_from_store(store: str, user_id: str, *, erasure_key: str | None) -> None:
    """Erases a user from a Redis as the service does; not from a journal, which only the service's process may write.

    Raises:
        ConfigError: `config.embedded_store` if `store` is not a URL; as `open_source`.
        StoreError: as `open_source`.
    """
    if "://" not in store:
        raise ConfigError(
            "config.embedded_store",
            f"{store} is not a URL; only the service can erase a user from its embedded store.",
            fix=f"Send DELETE /users/{quote(user_id, safe='')} to the service, then run forget again without --store. "
            "The URL of a Redis has the form redis://[user:password@]host:port/0.",
        )
    with open_source(store, erasure_key=erasure_key) as source:
        assert isinstance(source, RedisSource)
        source.erase(user_id)
