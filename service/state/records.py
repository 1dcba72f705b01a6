"""What a store is given, and what it says: records of a user, what became of an event, what may be collected."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

Outcome = Literal["accepted", "duplicate", "reused", "erased", "unavailable"]
"""What became of an event: `reused` where its event_id names another one, `erased` where its user was erased after the
moment that the shop gave it, or after the same event was accepted."""


class Applied(NamedTuple):
    """What became of one event."""

    outcome: Outcome
    first_item: str = ""  # of `reused`: the item_id of the event that the event_id names ("": not known)
    first_type: str = ""  # and its event type, "" for one without a type


NO_VERSION = "0"
"""The version of a user of whom state knows nothing: what is known stands in the release."""
KEPT_HISTORY = 200
"""Entries of a user's history that a store keeps, the latest ones."""


class HistoryEntry(NamedTuple):
    """One interaction in a history. Its identity is (item_id, timestamp)."""

    item_id: str
    timestamp: float | None  # seconds; None where the shop's data has no times
    assigned: bool = False  # the timestamp is the service's own


class ItemMark(NamedTuple):
    """The latest moment of each kind that concerns an item; None for never."""

    bought: float | None = None
    disliked: float | None = None
    removed: float | None = None


class UserRecord(NamedTuple):
    """What state holds of one user.

    Attributes:
        version: opaque, never used again for another state of this user.
        history: what came since the release (and perhaps before it), by timestamp, oldest first.
        marks: by item_id, exact and unbounded.
        erased: the release's history of this user must not be read.
        group: cached interests as bytes (`service.inference.group_cache`), or None.
        answer: the last answer as bytes (`service.recommend.response_cache`), or None.
    """

    version: str
    history: Sequence[HistoryEntry]
    marks: Mapping[str, ItemMark]
    erased: bool
    group: bytes | None
    answer: bytes | None = None


NOBODY = UserRecord(NO_VERSION, (), {}, erased=False, group=None)
"""Of whom state knows nothing."""


class Cached(NamedTuple):
    """What a store keeps for a while."""

    payload: bytes
    ttl_s: int


class Learned(NamedTuple):
    """What state may let go of: the release says the same."""

    entries: Sequence[HistoryEntry]
    items: Sequence[str]  # whose marks
