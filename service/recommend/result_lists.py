"""Lists that were given, by `recommendation_id`: to be read on from, and to know by what a clicked item was shown.

A list stays as it was, whatever becomes of its user: the last ones in this process, and all of them for a while in the
store, so that another replica can go on. It names its user by a digest that differs from list to list.
"""

import asyncio
import contextlib
import hashlib
import secrets
import zlib
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import orjson
from cachetools import LRUCache

from isrf.contract.errors import RequestError, StoreError
from isrf.contract.html_text import clean_text
from service.state.list_store import ListStore
from service.state.sealed import seal, unseal

LENGTH_TIMES, MOST_LENGTH = 10, 200
"""A list is kept for ten pages, up to this many items."""
ID_PATTERN = r"^[A-Za-z0-9_-]{8,64}$"
IN_PROCESS_BYTES = 16 * 1024 * 1024
WRITTEN_TOGETHER, MOST_WAITING = 200, 5000
_FORMAT = "3"
"""Of a kept list; raised with every change of what one holds. A list of another format is as good as gone."""
_SHOWN = 80
"""Characters of a value in a message."""


class ResultEntry(NamedTuple):
    item_id: str
    score: float
    channel: str  # its source


class ListParameters(NamedTuple):
    """What a list was asked for with, and what its later pages keep to.

    Attributes:
        exclude: the excluded item_ids as one text (`ids_text`); in a kept list a digest of it, "" for none.
        session: the same of the session's item_ids, in their order.
    """

    category: str | None = None
    min_price: float | None = None
    max_price: float | None = None
    exclude: str = ""
    session: str = ""
    include_seen: bool = False
    diversity: float = 0.0


class ResultList(NamedTuple):
    """Attributes:
    owner: for whom it was made, the same text whenever the same caller asks.
    lineage: of the owner's state; another one after they were erased.
    source: what the answer rested on.
    """

    owner: str
    lineage: str
    release_id: str
    source: str
    parameters: ListParameters
    entries: Sequence[ResultEntry]


def ids_text(item_ids: Sequence[str]) -> str:
    """Item_ids as one text; no id holds a line break."""
    return "\n".join(item_ids)


def length_for(n: int) -> int:
    """How many items a list has whose pages have n."""
    return max(n, min(LENGTH_TIMES * n, MOST_LENGTH))


class ResultLists:
    """One per app."""

    def __init__(self, store: ListStore, *, ttl_s: int) -> None:
        self._store, self._ttl_s = store, ttl_s
        self._kept: LRUCache[str, bytes] = LRUCache(IN_PROCESS_BYTES, getsizeof=len)
        self._waiting: dict[str, bytes] = {}
        self._writing: asyncio.Task[None] | None = None

    def keep(self, given: ResultList) -> str:
        """The list's new recommendation_id; the store learns of it in a moment."""
        recommendation_id = secrets.token_urlsafe(12)
        payload = _encode(recommendation_id, given)
        self._kept[recommendation_id] = payload
        self._waiting[recommendation_id] = payload
        while len(self._waiting) > MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return recommendation_id

    async def find(self, recommendation_id: str) -> ResultList | None:
        """None where it is not kept any more, or was never given; its owner is a digest (`of` compares it)."""
        payload = self._kept.get(recommendation_id)
        if payload is None:
            try:
                payload = await self._store.read_list(recommendation_id)
            except StoreError:
                payload = None
            if payload is not None:
                self._kept[recommendation_id] = payload
        return None if payload is None else _decode(recommendation_id, payload)

    async def of(self, recommendation_id: str, owner: str, lineage: str) -> ResultList:
        """The list that was given to this owner; `RequestError` where there is none (any more)."""
        given = await self.find(recommendation_id)
        if given is None or given.owner != _digest(recommendation_id, owner) or given.lineage != lineage:
            raise RequestError(
                "recommendation.gone",
                "this recommendation_id is not known here, or not any more.",
                fix="Ask again without recommendation_id and offset: lists are kept for a while only.",
            )
        return given

    async def close(self) -> None:
        """Waits for what is still being written."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write(self) -> None:
        # While one write is under way the next ones gather: a few round trips however many lists there are.
        while self._waiting:
            some = dict(list(self._waiting.items())[:WRITTEN_TOGETHER])
            for recommendation_id in some:
                del self._waiting[recommendation_id]
            with contextlib.suppress(StoreError):
                await self._store.keep_lists(some, self._ttl_s)


def check_page(recommendation_id: str, given: ResultList, asked: ListParameters, said: Collection[str]) -> None:
    """A later page has the parameters of its list: what the caller says otherwise is refused.

    Args:
        given: the list as it is kept.
        asked: what the request for the page asks.
        said: which of it the caller named; a null and an empty list say nothing.

    Raises:
        RequestError: `recommendation.other_parameters`.
    """
    digested = _digested(recommendation_id, asked)
    for name in ListParameters._fields:
        own, other = getattr(given.parameters, name), getattr(digested, name)
        kind = {"exclude": "items", "session": "items"}.get(name)
        # No items are none that differ; a category of no letters is one.
        if name not in said or other in (None, own) or (kind and not other):
            continue
        # One category as the shop writes it (`Toys &amp; Games`) and as it is shown.
        if name == "category" and own is not None and clean_text(other) == clean_text(own):
            continue
        sent = f"other {kind} than the list's" if kind else f"{str(other)[:_SHOWN]!r}, and the list's is {_named(own)}"
        raise RequestError(
            "recommendation.other_parameters",
            f"a later page keeps the parameters of its list: {name} is {sent}.",
            fix=f"Leave {name} out, or ask for a new list without recommendation_id.",
        )


def _named(value: Any) -> str:
    return "not set" if value is None else repr(str(value)[:_SHOWN])


def _digested(recommendation_id: str, parameters: ListParameters) -> ListParameters:
    """What names items is kept as a digest: it is compared, and never needed again."""
    exclude, session = (text and _digest(recommendation_id, text) for text in (parameters.exclude, parameters.session))
    return parameters._replace(exclude=exclude, session=session)


def _digest(recommendation_id: str, text: str) -> str:
    return hashlib.blake2b(text.encode(), key=recommendation_id.encode(), digest_size=12).hexdigest()


def _encode(recommendation_id: str, given: ResultList) -> bytes:
    # A list of the owner's own would be found by whoever can guess an id.
    owner, lineage, release_id, source, parameters, entries = given
    told = (
        _digest(recommendation_id, owner),
        lineage,
        release_id,
        source,
        tuple(_digested(recommendation_id, parameters)),
        [tuple(entry) for entry in entries],
    )
    return seal(zlib.compress(orjson.dumps(told), 1), _FORMAT, recommendation_id)


def _decode(recommendation_id: str, payload: bytes) -> ResultList | None:
    """None of what this version did not write: the list is as good as gone."""
    content = unseal(payload, _FORMAT, recommendation_id)
    if content is None:
        return None
    given = ResultList(*orjson.loads(zlib.decompress(content)))
    return given._replace(
        parameters=ListParameters(*given.parameters), entries=[ResultEntry(*entry) for entry in given.entries]
    )
