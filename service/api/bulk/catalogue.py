"""Exports the whole catalogue in the shop's format: the release's items with all changes since."""

import asyncio
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from isrf.contract.item_changes import METADATA, ROW_FIELDS, changed_row, values_of
from isrf.contract.manifest import ITEMS_FILE
from service.sync.catalogue_sync import CatalogueSync

PAGE = 500


async def catalogue_lines(folder: Path, items: CatalogueSync) -> AsyncIterator[list[dict[str, Any]]]:
    """Yields pages of rows in the format of the data contract's `items.jsonl`.

    Args:
        folder: of the release.
        items: the changes since the release.
    """
    known = dict(items.entries)
    with await asyncio.to_thread((folder / ITEMS_FILE).open, "rb") as file:
        while lines := await asyncio.to_thread(lambda: list(islice(file, PAGE))):
            rows = [_row(line) for line in lines]
            yield [
                changed_row(row, items.effective_fields(row["item_id"], known.pop(row["item_id"], {}))) for row in rows
            ]
    added = list(known.items())
    for start in range(0, len(added), PAGE):
        yield [changed_row({"item_id": item_id}, values_of(entry)) for item_id, entry in added[start : start + PAGE]]


def _row(line: bytes) -> dict[str, Any]:
    """Returns an item as the shop wrote it, without the fields that the offline job adds."""
    stored = orjson.loads(line)
    metadata = stored.get(METADATA) or {}
    return {name: stored[name] for name in ROW_FIELDS if name in stored and name != METADATA} | metadata
