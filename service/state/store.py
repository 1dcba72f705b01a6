"""Everything that state may be asked, whatever keeps it. Who needs a part of it takes that part's protocol.

`RedisStore` (`service.state.redis.store`) keeps it in Redis; `EmbeddedStore` (`service.state.sqlite`) in a SQLite
database of this process. Anything that state cannot do now is a `StoreError`.
"""

from typing import Protocol

from service.state.counters import Counters
from service.state.item_store import ItemStore
from service.state.list_store import ListStore
from service.state.user_store import UserStore


class Store(UserStore, ItemStore, ListStore, Counters, Protocol):
    """Opened once per process (`service.state.connect`), and closed by who opened it."""

    async def ping(self) -> None:
        """`StoreError` if state cannot be read or written now."""

    async def close(self) -> None: ...
