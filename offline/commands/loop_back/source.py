"""What a store of accepted events is to the offline job. Positions are pairs of numbers that rise.

It changes nothing of state but what it releases.
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
"""Of one commit; what remains comes with the next."""
TIMEOUT_S = 30.0


class WaitingEvent(NamedTuple):
    bucket: int
    position: StreamPosition
    event: StoredEvent


class EventBatch(NamedTuple):
    entries: list[WaitingEvent]
    cursors: dict[int, StreamPosition]  # by bucket: the last entry read, in this batch or before
    more: bool


class ItemBatch(NamedTuple):
    entries: dict[str, ItemEntry]  # item_id → what was said
    cursor: ItemChangesCursor | None


class Source(Protocol):
    """A store's events beyond a cursor, and its tombstones."""

    store_id: str

    def read(self, cursors: Mapping[int, StreamPosition]) -> EventBatch: ...

    def items(self, after: ItemChangesCursor | None) -> ItemBatch:
        """Every item of which something was said since a cursor, with all that was ever said of it."""

    def tombstones(self) -> tuple[dict[str, Tombstone], bytes | None]:
        """By name, and the secret of the names (None where there are none)."""

    def release(self, cursors: Mapping[int, StreamPosition]) -> None:
        """The store may let go of everything up to the cursors."""


def unavailable(error: Exception) -> StoreError:
    return StoreError(
        "store.unavailable",
        f"the store cannot be read or trimmed now ({type(error).__name__}).",
        fix="Run the same command again: what was taken in stays, nothing is taken in twice.",
    )


def foreign() -> StoreError:
    return StoreError(
        "store.foreign_content",
        "a key of the store, or a row, holds what the service did not write.",
        fix="Delete what does not belong there, and keep others out of the keys `isrf:*`; else restore a backup.",
    )


@contextmanager
def foreign_refused() -> Iterator[None]:
    """Whatever cannot be read is what the service did not write: anybody may have changed its store."""
    try:
        yield
    except (ValueError, TypeError, KeyError):
        raise foreign() from None
