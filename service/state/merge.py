"""Merges the release's history of a user with the store's record since, entry by entry. Pure.

A newer release has learned some of the store's entries. Entries are compared by their identity (item_id, timestamp), so
that none counts twice. Where timestamps cannot be compared (the service assigned one, or the shop's data has none), an
entry counts as learned if it is older than the reading of the release's data, and the release has the item at about
that time or later.

No event of a release happened after its data was read, whatever its timestamp: a timestamp ahead of the reading counts
as the moment of the reading, and one more than a day ahead as missing.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from isrf.method.order import MAX_AHEAD_S
from service.state.records import HistoryEntry, ItemMark, Learned, UserRecord

_NOTHING = ItemMark()
LATE_S = 7 * 86_400.0
"""How late an event may arrive so that an earlier received `remove` still cancels it."""
SAME_EVENT_S = 86_400.0
"""How much the shop's and the service's timestamps of one event may differ, by clocks and time zones."""


class ReleasePast(NamedTuple):
    """A release's history of one user.

    Attributes:
        history: oldest first.
        bought: for each entry of the history, whether it excludes its item.
        disliked: item_ids, without a time.
    """

    history: Sequence[HistoryEntry] = ()
    bought: Sequence[bool] = ()
    disliked: Sequence[str] = ()


class UserState(NamedTuple):
    """A user's merged state.

    Attributes:
        version: opaque; equal versions under one release mean equal state.
        history: oldest first.
        bought: item_ids that are not recommended again unless the caller asks for seen items.
        disliked: item_ids that are never recommended.
    """

    version: str
    history: Sequence[HistoryEntry]
    bought: frozenset[str]
    disliked: frozenset[str]


def merge(record: UserRecord, past: ReleasePast, learned_until: float) -> UserState:
    """Returns the user's state.

    Args:
        record: of the store.
        past: of the release.
        learned_until: seconds; when the release's data was read.
    """
    if record.erased:
        past = ReleasePast()
    valid = [not _is_removed(entry, record, learned_until) for entry in past.history]
    of_release = [entry for entry, is_valid in zip(past.history, valid, strict=True) if is_valid]
    pairs = zip(past.history, past.bought, valid, strict=True)
    bought = {entry.item_id for entry, excludes, is_valid in pairs if excludes and is_valid}
    # A dislike of the release has no time; a `remove` in the store is newer or has already cancelled it.
    disliked = {item_id for item_id in past.disliked if record.marks.get(item_id, _NOTHING).removed is None}
    for item_id, mark in record.marks.items():
        if _is_valid(mark.bought, mark.removed):
            bought.add(item_id)
        if _is_valid(mark.disliked, mark.removed):
            disliked.add(item_id)
    history = _by_time(of_release, _not_learned(record.history, of_release, learned_until), learned_until)
    return UserState(record.version, history, frozenset(bought), frozenset(disliked))


class Purchases(NamedTuple):
    """How often a user bought an item, and when last."""

    times: int
    latest_s: float


def purchases(record: UserRecord, past: ReleasePast, learned_until: float) -> dict[str, Purchases]:
    """Returns a user's purchases by item_id, those with a time; arguments as `merge`.

    The store holds only the latest purchase of an item since the release: more than one counts as one.
    """
    found: dict[str, Purchases] = {}
    for entry, bought in () if record.erased else zip(past.history, past.bought, strict=True):
        moment = _moment(entry, learned_until)
        if bought and moment > -math.inf and not _is_removed(entry, record, learned_until):
            before = found.get(entry.item_id, Purchases(0, -math.inf))
            found[entry.item_id] = Purchases(before.times + 1, max(before.latest_s, moment))
    for item_id, mark in record.marks.items():
        before = found.get(item_id, Purchases(0, -math.inf))
        if mark.bought is not None and _is_valid(mark.bought, mark.removed):
            if mark.bought > before.latest_s + SAME_EVENT_S:
                found[item_id] = Purchases(before.times + 1, mark.bought)
            elif mark.bought > before.latest_s:
                found[item_id] = Purchases(before.times, mark.bought)
    return found


def learned(record: UserRecord, past: ReleasePast, learned_until: float) -> Learned:
    """Returns the part of a record without which `merge` gives the same state; empty for an erased user."""
    if record.erased:
        return Learned((), ())
    of_release = [entry for entry in past.history if not _is_removed(entry, record, learned_until)]
    new = set(_not_learned(record.history, of_release, learned_until))
    entries = [entry for entry in record.history if entry not in new]
    new_items = {entry.item_id for entry in new}
    with_all = merge(record, past, learned_until)
    items = [
        item
        for item in record.marks
        if item not in new_items and _is_learned(item, record, past, learned_until, with_all)
    ]
    return Learned(entries, items)


def _is_learned(item_id: str, record: UserRecord, past: ReleasePast, learned_until: float, with_all: UserState) -> bool:
    """Whether the state is the same without the marks of an item; `with_all` is the state with them."""
    mark = record.marks[item_id]
    latest = max(moment for moment in (mark.bought, mark.disliked, mark.removed, -math.inf) if moment is not None)
    if latest > learned_until or (mark.removed is not None and mark.removed > learned_until - LATE_S):
        return False
    without = {item: other for item, other in record.marks.items() if item != item_id}
    return merge(record._replace(marks=without), past, learned_until)[1:] == with_all[1:]


def _not_learned(
    of_store: Sequence[HistoryEntry], of_release: Sequence[HistoryEntry], learned_until: float
) -> list[HistoryEntry]:
    """Returns the store's entries that the release has not learned."""
    known = {(entry.item_id, entry.timestamp) for entry in of_release}
    untimed = {entry.item_id for entry in of_release if entry.timestamp is None}
    latest: dict[str, float] = dict.fromkeys(untimed, math.inf)
    for entry in of_release:
        moment = _moment(entry, learned_until)
        latest[entry.item_id] = max(latest.get(entry.item_id, -math.inf), moment)

    def learned(entry: HistoryEntry) -> bool:
        if (entry.item_id, entry.timestamp) in known:
            return True
        comparable = not entry.assigned and entry.item_id not in untimed
        if comparable or entry.timestamp is None or entry.timestamp > learned_until:
            return False
        return latest.get(entry.item_id, -math.inf) >= entry.timestamp - SAME_EVENT_S

    return [entry for entry in of_store if not learned(entry)]


