"""Items of one group_id are variants of one product, whatever rows they have."""

import time

import numpy as np
import pytest

from isrf.method.recommend.product_groups import ProductGroups
from tests.slowness import slowness

GROUPS = ProductGroups.of(["shirt", None, "cup", "shirt", None, "shirt", "alone"])


def test_variants_have_one_first_row() -> None:
    assert GROUPS.first.tolist() == [0, 1, 2, 0, 4, 0, 6]
    assert GROUPS.any
    assert [GROUPS.members(row).tolist() for row in (3, 1, 6)] == [[0, 3, 5], [1], [6]]


@pytest.mark.parametrize(
    ("rows", "found"),
    [([3], [0, 3, 5]), ([5, 0, 1], [0, 1, 3, 5]), ([4, 6], [4, 6]), ([], []), ([2, 3], [0, 2, 3, 5])],
)
def test_items_bring_their_variants(rows: list[int], found: list[int]) -> None:
    assert sorted(set(GROUPS.with_variants(rows).tolist())) == found


def test_without_groups_every_item_is_alone() -> None:
    none = ProductGroups.of([None, "a", "b"])
    assert not none.any
    assert none.first.tolist() == [0, 1, 2]
    assert none.with_variants([2, 2, 0]).tolist() == [2, 2, 0]
    assert not ProductGroups.of([]).any


def test_added_items_are_variants_of_nothing() -> None:
    longer = GROUPS.with_rows(2)
    assert longer.first.tolist() == [*GROUPS.first.tolist(), 7, 8]
    assert longer.members(0).tolist() == [0, 3, 5]
    assert GROUPS.with_rows(0) is GROUPS


def test_a_group_of_ten_thousand_is_found_at_once() -> None:
    large = ProductGroups.of([*["all"] * 10_000, *map(str, range(90_000))])
    assert len(np.unique(large.with_variants([3, 50_000]))) == 10_001
    began = time.process_time()
    for _ in range(100):
        large.with_variants([3, 50_000])
    assert time.process_time() - began < 0.3 * slowness(), "3 ms an answer; a loop over the catalogue would need 10"
