"""Every further field of an item is a column with a type, which follows the shop's changes."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isrf.contract.item_fields import ColumnType, kind_of, parse_time, type_of
from service.release.catalogue import Catalogue, ItemLine, read_item
from service.release.conditions.attributes import MOST_ATTRIBUTES, AttributeTable


def line(item_id: str, own: dict[str, Any] | None = None, **fields: Any) -> ItemLine:
    return read_item(json.dumps({"item_id": item_id, **fields, "metadata": own or {}}).encode())


def catalogue(*items: ItemLine) -> Catalogue:
    return Catalogue.of(list(items), np.zeros(len(items), dtype=np.float32))


def shown(table: AttributeTable) -> dict[str, tuple[str, list[Any]]]:
    return {name: (str(column.dtype), column.to_list()) for name, column in sorted(table.columns.items())}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2.5], ColumnType("number")),
        (["a", "2026-01-01"], ColumnType("text")),
        (["2026-01-01", "2026-01-01T10:00:00Z"], ColumnType("time")),
        ([True, None], ColumnType("boolean")),
        ([["a"], []], ColumnType("texts")),
        ([1, "a"], ColumnType("text", mixed=True)),
        ([True, 1], ColumnType("text", mixed=True)),
        ([{"a": 1}], ColumnType("text", mixed=True)),
        ([["a", 1]], ColumnType("text", mixed=True)),
        ([1, "2026-01-01"], ColumnType("text", mixed=True)),
    ],
)
def test_values_decide_the_type(values: list[Any], expected: ColumnType) -> None:
    assert type_of([kind for value in values if (kind := kind_of(value))]) == expected


@pytest.mark.parametrize(
    "text", ["2026", "20260101", "2026-13-01", "2026-01-01T25:00", "0001-01-01T00:00+10:00", "١٩٩٩-01-01"]
)
def test_what_only_looks_like_a_time_is_text(text: str) -> None:
    assert parse_time(text) is None


def test_the_shops_fields_are_columns() -> None:
    own = {"stock": 3, "released": "2026-01-01T10:00:00+02:00", "tags": ["a"], "size": {"w": 1}, "now": 1, "user.x": 1}
    table = catalogue(line("a", own, price=5), line("b", {"stock": None}, title="B")).attributes.table()
    columns = shown(table)
    assert columns["stock"] == ("Float64", [3.0, None])
    assert columns["size"] == ("String", ['{"w":1}', None])
    assert columns["tags"] == ("List(String)", [["a"], None])
    assert columns["price"][1] == [5.0, None]
    assert str(columns["released"][1][0]) == "2026-01-01 08:00:00"
    assert not {"now", "user.x"} & columns.keys()


def test_ids_in_names_make_no_columns_without_end() -> None:
    items = [line(str(row), {f"field {row}": 1, "colour": "red"}) for row in range(2 * MOST_ATTRIBUTES)]
    types = catalogue(*items).attributes.table().types
    assert "colour" in types
    assert len(types) == MOST_ATTRIBUTES + 7


def test_flags_in_metadata_are_no_attributes() -> None:
    item = line("a", {"available": False, "hidden": True, "stock": 1})
    assert (item.available, item.hidden, item.own_fields()) == (False, True, {"stock": 1})


def test_a_catalogue_without_conditions_builds_no_columns() -> None:
    before = catalogue(*(line(str(row), {"stock": row}) for row in range(20)))
    after = before.with_items({"3": line("3", {"stock": 9})}, "1")
    assert after.attributes.built is None
    assert after.attributes.table().columns["stock"].to_list()[2:5] == [2.0, 9.0, 4.0]


OWN = st.dictionaries(
    st.sampled_from(["stock", "colour", "tags"]),
    st.none() | st.integers(0, 3) | st.sampled_from(["red", "2026-01-01"]) | st.just(["a", "b"]) | st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(
    first=st.lists(OWN, min_size=1, max_size=24),
    changes=st.lists(st.dictionaries(st.integers(0, 30), OWN, max_size=5), max_size=4),
    built=st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_changed_columns_equal_columns_built_anew(
    first: list[dict[str, Any]], changes: list[dict[int, dict[str, Any]]], built: list[bool]
) -> None:
    now = catalogue(*(line(str(row), own, price=row) for row, own in enumerate(first)))
    for step, (change, is_read) in enumerate(zip(changes, built, strict=False)):
        if is_read:
            now.attributes.table()
        lines = {str(row): line(str(row), own, price=step, categories=["x"] * (row % 2)) for row, own in change.items()}
        now = now.with_items(lines, str(step))
    anew = AttributeTable.of(list(now.items))
    table = now.attributes.table()
    assert (table.types, table.kinds) == (anew.types, anew.kinds)
    assert shown(table) == shown(anew)


class CountingItem:
    """An item that counts how often its own fields are read."""

    def __init__(self, item: ItemLine) -> None:
        self._item, self.num_reads = item, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._item, name)

    def own_fields(self) -> dict[str, Any]:
        self.num_reads += 1
        return self._item.own_fields()


def test_an_items_own_fields_are_read_once_for_all_columns() -> None:
    own = {"stock": 1, "colour": "red", "tags": ["a"], "released": "2026-01-01"}
    before = [CountingItem(line(str(row), own, price=row)) for row in range(20)]
    table = AttributeTable.of(before)
    assert {item.num_reads for item in before} == {1}
    other = {"stock": 2, "colour": "blue", "tags": ["b"], "released": "2026-01-02", "size": 4}
    changed, new = CountingItem(line("3", other)), CountingItem(line("20", other))
    after = table.with_rows([*before[:3], changed, *before[4:], new], {3, 20})
    assert (changed.num_reads, new.num_reads) == (1, 1)
    assert after.columns["size"].to_list() == [None] * 3 + [4.0] + [None] * 16 + [4.0]
    assert after.columns["tags"].to_list()[2:4] == [["a"], ["b"]]
