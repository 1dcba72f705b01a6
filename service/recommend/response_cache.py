"""Answers that were given before: an unchanged user costs no run of the model.

An answer's key says all that it was made of: the user's version, release, snapshot, catalogue, and what was asked for.
Whatever changes one of them makes another key, so nothing has to be called back; what nobody can ask for any more is
pushed out by what is asked for now. A version must come from the same read as the state that it speaks of.
It knows neither HTTP nor the model; a store keeps `encode`d answers for other replicas.
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

_FORMAT = "4"
"""Raised with every change of what an answer holds: replicas of two versions may share one Redis."""
_LEVEL = 1
LARGEST_KEPT = 8192
"""Bytes of an entry that the store takes: lists of hundreds with their reasons are not worth its memory."""
_OVERHEAD = 512
"""Bytes of an entry in this process beside its texts, about."""


class AnswerKey(NamedTuple):
    user_id: str
    version: str
    release_id: str
    snapshot: str
    catalogue: str
    parameters: str  # everything else that the caller said

    def about(self) -> tuple[str, ...]:
        """What an entry of the store belongs to."""
        return (_FORMAT, *self)


class CachedResponse(NamedTuple):
    """An answer as it leaves, but for what differs from request to request."""

    source: str
    items: bytes  # JSON
    warnings: bytes  # JSON
    about: bytes = b"{}"  # JSON: `service.recommend.query_models.Answer.about`


def encode(key: AnswerKey, served: CachedResponse) -> bytes:
    """An entry of the store: the answer, sealed with its key."""
    # orjson writes no line breaks.
    text = b"\n".join((served.source.encode(), served.warnings, served.about, served.items))
    return seal(zlib.compress(text, _LEVEL), *key.about())


def decode(key: AnswerKey, payload: bytes | None) -> CachedResponse | None:
    """None where the entry is of another key, or no entry."""
    content = unseal(payload, *key.about())
    if content is None:
        return None
    source, warnings, about, items = zlib.decompress(content).split(b"\n", 3)
    return CachedResponse(source.decode(), items, warnings, about)


class _Entry(NamedTuple):
    response: CachedResponse
    size: int  # bytes
    ends_at: float  # by the cache's clock


class _Kept(LRUCache[AnswerKey, _Entry]):
    """Answers by bytes, and of which users there are any."""

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
    """Of one process and one release; those asked for last, and those that are just being made."""

    def __init__(self, *, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`max_bytes` of answers are kept, for `ttl_s` at most."""
        self._ttl_s, self._clock = ttl_s, clock
        self._kept = _Kept(max_bytes)
        self._making: dict[AnswerKey, asyncio.Task[CachedResponse]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def has_any(self, user_id: str) -> bool:
        """Whether any answer to this user is kept here, or being made."""
        return user_id in self._kept.of_user or any(key.user_id == user_id for key in self._making)

    def get(self, key: AnswerKey) -> CachedResponse | None:
        found = self._kept.get(key)
        if found is None:
            return None
        if self._clock() >= found.ends_at:
            del self._kept[key]
            return None
        return found.response

    def keep(self, key: AnswerKey, served: CachedResponse) -> None:
        size = sum(map(len, key)) + len(served.items) + len(served.warnings) + len(served.about) + _OVERHEAD
        if size <= self._kept.maxsize:
            self._kept[key] = _Entry(served, size, self._clock() + self._ttl_s)

    def forget(self, user_id: str) -> None:
        """Nothing of a user who was erased stays."""
        for key in [key for key in self._kept if key.user_id == user_id]:
            del self._kept[key]

    def is_made(self, key: AnswerKey) -> bool:
        """Whether somebody is just making this answer."""
        return key in self._making

    async def made(self, key: AnswerKey, make: Callable[[], Coroutine[Any, Any, CachedResponse]]) -> CachedResponse:
        """The answer, kept from now on; made once however many ask for it meanwhile."""
        while (task := self._making.get(key)) is not None and not task.done():
            try:
                return await asyncio.shield(task)
            except OverloadError as error:
                if error.code == "overload.refused":
                    raise
                # The turn that ended was that of the first to ask; ours has not.
        task = asyncio.create_task(make())
        self._making[key] = task
        try:
            # Shielded: a caller that goes away must not take the others' answer with it.
            served = await asyncio.shield(task)
        finally:
            if task.done():
                self._end(key, task)
            else:
                task.add_done_callback(lambda done: self._end(key, done))
        self.keep(key, served)
        return served

    async def close(self) -> None:
        """Waits for what is being made."""
        if self._making:
            await asyncio.wait(self._making.values())

    def _end(self, key: AnswerKey, task: asyncio.Task[CachedResponse]) -> None:
        if self._making.get(key) is task:
            del self._making[key]
