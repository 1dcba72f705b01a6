"""The protocol of the whole store. Code that needs a part of it takes that part's protocol.

`RedisStore` (`service.state.redis.store`) keeps state in Redis; `EmbeddedStore` (`service.state.sqlite`) in a SQLite
database of this process. A store that fails raises `StoreError`.
"""

from typing import Protocol

from service.state.counters import Counters
from service.state.item_store import ItemStore
from service.state.list_store import ListStore, PlacementStore
from service.state.user_store import UserStore


class Store(UserStore, ItemStore, ListStore, PlacementStore, Counters, Protocol):
    """A store; a process opens it once (`service.state.connect`) and closes it."""

    async def ping(self) -> None:
        """Raises `StoreError` where the store cannot be read or written now."""

    async def close(self) -> None: ...
