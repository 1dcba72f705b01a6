"""Warns of imported items with a field that resembles a known one, once for each field, as ingest does for a file."""

from collections.abc import Mapping
from typing import Any

from isrf.contract.item_changes import METADATA
from isrf.contract.item_fields import meant_field
from isrf.contract.shown import shown
from service.recommend.warnings import warning


class MisnamedFields:
    """Collects the misnamed fields of one import."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, int]] = {}  # known field → the first name that resembles it, and num_items

    def check(self, item_fields: Mapping[str, Any]) -> None:
        """Counts the misnamed fields of an item, whose unknown fields stand under `metadata`."""
        for name in item_fields.get(METADATA) or ():
            field = meant_field(name)
            if field is None or field == "item_id" or item_fields.get(field) is not None:
                continue
            first, num_items = self._found.get(field, (name, 0))
            self._found[field] = first, num_items + 1

    def warnings(self) -> list[dict[str, Any]]:
        """Returns a warning for each known field that a misnamed one resembles."""
        return [
            warning(
                "misnamed_field", f"{num_items} items have {shown(name)} but no {field}: rename it if it means {field}."
            )
            for field, (name, num_items) in self._found.items()
        ]
