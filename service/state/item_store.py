"""The protocol of the shop's changes of items since the release, which the store numbers in their order."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from isrf.contract.item_changes import ItemEntry

ITEMS_PAGE = 500
"""Changes that one call of the database writes or reads."""

ItemOutcome = Literal["accepted", "too_many", "too_large", "unavailable"]


class ItemChange(NamedTuple):
    """A change of one item; fields that are left out stay as they are."""

    item_id: str
    fields: Mapping[str, Any]
    at: float  # seconds
    added: bool  # no served release contains the item


class ItemsCursor(NamedTuple):
    """The position of a reader in the changes."""

    counting: bytes  # id of the numbering; a new one means that the store was emptied, and old changes are void
    last: int  # number of the last change


class ItemsLook(NamedTuple):
    """The changes since a cursor; `whole` where they are all changes in the store."""

    cursor: ItemsCursor | None  # None: the store never had a change
    entries: dict[str, ItemEntry]
    whole: bool


class ItemStore(Protocol):
    """The shop's changes of items."""

    async def change_items(self, changes: Sequence[ItemChange], *, limit: int) -> list[ItemOutcome]:
        """Stores changes of items; an accepted change survives a crash from here on.

        Args:
            limit: how many items without a release there may be.

        Raises:
            StoreError: at most a part was stored; to send all of it again does no harm.
        """

    async def items(self, after: ItemsCursor | None, /) -> ItemsLook:
        """Returns the changes since a cursor."""

    async def collect_items(self, doomed: Mapping[str, ItemEntry], /) -> int:
        """Removes entries that a release has learned, if they have not changed since; returns their number."""
