"""Imported items whose own fields are known to mean ours: said once for each field, as ingest says it of a file."""

from collections.abc import Mapping
from typing import Any

from isrf.contract.item_changes import METADATA
from isrf.contract.item_fields import meant_field
from isrf.contract.shown import shown
from service.recommend.warnings import warning


class Misnamed:
    """Of one import."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, int]] = {}  # field of ours → the first name that may mean it, and items

    def see(self, said: Mapping[str, Any]) -> None:
        """`said`: what a line says of an item, its own fields under `metadata`."""
        for name in said.get(METADATA) or ():
            field = meant_field(name)
            if field is None or field == "item_id" or said.get(field) is not None:
                continue
            first, items = self._found.get(field, (name, 0))
            self._found[field] = first, items + 1

    def warnings(self) -> list[dict[str, Any]]:
        return [
            warning("misnamed_field", f"{items} items have {shown(name)} and no {field}: rename it if it is meant.")
            for field, (name, items) in self._found.items()
        ]
