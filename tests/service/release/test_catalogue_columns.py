"""All lines of a release's items are read as one line is, in a fraction of its time and memory."""

import json
import time
import tracemalloc
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isrf.contract.errors import BundleError
from isrf.contract.item_fields import FieldError
from service.release.catalogue import Catalogue, ItemLine, read_item
from service.release.catalogue.columns import ItemLines, columns_of, read_columns
from service.release.catalogue.table import ItemTable
from service.release.conditions.attributes import AttributeTable
from tests.slowness import slowness

TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(["Tasse", "<b>", "é", "\U0001f600", "]", '"']))
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70), st.floats(0, 1e12), st.sampled_from([0, 1e12, 1.0000001e12, -1, 2**64, 1e300])
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, st.floats()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)
FLAGS = st.one_of(st.booleans(), st.none(), st.sampled_from([0, "true"]))
ITEMS = st.fixed_dictionaries(
    {"item_id": st.one_of(TEXTS, st.text(min_size=1, max_size=8))},
    optional={
        "title": st.one_of(st.none(), TEXTS),
        "brand": st.one_of(st.none(), TEXTS, st.integers()),
        "categories": st.one_of(st.lists(TEXTS, max_size=4), st.none()),
        "price": st.one_of(st.none(), NUMBERS, TEXTS),
        "group_id": st.one_of(st.none(), TEXTS),
        "metadata": st.one_of(
            st.none(),
            st.dictionaries(TEXTS, VALUES, max_size=4),
            st.fixed_dictionaries({}, optional={"available": FLAGS, "hidden": FLAGS, "colour": TEXTS}),
        ),
        "available": FLAGS,
        "hidden": FLAGS,
        "feature": TEXTS,
        "own_json": TEXTS,
        "else": VALUES,
    },
)
ODD_LINES = [
    b"",
    b" ",
    b"[]",
    b"null",
    b'{"title": "no id"}',
    b'{"item_id": "a"} {"item_id": "b"}',
    b'{"item_id": "a", "item_id": "b"}',
    b'{"item_id": "a", "else": "\xff"}',
    b'{"item_id": "a", "\xff": 1}',
    b'{"item_id": "a", "title": "\\ud800"}',
    b'{"item_id": "a", "else": NaN}',
    b'{"item_id": "a", "metadata": {"x": Infinity}}',
    b'{"item_id": "a", "price": 1e400}',
    b'{"item_id": "a", "metadata": {"x": 123456789012345678901234567890}}',
    b'{"item_id": "a", "metadata": {"available": false, "x": 1}}',
    b'{"item_id": "a", "metadata": {"available": null}, "available": false}',
    b'{"item_id": "a"}\r',
    b"\xef\xbb\xbf" + b'{"item_id": "a"}',
    *(b'{"item_id": "a", "else": ' + b"[" * depth + b"]" * depth + b"}" for depth in (140, 190, 210, 2_000)),
]


def lines_of(*lines: bytes) -> ItemLines:
    return ItemLines.of(np.frombuffer(b"".join(line + b"\n" for line in lines), np.uint8))


def compare(line: bytes) -> None:
    """Whether a line is accepted, and what it gives, is the same among other lines and alone."""
    other = b'{"item_id": "the other", "categories": ["a"]}'
    lines = lines_of(other, line)
    try:
        expected: ItemLine | None = read_item(line + b"\n")
    except (FieldError, ValueError):
        expected = None
    if expected is None:
        with pytest.raises(BundleError, match="line 2") as refused:
            read_columns(lines)
        assert refused.value.code == "bundle.items"
        return
    items = [read_item(other), expected]
    found, wanted = read_columns(lines), columns_of(items)
    assert (found.ids, found.group_ids) == (wanted.ids, wanted.group_ids)
    np.testing.assert_array_equal(found.prices, wanted.prices)
    np.testing.assert_array_equal(found.offered, wanted.offered)
    assert {name: rows.tolist() for name, rows in found.categories.items()} == {
        name: rows.tolist() for name, rows in wanted.categories.items()
    }
    table = ItemTable(lines)
    assert list(table) == items == table[:]
    for of_fields, item in zip(table.fields(), items, strict=True):
        assert orjson.dumps(of_fields.own_fields()) == orjson.dumps(item.own_fields())
    quick, slow = AttributeTable.of(table), AttributeTable.of(items)
    assert quick.types == slow.types
    for name, column in slow.columns.items():
        assert quick.columns[name].equals(column, null_equal=True), name


@given(ITEMS)
def test_a_line_is_read_as_alone(item: dict[str, Any]) -> None:
    compare(json.dumps(item).encode())


@pytest.mark.parametrize("line", ODD_LINES, ids=range(len(ODD_LINES)))
def test_an_odd_line_is_read_as_alone(line: bytes) -> None:
    compare(line)


def test_the_number_of_a_bad_line_is_named_in_a_long_file() -> None:
    lines = [b'{"item_id": "%d"}' % row for row in range(3_000)]
    lines[2_345] = b'{"item_id": "x", "price": "12"}'
    with pytest.raises(BundleError, match="line 2346: price"):
        read_columns(lines_of(*lines))


def shop(count: int) -> ItemLines:
    line = '{{"item_id": "item-{0}", "title": "a lamp {0}", "categories": ["Lamps", "{1}"], "price": {2}}}'
    return lines_of(*(line.format(row, row % 50, row % 90 + 0.5).encode() for row in range(count)))


def test_a_catalogue_takes_less_memory_than_its_file() -> None:
    count = 70_000
    lines, popularity = shop(count), np.zeros(count, np.float32)
    tracemalloc.start()
    catalogue = Catalogue.with_columns(ItemTable(lines), read_columns(lines), popularity)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(catalogue) == count
    assert kept < 90 * count, f"{kept / count:.0f} bytes an item"
    assert peak < 300 * count, f"{peak / count:.0f} bytes an item"


def test_a_catalogue_of_50_000_items_is_read_in_a_quarter_of_a_second() -> None:
    lines = shop(50_000)
    began = time.thread_time()
    read_columns(lines)
    assert time.thread_time() - began < 0.25 * slowness()


def test_changed_items_stand_in_their_places() -> None:
    lines = shop(4)
    before = Catalogue.with_columns(ItemTable(lines), read_columns(lines), np.zeros(4, np.float32))
    blue = before.items[1].model_copy(update={"title": "blue", "own_json": b'{"colour": "blue"}'})
    once = before.with_items({"item-1": blue, "new": ItemLine(item_id="new", group_id="g")}, "1")
    twice = once.with_items({"item-1": blue.model_copy(update={"price": 7.0})}, "2")
    assert [item.title for item in once.items] == ["a lamp 0", "blue", "a lamp 2", "a lamp 3", None]
    assert [before.items[1].title, once.items[1].price, twice.items[1].price] == ["a lamp 1", 1.5, 7.0]
    assert (twice.items[-1].item_id, twice.items[1:3][0].title, len(twice.items)) == ("new", "blue", 5)
    assert list(twice.group_ids) == [None, None, None, None, "g"]
    columns = twice.attributes.table().columns
    assert columns["title"].to_list() == [item.title for item in twice.items]
    assert columns["colour"].to_list() == [None, "blue", None, None, None]
    with pytest.raises(IndexError):
        twice.items[5]
