"""The items of a release: their lines, their columns, and the catalogue that filters them.

`lines` reads one line of `items.jsonl`, `columns` reads all of them quickly, `table` holds them without an object for
each, and `catalogue` answers. It may import `isrf`, and `service.release.conditions`.
"""

from service.release.catalogue.catalogue import EVERYTHING, LEAST_USERS, NEVER, Catalogue, Filter
from service.release.catalogue.lines import ItemLine, own_json_of, read_item

__all__ = ["EVERYTHING", "LEAST_USERS", "NEVER", "Catalogue", "Filter", "ItemLine", "own_json_of", "read_item"]
