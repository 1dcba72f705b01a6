"""The types that a store takes and returns: a user's record, the outcome of an event, learned state to remove."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

Outcome = Literal["accepted", "duplicate", "reused", "erased", "unavailable"]
"""The outcome of an event: `reused` where its event_id names another event, `erased` where its user was erased after
its timestamp, or after the same event was accepted."""


class Applied(NamedTuple):
    """The outcome of one event."""

    outcome: Outcome
    first_item: str = ""  # of `reused`: the item_id of the event that the event_id names ("": not known)
    first_type: str = ""  # and its event type, "" for one without a type


NO_VERSION = "0"
"""The version of a user without a record in the store; the release may know them."""
KEPT_HISTORY = 200
"""How many of the latest entries of a user's history a store keeps."""


class HistoryEntry(NamedTuple):
    """One interaction in a history. Its identity is (item_id, timestamp)."""

    item_id: str
    timestamp: float | None  # seconds; None where the shop's data has no times
    assigned: bool = False  # the service assigned the timestamp


class ItemMark(NamedTuple):
    """The latest moment of each kind that concerns an item; None for never."""

    bought: float | None = None
    disliked: float | None = None
    removed: float | None = None


class UserRecord(NamedTuple):
    """A store's record of one user.

    Attributes:
        version: opaque, never used again for another state of this user.
        history: entries since the release (and perhaps from before it), by timestamp, oldest first.
        marks: by item_id, exact and unbounded.
        erased: whether the user was erased, so that the release's history must not be read.
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
"""The record of a user without one in the store."""


class Cached(NamedTuple):
    """A cache entry, and how long a store keeps it."""

    payload: bytes
    ttl_s: int


class Learned(NamedTuple):
    """The part of a record that the store may remove, because the release has learned it."""

    entries: Sequence[HistoryEntry]
    items: Sequence[str]  # whose marks
