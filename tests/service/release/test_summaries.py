"""Attributes are described by their type, how many items have a value, and values to write into a condition."""

import pytest

from service.release.catalogue import ItemLine
from service.release.conditions import summaries as module
from service.release.conditions.attributes import FIELD_TYPES
from service.release.conditions.summaries import LONGEST_EXAMPLE, AttributeSummary, summaries
from tests.service.release.test_attributes import catalogue, line


def described(*items: ItemLine) -> dict[str, AttributeSummary]:
    return {one.name: one for one in summaries(catalogue(*items).attributes.table())}


ITEMS = (
    line("a", {"stock": 3, "released": "2026-01-03", "organic": True}, brand="Red", price=5, categories=["x", "y"]),
    line("b", {"stock": 9, "released": "2026-01-01", "organic": True}, brand="Blue", price=7, categories=["y"]),
    line("c", {"stock": 4, "organic": False}, brand="Red", price=6),
    line("d", {"odd": [1, "a"]}, brand="Aqua"),
)


def test_texts_are_told_by_the_most_frequent_values() -> None:
    found = described(*ITEMS)
    assert found["brand"] == ("brand", "text", 4, ["Red", "Aqua", "Blue"])
    assert found["categories"] == ("categories", "texts", 2, ["y", "x"])
    assert found["organic"] == ("organic", "boolean", 3, [True, False])
    assert found["odd"] == ("odd", "text", 1, ['[1,"a"]'])
    assert found["title"] == ("title", "text", 0, [])


def test_numbers_and_times_are_told_by_smallest_median_and_largest() -> None:
    found = described(*ITEMS)
    assert found["price"] == ("price", "number", 3, [5.0, 6.0, 7.0])
    assert found["stock"] == ("stock", "number", 3, [3.0, 4.0, 9.0])
    assert found["released"] == ("released", "time", 2, ["2026-01-01T00:00:00", "2026-01-03T00:00:00"])
    assert described(line("a", price=5), line("b", price=5))["price"].examples == [5.0]


def test_our_own_fields_come_first_then_those_of_most_items() -> None:
    assert [*described(*ITEMS)] == [*FIELD_TYPES, "organic", "stock", "released", "odd"]


def test_a_long_text_is_no_example() -> None:
    fits, too_long = "x" * LONGEST_EXAMPLE, "x" * (LONGEST_EXAMPLE + 1)
    found = described(line("a", brand=too_long), line("b", brand=too_long), line("c", brand=fits))["brand"]
    assert (found.items, found.examples) == (3, [fits])


def test_a_large_catalogue_is_looked_at_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOKED_AT", 4)
    items = [line(str(row), brand=f"brand {row}", price=row) for row in range(10)]
    found = described(*items)
    assert found["brand"].items == 10, "all are counted"
    assert found["brand"].examples == ["brand 0", "brand 3", "brand 6", "brand 9"]
    assert found["price"].examples == [0.0, 3.0, 9.0]


def test_a_catalogue_is_described_once_and_a_changed_one_anew() -> None:
    now = catalogue(line("a", {"stock": 1}), line("b", {"stock": 2}))
    first = summaries(now.attributes.table())
    assert summaries(now.attributes.table()) is first
    later = now.with_items({"a": line("a", {"stock": 5, "colour": "red"})}, "1").attributes.table()
    assert {one.name: one.examples for one in summaries(later)}["stock"] == [2.0, 5.0]
    assert summaries(later)[-1] == ("colour", "text", 1, ["red"])


def test_no_item_is_described_too() -> None:
    assert [one.items for one in described().values()] == [0] * len(FIELD_TYPES)