def _is_removed(entry: HistoryEntry, record: UserRecord, learned_until: float) -> bool:
    removed = record.marks.get(entry.item_id, _NOTHING).removed
    return removed is not None and _moment(entry, learned_until) <= removed


def _is_valid(moment: float | None, removed: float | None) -> bool:
    """Whether an event happened and no later `remove` cancels it."""
    return moment is not None and (removed is None or moment > removed)


def _by_time(
    of_release: Sequence[HistoryEntry], of_store: Sequence[HistoryEntry], learned_until: float
) -> list[HistoryEntry]:
    """Merges both in order of time; the release's entries keep their order, which breaks ties by more than the time."""
    if not of_store:
        return list(of_release)
    merged: list[HistoryEntry] = []
    later = iter(sorted(of_store, key=lambda entry: _moment(entry, math.inf)))
    waiting = next(later, None)
    for entry in of_release:
        # An entry without a time is older than all entries since.
        while waiting is not None and _moment(waiting, math.inf) < _moment(entry, learned_until):
            merged.append(waiting)
            waiting = next(later, None)
        merged.append(entry)
    while waiting is not None:
        merged.append(waiting)
        waiting = next(later, None)
    return merged


def _moment(entry: HistoryEntry, learned_until: float) -> float:
    """Returns when an entry happened, as far as it is known; −∞ for an entry without a (plausible) timestamp."""
    if entry.timestamp is None or entry.timestamp > learned_until + MAX_AHEAD_S:
        return -math.inf
    return min(entry.timestamp, learned_until)
