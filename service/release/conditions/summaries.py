"""Describes the attributes of all items to people who write conditions: type, how many items, and some values.

The summaries of one version of the catalogue are made at their first use, by one thread at a time.
"""

import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import polars as pl

from isrf.contract.item_fields import AttributeType
from service.release.conditions.attributes import FIELD_TYPES, AttributeTable

LOOKED_AT = 20_000
"""Most items whose values are counted for the examples, spread evenly over the catalogue."""
MOST_EXAMPLES = 200
LONGEST_EXAMPLE = 100
"""Characters: a longer text is no example, as half of it would be another value."""


class AttributeSummary(NamedTuple):
    """An attribute of the items.

    Attributes:
        items: how many have a value.
        examples: of texts and booleans the most frequent, first the one that most items have; of numbers and times the
            smallest, the median and the largest.
    """

    name: str
    type: AttributeType
    items: int
    examples: list[Any]


_known: WeakKeyDictionary[AttributeTable, list[AttributeSummary]] = WeakKeyDictionary()
_making = threading.Lock()


def summaries(table: AttributeTable) -> Sequence[AttributeSummary]:
    """Returns our own fields, then the shop's own attributes, those of most items first.

    The first call for a table looks at the values of `LOOKED_AT` items: run it in a thread.
    """
    with _making:
        found = _known.get(table)
        if found is None:
            made = [_summary(name, column, table) for name, column in table.columns.items()]
            ours = list(FIELD_TYPES)

            def order(one: AttributeSummary) -> tuple[int, int, str]:
                return (ours.index(one.name) if one.name in FIELD_TYPES else len(ours), -one.items, one.name)

            found = _known[table] = sorted(made, key=order)
        return found


def _summary(name: str, column: pl.Series, table: AttributeTable) -> AttributeSummary:
    kind = table.types[name].type
    some = column.gather_every(max(1, -(-len(column) // LOOKED_AT)))
    if kind == "texts":
        # An empty list is no value, as for `IN` in a condition.
        items = int((column.list.len() > 0).sum())
        return AttributeSummary(name, kind, items, _most_frequent(some.explode()))
    items = len(column) - column.null_count()
    if kind in ("number", "time"):
        return AttributeSummary(name, kind, items, _spread(some.drop_nulls()))
    return AttributeSummary(name, kind, items, _most_frequent(some))


def _most_frequent(values: pl.Series) -> list[Any]:
    """Returns the most frequent values; of equally frequent ones the smaller first, so that no run differs."""
    values = values.drop_nulls()
    if values.dtype == pl.String:
        values = values.filter(values.str.len_chars() <= LONGEST_EXAMPLE)
    if values.is_empty():
        return []
    counts = values.rename("value").value_counts(name="count")
    frequent = counts.sort(["count", "value"], descending=[True, False]).head(MOST_EXAMPLES)
    return frequent["value"].to_list()


def _spread(values: pl.Series) -> list[Any]:
    if values.dtype == pl.Float64:
        values = values.filter(values.is_finite())
    if values.is_empty():
        return []
    values = values.sort()
    found = [values[0], values[(len(values) - 1) // 2], values[-1]]
    return [_shown(value) for value in dict.fromkeys(found)]


def _shown(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
