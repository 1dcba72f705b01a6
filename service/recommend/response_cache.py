"""Caches answers, so that a request for an unchanged user costs no run of the model.

An answer's key names its inputs: the version of the user's state, release, snapshot, catalogue, query, and the live
evidence beside the items that the list starts from. A change of any input makes another key, so the cache needs no
invalidation; the least recently used entries make room for new ones. A version must come from the same read as the
state that it identifies. One input is left out: how popular each item is, which moves with every event of anybody. A
cached answer has it as of its making, until the next snapshot makes another key.
It knows neither HTTP nor the model. The store caches `encode`d answers for other replicas.
"""

import asyncio
import time
import zlib
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from cachetools import LRUCache

from isrf.contract.errors import OverloadError
from service.state.sealed import seal, unseal

_FORMAT = "5"
"""Increased with every change of an answer's format: replicas of two versions may share one Redis."""
_LEVEL = 1
LARGEST_KEPT = 8192
"""Largest entry for the store, in bytes: lists of hundreds of items with reasons are not worth its memory."""
_OVERHEAD = 512
"""Approximate bytes of an entry in this process besides its texts."""


class AnswerKey(NamedTuple):
    """Everything that an answer depends on."""

    user_id: str
    version: str
    release_id: str
    snapshot: str
    catalogue: str
    parameters: str  # the query as one text
    evidence: str = ""  # the state of live evidence, as far as the answer rests on it; "" without any

    def about(self) -> tuple[str, ...]:
        """The texts that the store's entry is sealed with."""
        return (_FORMAT, *self)


class CachedResponse(NamedTuple):
    """The parts of a response that are the same for every request with the same key."""

    source: str
    items: bytes  # JSON
    warnings: bytes  # JSON
    about: bytes = b"{}"  # JSON: `service.recommend.query_models.Answer.about`


def encode(key: AnswerKey, served: CachedResponse) -> bytes:
    """Returns the store's entry: the answer, sealed with its key."""
    # orjson writes no line breaks.
    text = b"\n".join((served.source.encode(), served.warnings, served.about, served.items))
    return seal(zlib.compress(text, _LEVEL), *key.about())


def decode(key: AnswerKey, payload: bytes | None) -> CachedResponse | None:
    """Reads an entry of the store; None where there is none, or where it belongs to another key."""
    content = unseal(payload, *key.about())
    if content is None:
        return None
    source, warnings, about, items = zlib.decompress(content).split(b"\n", 3)
    return CachedResponse(source.decode(), items, warnings, about)


class _Entry(NamedTuple):
    response: CachedResponse
    size: int  # bytes
    ends_at: float  # by the cache's clock


class _EntriesByKey(LRUCache[AnswerKey, _Entry]):
    """A least-recently-used cache, bounded in bytes, that counts the entries of each user."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, getsizeof=lambda entry: entry.size)
        self.of_user: Counter[str] = Counter()

    def __setitem__(self, key: AnswerKey, entry: _Entry) -> None:
        new = key not in self
        super().__setitem__(key, entry)
        if new:
            self.of_user[key.user_id] += 1

    def __delitem__(self, key: AnswerKey) -> None:
        super().__delitem__(key)
        self.of_user[key.user_id] -= 1
        if not self.of_user[key.user_id]:
            del self.of_user[key.user_id]


class ResponseCache:
    """The answers of one release in this process: the last used ones, and those in progress."""

    def __init__(self, *, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """max_bytes: of all cached answers together. ttl_s: how long an answer stays at most."""
        self._ttl_s, self._clock = ttl_s, clock
        self._entries = _EntriesByKey(max_bytes)
        self._in_progress: dict[AnswerKey, asyncio.Task[CachedResponse]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def has_any(self, user_id: str) -> bool:
        """Whether an answer for this user is cached here or in progress."""
        return user_id in self._entries.of_user or any(key.user_id == user_id for key in self._in_progress)

    def get(self, key: AnswerKey) -> CachedResponse | None:
        found = self._entries.get(key)
        if found is None:
            return None
        if self._clock() >= found.ends_at:
            del self._entries[key]
            return None
        return found.response

    def keep(self, key: AnswerKey, served: CachedResponse) -> None:
        size = sum(map(len, key)) + len(served.items) + len(served.warnings) + len(served.about) + _OVERHEAD
        if size <= self._entries.maxsize:
            self._entries[key] = _Entry(served, size, self._clock() + self._ttl_s)

    def forget(self, user_id: str) -> None:
        """Drops the answers of an erased user."""
        for key in [key for key in self._entries if key.user_id == user_id]:
            del self._entries[key]

    def is_in_progress(self, key: AnswerKey) -> bool:
        """Whether another request is computing this answer."""
        return key in self._in_progress

    async def get_or_make(
        self, key: AnswerKey, make: Callable[[], Coroutine[Any, Any, CachedResponse]]
    ) -> CachedResponse:
        """Returns the answer and caches it; concurrent requests for the same key share one computation."""
        while (task := self._in_progress.get(key)) is not None and not task.done():
            try:
                return await asyncio.shield(task)
            except OverloadError as error:
                if error.code == "overload.refused":
                    raise
                # The deadline of the first caller has passed, not this caller's.
        task = asyncio.create_task(make())
        self._in_progress[key] = task
        try:
            # Shielded: a caller that disconnects must not cancel the computation that others wait for.
            served = await asyncio.shield(task)
        finally:
            if task.done():
                self._end(key, task)
            else:
                task.add_done_callback(lambda done: self._end(key, done))
        self.keep(key, served)
        return served

    async def close(self) -> None:
        """Waits for answers in progress."""
        if self._in_progress:
            await asyncio.wait(self._in_progress.values())

    def _end(self, key: AnswerKey, task: asyncio.Task[CachedResponse]) -> None:
        if self._in_progress.get(key) is task:
            del self._in_progress[key]
