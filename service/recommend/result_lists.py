"""Stores result lists by `recommendation_id`, for later pages and to find the channel that showed a clicked item.

A stored list does not change when its user's state does. This process caches the latest lists; the store keeps all of
them for a while, so that another replica can serve the next page. A list holds a digest in place of its user's id; the
digest differs from list to list.
"""

import asyncio
import contextlib
import hashlib
import math
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
"""A stored list has ten pages, and at most this many items."""
ID_PATTERN = r"^[A-Za-z0-9_-]{8,64}$"
IN_PROCESS_BYTES = 16 * 1024 * 1024
WRITTEN_TOGETHER, MOST_WAITING = 200, 5000
_FORMAT = "5"
"""Increased with every change of the stored format. A list in another format counts as unknown."""
_SHOWN = 80
"""Characters of a value in a message."""


class ResultEntry(NamedTuple):
    item_id: str
    score: float
    channel: str  # its source


class ListParameters(NamedTuple):
    """The parameters of a list; they stay the same on its later pages.

    Attributes:
        exclude: the excluded item_ids as one text (`ids_text`); in a stored list a digest of that text, "" for none.
        session: the same for the session's item_ids, in their order.
        filter: the text of a condition.
        context: the names and values that the call brought for it.
    """

    category: tuple[str, ...] = ()
    exclude_category: tuple[str, ...] = ()
    filter: str | None = None
    context: tuple[tuple[str, str], ...] = ()
    min_price: float | None = None
    max_price: float | None = None
    exclude: str = ""
    session: str = ""
    include_seen: bool = False
    exclude_variants: bool = False
    diversity: float = 0.0


class ResultList(NamedTuple):
    """A stored list.

    Attributes:
        owner: the user, session or item that the list belongs to, as one text (`query_models.owner_of`).
        lineage: of the owner's state; it changes with every erasure.
        source: where the answer came from: history, session or popular items.
        for_newcomer: whether its popular items are those that others took as their first ones.
    """

    owner: str
    lineage: str
    release_id: str
    source: str
    for_newcomer: bool
    parameters: ListParameters
    entries: Sequence[ResultEntry]


def ids_text(item_ids: Sequence[str]) -> str:
    """Joins item_ids to one text; no id contains a line break."""
    return "\n".join(item_ids)


def length_for(n: int) -> int:
    """Returns how many items a list with pages of n items has."""
    return max(n, min(LENGTH_TIMES * n, MOST_LENGTH))


