"""Accepted entries with the rows of the items that they name, as arrays that live evidence counts together.

It knows no effects and no weights: `service.release.live_counting` says which events count, and how much.
"""

import zlib
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.contract.event_log import FOLLOWED_ITEMS, StoredEvent
from isrf.contract.ids import IdMap, ItemId, ItemIndex
from isrf.method.interest import IntArray
from isrf.method.recommend.live.live_events import UNIT_WEIGHT, LiveBatch
from service.state.user_store import AcceptedEntry

_LAST_S = 1e15
"""Moments after it have one identity: 64 bits hold no more milliseconds."""


class ItemLookup:
    """Finds the rows of many items at once, several times as fast as a dictionary of as many items.

    It compares 64 bits of keyed hashes alone (Python's, which no client can foresee): of 10^6 lookups in a catalogue of
    10^6 items, one is wrong with a probability of 10^-7.
    """

    def __init__(self, ids: IdMap[ItemId, ItemIndex]) -> None:
        self.ids = ids
        hashes = _python_hashes(ids)
        self._rows = np.argsort(hashes)
        self._hashes = hashes[self._rows]

    def rows(self, item_ids: Sequence[str]) -> IntArray:
        """(n,) the row of each item, −1 where it is unknown."""
        if not len(self._hashes):
            return np.full(len(item_ids), -1, np.int64)
        hashes = _python_hashes(item_ids)
        order = np.argsort(hashes)  # neighbours are searched for in the same part of the table
        asked = hashes[order]
        places = np.minimum(np.searchsorted(self._hashes, asked), len(self._hashes) - 1)
        found = np.empty(len(hashes), np.int64)
        found[order] = np.where(self._hashes[places] == asked, self._rows[places], -1)
        return found


class MappedEntries(NamedTuple):
    """The readable ones of some entries, in their order."""

    buckets: Sequence[int]  # (E,)
    events: Sequence[StoredEvent]  # (E,)
    batch: LiveBatch
    """(E,), also of those that do not count, each of weight 1; an unknown item has row −1, followed ones are left
    out."""
    unknown: set[str]  # item_ids that the lookup lacks
    num_unreadable: int

    @classmethod
    def of(cls, entries: Sequence[AcceptedEntry], items: ItemLookup) -> "MappedEntries":
        readable = [(bucket, event) for bucket, event in entries if event is not None]
        if not readable:
            return cls((), (), LiveBatch.of(()), set(), len(entries))
        buckets, events = zip(*readable, strict=True)
        user_ids, item_ids, _, _, timestamps, _, _, accepted, followed = zip(*events, strict=True)
        lengths = np.fromiter(map(len, followed), np.int64, len(events))
        names = [*item_ids, *chain.from_iterable(followed)]
        rows = items.rows(names)
        unknown = {names[place] for place in np.flatnonzero(rows < 0).tolist()}
        own, others = rows[: len(events)], rows[len(events) :]
        users, item_hashes = _hashes(user_ids), _hashes(item_ids)
        moments = np.array(timestamps, np.float64)
        identities = _identities(users, item_hashes, moments)
        # An event that a shop dates ahead weighs as one of now: a newer one weighs more.
        batch = LiveBatch(
            own,
            _followed(own, others, lengths),
            np.minimum(moments, accepted),
            users,
            identities,
            np.full(len(events), UNIT_WEIGHT),
        )
        return cls(buckets, events, batch, unknown, len(entries) - len(events))


def user_hash_of(user_id: str) -> int:
    """Returns the 32 bits of which a user's bucket is the rest."""
    return zlib.crc32(user_id.encode())


def _hashes(ids: Sequence[str]) -> NDArray[np.uint64]:
    return np.fromiter(map(zlib.crc32, map(str.encode, ids)), np.uint64, len(ids))


def _identities(
    users: NDArray[np.uint64], items: NDArray[np.uint64], moments: NDArray[np.float64]
) -> NDArray[np.uint64]:
    """(E,) 64 bits of user, item and millisecond, equal in every process. The mixing is SplitMix64's (Steele 2014)."""
    milliseconds = np.rint(np.clip(moments, -_LAST_S, _LAST_S) * 1000).astype(np.int64).astype(np.uint64)
    mixed: NDArray[np.uint64] = (users << np.uint64(32) | items) + milliseconds * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ mixed >> np.uint64(shift)) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _python_hashes(ids: Iterable[str]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, ids), np.int64)


def _followed(items: IntArray, rows: IntArray, lengths: IntArray) -> NDArray[np.int32]:
    """(E, FOLLOWED_ITEMS) rows of what each event followed, each once and without the event's own item.

    Args:
        items: (E,) the events' own.
        rows: (n,) of what the events followed, one event after the other; −1 for an unknown item.
        lengths: (E,) how many of them are each event's.
    """
    events = np.repeat(np.arange(len(items)), lengths)
    named = (rows >= 0) & (rows != items[events])
    events, rows = events[named], rows[named]
    keys = events << 32 | rows
    in_order = np.sort(keys)
    if (in_order[1:] == in_order[:-1]).any():  # the service writes none twice; others may
        first = np.sort(np.unique(keys, return_index=True)[1])
        events, rows = events[first], rows[first]
    places = np.arange(len(rows)) - np.searchsorted(events, events)
    inside = places < FOLLOWED_ITEMS
    found = np.full((len(items), FOLLOWED_ITEMS), -1, np.int32)
    found[events[inside], places[inside]] = rows[inside]
    return found
