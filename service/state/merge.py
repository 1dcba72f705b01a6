"""State = the release's history ⊕ what came since, merged event by event. Pure: entries in, entries out.

A newer release has learned some of what state still holds. Each of state's entries is compared by its identity
(item_id, timestamp), so that what the release holds is not read twice. Where a timestamp cannot be compared (the
service assigned it, or the shop's data has none), an entry counts as learned if the entry is older than the reading of
the release's data, and the release holds the item at about that time or later.

Nothing of a release happened after its data was read, whatever its rows say: a row dated ahead counts as of the
reading, and one dated more than a day ahead as one without a time.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from isrf.method.order import MAX_AHEAD_S
from service.state.records import HistoryEntry, ItemMark, Learned, UserRecord

_NOTHING = ItemMark()
LATE_S = 7 * 86_400.0
"""How late an event may arrive and still meet the `remove` that took it back."""
SAME_EVENT_S = 86_400.0
"""The shop and the service date one event alike, but for clocks and time zones."""


class ReleasePast(NamedTuple):
    """What a release holds of one user.

    Attributes:
        history: oldest first.
        bought: for each entry of the history, whether it excludes its item.
        disliked: item_ids, without a time.
    """

    history: Sequence[HistoryEntry] = ()
    bought: Sequence[bool] = ()
    disliked: Sequence[str] = ()


class UserState(NamedTuple):
    """A user as the rest of the service sees them.

    Attributes:
        version: opaque; equal versions under one release mean equal state.
        history: oldest first.
        bought: item_ids that are not recommended again unless the caller wants seen ones.
        disliked: item_ids that are never recommended.
    """

    version: str
    history: Sequence[HistoryEntry]
    bought: frozenset[str]
    disliked: frozenset[str]


def merge(record: UserRecord, past: ReleasePast, learned_until: float) -> UserState:
    """The user's state.

    Args:
        record: what the store holds.
        past: what the release holds.
        learned_until: seconds; when the release's data was read.
    """
    if record.erased:
        past = ReleasePast()
    standing = [not _taken_back(entry, record, learned_until) for entry in past.history]
    held = [entry for entry, stands in zip(past.history, standing, strict=True) if stands]
    pairs = zip(past.history, past.bought, standing, strict=True)
    bought = {entry.item_id for entry, excludes, stands in pairs if excludes and stands}
    # A dislike of the release has no time; any `remove` that state holds came after it or took it back already.
    disliked = {item_id for item_id in past.disliked if record.marks.get(item_id, _NOTHING).removed is None}
    for item_id, mark in record.marks.items():
        if _stands(mark.bought, mark.removed):
            bought.add(item_id)
        if _stands(mark.disliked, mark.removed):
            disliked.add(item_id)
    history = _by_time(held, _not_learned(record.history, held, learned_until), learned_until)
    return UserState(record.version, history, frozenset(bought), frozenset(disliked))


def learned(record: UserRecord, past: ReleasePast, learned_until: float) -> Learned:
    """The part of a record without which `merge` gives the same user; nothing of one who was erased."""
    if record.erased:
        return Learned((), ())
    standing = [entry for entry in past.history if not _taken_back(entry, record, learned_until)]
    news = set(_not_learned(record.history, standing, learned_until))
    entries = [entry for entry in record.history if entry not in news]
    kept = {entry.item_id for entry in news}
    with_all = merge(record, past, learned_until)
    items = [
        item for item in record.marks if item not in kept and _is_learned(item, record, past, learned_until, with_all)
    ]
    return Learned(entries, items)


def _is_learned(item_id: str, record: UserRecord, past: ReleasePast, learned_until: float, with_all: UserState) -> bool:
    """Whether the user is the same without the marks of an item; `with_all` is the user as they are with them."""
    mark = record.marks[item_id]
    latest = max(moment for moment in (mark.bought, mark.disliked, mark.removed, -math.inf) if moment is not None)
    if latest > learned_until or (mark.removed is not None and mark.removed > learned_until - LATE_S):
        return False
    without = {item: other for item, other in record.marks.items() if item != item_id}
    return merge(record._replace(marks=without), past, learned_until)[1:] == with_all[1:]


def _not_learned(
    since: Sequence[HistoryEntry], held: Sequence[HistoryEntry], learned_until: float
) -> list[HistoryEntry]:
    known = {(entry.item_id, entry.timestamp) for entry in held}
    untimed = {entry.item_id for entry in held if entry.timestamp is None}
    latest: dict[str, float] = dict.fromkeys(untimed, math.inf)
    for entry in held:
        moment = _moment(entry, learned_until)
        latest[entry.item_id] = max(latest.get(entry.item_id, -math.inf), moment)

    def learned(entry: HistoryEntry) -> bool:
        if (entry.item_id, entry.timestamp) in known:
            return True
        comparable = not entry.assigned and entry.item_id not in untimed
        if comparable or entry.timestamp is None or entry.timestamp > learned_until:
            return False
        return latest.get(entry.item_id, -math.inf) >= entry.timestamp - SAME_EVENT_S

    return [entry for entry in since if not learned(entry)]


def _taken_back(entry: HistoryEntry, record: UserRecord, learned_until: float) -> bool:
    removed = record.marks.get(entry.item_id, _NOTHING).removed
    return removed is not None and _moment(entry, learned_until) <= removed


def _stands(happened: float | None, removed: float | None) -> bool:
    return happened is not None and (removed is None or happened > removed)


def _by_time(held: Sequence[HistoryEntry], since: Sequence[HistoryEntry], learned_until: float) -> list[HistoryEntry]:
    """Both in order of time; the release's own order stands (it breaks ties by more than the time)."""
    if not since:
        return list(held)
    merged: list[HistoryEntry] = []
    later = iter(sorted(since, key=lambda entry: _moment(entry, math.inf)))
    waiting = next(later, None)
    for entry in held:
        # An entry without a time is older than anything that came since.
        while waiting is not None and _moment(waiting, math.inf) < _moment(entry, learned_until):
            merged.append(waiting)
            waiting = next(later, None)
        merged.append(entry)
    while waiting is not None:
        merged.append(waiting)
        waiting = next(later, None)
    return merged


def _moment(entry: HistoryEntry, learned_until: float) -> float:
    """When an entry happened, as far as that can be known; −∞ for an entry without a (believable) time."""
    if entry.timestamp is None or entry.timestamp > learned_until + MAX_AHEAD_S:
        return -math.inf
    return min(entry.timestamp, learned_until)