class ResultLists:
    """Stores and finds result lists; the app has one."""

    def __init__(self, store: ListStore, *, ttl_s: int) -> None:
        self._store, self._ttl_s = store, ttl_s
        self._kept: LRUCache[str, bytes] = LRUCache(IN_PROCESS_BYTES, getsizeof=len)
        self._waiting: dict[str, tuple[bytes, int]] = {}  # with the seconds that the store keeps them
        self._writing: asyncio.Task[None] | None = None

    def keep(self, result_list: ResultList, *, given_s: float = 0) -> str:
        """Stores a list and returns its new recommendation_id; the store is written in the background.

        Args:
            given_s: how long the answer may be given again; the list lives so much longer.
        """
        recommendation_id = secrets.token_urlsafe(12)
        payload = _encode(recommendation_id, result_list)
        self._kept[recommendation_id] = payload
        self._waiting[recommendation_id] = payload, self._ttl_s + math.ceil(given_s)
        while len(self._waiting) > MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return recommendation_id

    def is_at_hand(self, recommendation_id: str) -> bool:
        """Whether this process still holds a list, which then stays longer; without Redis nothing else holds it."""
        return self._kept.get(recommendation_id) is not None

    async def find(self, recommendation_id: str) -> ResultList | None:
        """Returns a stored list, with a digest as its owner; None where it is unknown or has expired."""
        payload = self._kept.get(recommendation_id)
        if payload is None:
            try:
                payload = await self._store.read_list(recommendation_id)
            except StoreError:
                payload = None
            if payload is not None:
                self._kept[recommendation_id] = payload
        return None if payload is None else _decode(recommendation_id, payload)

    async def get(self, recommendation_id: str, owner: str, lineage: str) -> ResultList:
        """Returns a list of this owner; raises `RequestError` where the owner has no such list (any more)."""
        found = await self.find(recommendation_id)
        if found is None or found.owner != _digest(recommendation_id, owner) or found.lineage != lineage:
            raise RequestError(
                "recommendation.gone",
                "the service does not know this recommendation_id, or its list has expired.",
                fix="Ask again without recommendation_id and offset: lists expire after a while.",
            )
        return found

    async def close(self) -> None:
        """Waits for lists that are being written."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write(self) -> None:
        # Lists gather while a write is in progress: a few round trips, however many lists there are.
        while self._waiting:
            (_, ttl_s), *_ = self._waiting.values()
            alike = [name for name, (_, seconds) in self._waiting.items() if seconds == ttl_s][:WRITTEN_TOGETHER]
            batch = {recommendation_id: self._waiting.pop(recommendation_id)[0] for recommendation_id in alike}
            with contextlib.suppress(StoreError):
                await self._store.keep_lists(batch, ttl_s)


def check_page(
    recommendation_id: str, result_list: ResultList, requested: ListParameters, named_parameters: Collection[str]
) -> None:
    """Refuses a later page whose parameters differ from those of its list.

    Args:
        result_list: the stored list.
        requested: the parameters of the request for the page.
        named_parameters: the parameters that the caller sent; a null or an empty list counts as not sent.

    Raises:
        RequestError: `recommendation.other_parameters`.
    """
    digested = _digested(recommendation_id, requested)
    for name in ListParameters._fields:
        of_list, sent = getattr(result_list.parameters, name), getattr(digested, name)
        holds_items = name in ("exclude", "session")
        # An empty list counts as not sent; an empty category is a value.
        if name not in named_parameters or sent in (None, (), of_list) or (holds_items and not sent):
            continue
        # The shop's spelling (`Toys &amp; Games`) and the spelling of the answers are the same category.
        if name.endswith("category") and set(map(clean_text, sent)) == set(map(clean_text, of_list)):
            continue
        difference = (
            "other items than the list's"
            if holds_items
            else f"{_shown_value(sent)}, and the list's is {_shown_value(of_list)}"
        )
        raise RequestError(
            "recommendation.other_parameters",
            f"a later page keeps the parameters of its list: {name} is {difference}.",
            fix=f"Leave {name} out, or ask for a new list without recommendation_id.",
        )


def _shown_value(value: Any) -> str:
    if isinstance(value, tuple):
        value = ", ".join(value if value and isinstance(value[0], str) else map("=".join, value)) if value else None
    return "not set" if value is None else repr(str(value)[:_SHOWN])


def _digested(recommendation_id: str, parameters: ListParameters) -> ListParameters:
    """Replaces item ids by a digest: later pages only compare them."""
    exclude, session = (text and _digest(recommendation_id, text) for text in (parameters.exclude, parameters.session))
    return parameters._replace(exclude=exclude, session=session)


def _digest(recommendation_id: str, text: str) -> str:
    return hashlib.blake2b(text.encode(), key=recommendation_id.encode(), digest_size=12).hexdigest()


def _encode(recommendation_id: str, result_list: ResultList) -> bytes:
    # Without the digest, whoever guesses a user's id could find their lists in the store.
    owner, *about, parameters, entries = result_list
    stored = (
        _digest(recommendation_id, owner),
        *about,
        tuple(_digested(recommendation_id, parameters)),
        [tuple(entry) for entry in entries],
    )
    return seal(zlib.compress(orjson.dumps(stored), 1), _FORMAT, recommendation_id)


def _decode(recommendation_id: str, payload: bytes) -> ResultList | None:
    """Reads a stored list; None where another version of the service wrote it."""
    content = unseal(payload, _FORMAT, recommendation_id)
    if content is None:
        return None
    stored = ResultList(*orjson.loads(zlib.decompress(content)))
    parameters = ListParameters(*stored.parameters)
    parameters = parameters._replace(
        category=tuple(parameters.category),
        exclude_category=tuple(parameters.exclude_category),
        context=tuple((name, value) for name, value in parameters.context),
    )
    return stored._replace(parameters=parameters, entries=[ResultEntry(*entry) for entry in stored.entries])
