"""Accepted entries with the rows of the items that they name, as arrays that live evidence counts together.

It knows no effects: `service.release.live_counting` says which events count.
"""

import zlib
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.contract.event_log import FOLLOWED_ITEMS, StoredEvent
from isrf.method.interest import IntArray
from isrf.method.recommend.live_events import LiveBatch
from service.release.catalogue import Catalogue
from service.state.user_store import AcceptedEntry

_LAST_S = 1e15
"""Moments after it have one identity: 64 bits hold no more milliseconds."""


class MappedEntries(NamedTuple):
    """The readable ones of some entries, in their order."""

    buckets: Sequence[int]  # (E,)
    events: Sequence[StoredEvent]  # (E,)
    batch: LiveBatch  # (E,), also of those that do not count; an unknown item has row −1, followed ones are left out
    unknown: set[str]  # item_ids that the catalogue lacks
    num_unreadable: int

    @classmethod
    def of(cls, entries: Sequence[AcceptedEntry], catalogue: Catalogue) -> "MappedEntries":
        readable = [(bucket, event) for bucket, event in entries if event is not None]
        if not readable:
            return cls((), (), LiveBatch.of(()), set(), len(entries))
        buckets, events = zip(*readable, strict=True)
        user_ids, item_ids, _, _, timestamps, _, _, accepted, followed = zip(*events, strict=True)
        items = catalogue.rows_or_none(item_ids, count=len(events))
        followed_rows, unknown = _followed_rows(items, followed, catalogue)
        users, item_hashes = _hashes(user_ids), _hashes(item_ids)
        moments = np.array(timestamps, np.float64)
        identities = _identities(users, item_hashes, moments)
        # An event that a shop dates ahead weighs as one of now: a newer one weighs more.
        batch = LiveBatch(items, followed_rows, np.minimum(moments, accepted), users, identities)
        unknown |= {item_ids[place] for place in np.flatnonzero(items < 0).tolist()}
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


def _followed_rows(
    items: IntArray, followed: Sequence[Sequence[str]], catalogue: Catalogue
) -> tuple[NDArray[np.int32], set[str]]:
    """(E, FOLLOWED_ITEMS) rows of what each event followed, each once and without the event's own; unknown item_ids."""
    lengths = np.fromiter(map(len, followed), np.int64, len(followed))
    item_ids = list(chain.from_iterable(followed))
    rows = catalogue.rows_or_none(item_ids, count=len(item_ids))
    unknown = {item_ids[place] for place in np.flatnonzero(rows < 0).tolist()}
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
    return found, unknown
