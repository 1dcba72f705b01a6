"""Stores changes of items in the embedded store."""

from collections.abc import Mapping, Sequence
from functools import partial

from isrf.contract.item_changes import ItemEntry
from service.state.item_store import ITEMS_PAGE, ItemChange, ItemOutcome, ItemsCursor, ItemsLook
from service.state.sqlite.database import OnDatabase
from service.state.sqlite.item_entries import change_items, collect_entries, look_at_items


class EmbeddedItemStore(OnDatabase):
    """The `ItemStore` of the embedded store."""

    async def change_items(self, changes: Sequence[ItemChange], *, limit: int) -> list[ItemOutcome]:
        outcomes: list[ItemOutcome] = []
        for start in range(0, len(changes), ITEMS_PAGE):
            page = list(changes[start : start + ITEMS_PAGE])
            outcomes += await self.database.write(partial(change_items, changes=page, limit=limit))
        return outcomes

    async def items(self, after: ItemsCursor | None) -> ItemsLook:
        counting = self.database.store_id.encode()
        return await self.database.read_behind(lambda db: look_at_items(db, counting, after))

    async def collect_items(self, doomed: Mapping[str, ItemEntry]) -> int:
        return await self.database.write(lambda db: collect_entries(db, doomed))
