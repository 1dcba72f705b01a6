"""What may be asked of the catalogue's changes: what the shop said of items since the release, numbered as it came."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from isrf.contract.item_changes import ItemEntry

ITEMS_PAGE = 500
"""Changes that are written or read in one go."""

ItemOutcome = Literal["accepted", "too_many", "too_large", "unavailable"]


class ItemChange(NamedTuple):
    """What the shop says of one item now; fields that are left out stay as they are."""

    item_id: str
    fields: Mapping[str, Any]
    at: float  # seconds
    added: bool  # no release that is served has it


class ItemsCursor(NamedTuple):
    counting: bytes  # another one: the store was emptied, everything known of it is void
    last: int


class ItemsLook(NamedTuple):
    """What changed since a cursor; `whole` where that is everything there is."""

    cursor: ItemsCursor | None  # None: nothing was ever said
    entries: dict[str, ItemEntry]
    whole: bool


class ItemStore(Protocol):
    """What was said of items."""

    async def change_items(self, changes: Sequence[ItemChange], *, limit: int) -> list[ItemOutcome]:
        """Takes changes of items in; an accepted one survives a crash from here on.

        Args:
            limit: how many items there may be that no release has.

        Raises:
            StoreError: no more than a part was taken in; sending all of it again does no harm.
        """

    async def items(self, after: ItemsCursor | None, /) -> ItemsLook:
        """What the shop said of items since a cursor."""

    async def collect_items(self, doomed: Mapping[str, ItemEntry], /) -> int:
        """Takes out what a release says as well, if it has not changed since; how many."""
