"""Defines the interface of a store of accepted events, and the errors of a store.

A position is a pair of numbers; positions rise. The offline job changes nothing in the store except that `release`
frees entries.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from isrf.contract.errors import StoreError
from isrf.contract.event_log import (
    StoredEvent,
    Tombstone,
)
from isrf.contract.item_changes import ItemEntry
from offline.commands.loop_back.commit import ItemChangesCursor, StreamPosition

PAGE = 1000
MAX_ENTRIES = 500_000
"""The most entries in one commit; the next commit takes the rest."""

TIMEOUT_S = 30.0


class WaitingEvent(NamedTuple):
    """An accepted event that the shop's file does not contain yet."""

    bucket: int
    position: StreamPosition
    event: StoredEvent


class EventBatch(NamedTuple):
    """The events of one commit; `more` says whether the store holds further ones."""

    entries: list[WaitingEvent]
    cursors: dict[int, StreamPosition]  # by bucket: the last entry read, in this batch or before
    more: bool


class ItemBatch(NamedTuple):
    """The items changed since a cursor."""

    entries: dict[str, ItemEntry]  # by item_id, all changes that the store holds
    cursor: ItemChangesCursor | None


class Source(Protocol):
    """A store's events and item changes after a cursor, and its tombstones."""

    store_id: str

    def read(self, cursors: Mapping[int, StreamPosition]) -> EventBatch:
        """Returns the events after the cursors, at most about `MAX_ENTRIES`."""

    def items(self, after: ItemChangesCursor | None) -> ItemBatch:
        """Returns every item changed since a cursor, with all of its changes."""

    def tombstones(self) -> tuple[dict[str, Tombstone], bytes | None]:
        """Returns the tombstones by name, and the secret of the names (None without tombstones)."""

    def release(self, cursors: Mapping[int, StreamPosition]) -> None:
        """Tells the store that it may free everything up to the cursors; nothing of buckets without one."""


def unavailable(error: Exception) -> StoreError:
    """Returns the error of a store that does not answer."""
    return StoreError(
        "store.unavailable",
        f"the store cannot be read or trimmed now ({type(error).__name__}).",
        fix="Run the same command again: imported events stay, and none is imported twice.",
    )


def foreign() -> StoreError:
    """Returns the error of a store with content that the service did not write."""
    return StoreError(
        "store.foreign_content",
        "a key or a row of the store has content that the service did not write.",
        fix="Delete that content and let no other program write to the keys `isrf:*`, or restore a backup.",
    )


@contextmanager
def foreign_refused() -> Iterator[None]:
    """Turns a parsing error into `StoreError` (`store.foreign_content`): other programs may have changed the store."""
    try:
        yield
    except (ValueError, TypeError, KeyError):
        raise foreign() from None
