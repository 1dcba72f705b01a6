"""Caches users' records in memory, so that unchanged users are not read from the database again."""

from collections.abc import Awaitable, Callable, Iterable

from cachetools import LRUCache

from service.state.records import UserRecord

RECORDS = 4096
MOST_ENTRIES = 400_000
"""Histories' entries and marks in all records together: about 80 MB."""


class HeldRecords:
    """The last used records. `drop` must follow every commit, before its callers continue."""

    def __init__(self) -> None:
        self._ready: LRUCache[str, UserRecord] = LRUCache(MOST_ENTRIES, getsizeof=_size)
        self._reading: dict[str, object] = {}

    def get(self, user_id: str) -> UserRecord | None:
        """Returns a cached record, None where it must be read."""
        return self._ready.get(user_id)

    async def read(self, user_id: str, ask: Callable[[], Awaitable[UserRecord]]) -> UserRecord:
        """Returns the record that `ask` reads, and caches it, unless the user changed meanwhile."""
        token = self._reading[user_id] = object()
        try:
            record = await ask()
        finally:
            unchanged = self._reading.get(user_id) is token
            if unchanged:
                del self._reading[user_id]
        if unchanged:
            self._hold(user_id, record)
        return record

    def drop(self, user_ids: Iterable[str]) -> None:
        """Drops the records of changed users; reads in progress of these users are not cached."""
        for user_id in user_ids:
            self._reading.pop(user_id, None)
            self._ready.pop(user_id, None)

    def _hold(self, user_id: str, record: UserRecord) -> None:
        if _size(record) > MOST_ENTRIES:
            self._ready.pop(user_id, None)
            return
        self._ready[user_id] = record
        while len(self._ready) > RECORDS:
            self._ready.popitem()


def _size(record: UserRecord) -> int:
    return len(record.history) + len(record.marks)
