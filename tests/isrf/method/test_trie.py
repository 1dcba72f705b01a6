"""The trie holds every semantic ID, once, in order, whatever the catalogue's shape."""

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from isrf.contract.errors import DataError
from isrf.method.trie import TrieTables, build_trie, prefix_nodes
from tests.slowness import slowness


def _walk(tables: TrieTables, codes: tuple[int, ...]) -> int | None:
    """The node that the codes lead to, by following the tables one edge at a time."""
    node = 0
    for code in codes:
        children = range(tables.trie_child_start[node], tables.trie_child_start[node + 1])
        match = [child for child in children if tables.trie_code[child] == code]
        if not match:
            return None
        (node,) = match
    return node


def _check(semantic_ids: NDArray[np.int32], tables: TrieTables) -> None:
    """Holds the tables against the definition: one node per distinct prefix, its leaves the items that share it."""
    num_items, num_levels = semantic_ids.shape
    prefixes = [sorted({tuple(row[:level]) for row in semantic_ids.tolist()}) for level in range(num_levels + 1)]
    assert len(tables.trie_code) == len(tables.trie_leaf_start) == sum(map(len, prefixes))
    assert tables.trie_child_start[-1] == len(tables.trie_code)
    node = 0
    for level_prefixes in prefixes:
        for prefix in level_prefixes:
            below = tables.leaf_items[tables.trie_leaf_start[node] : tables.trie_leaf_stop[node]]
            assert {tuple(row[: len(prefix)]) for row in semantic_ids[below].tolist()} == {prefix}
            assert tables.trie_code[node] == (prefix[-1] if prefix else 0)
            node += 1
    assert sorted(tables.leaf_items.tolist()) == list(range(num_items))
    most = [
        max(sum(after[:-1] == before for after in below) for before in above) for above, below in pairwise(prefixes)
    ]
    assert tables.trie_places.tolist() == most
    leaves = semantic_ids[tables.leaf_items].tolist()
    assert leaves == sorted(leaves)


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[NDArray[np.int32], int]:
    """Distinct semantic IDs: wide and shallow, deep and narrow, or skewed to few prefixes."""
    codebook_size = draw(st.integers(1, 9))
    num_levels = draw(st.integers(1, 7))
    skew = draw(st.integers(1, codebook_size))
    code = st.one_of(st.integers(0, codebook_size - 1), st.integers(0, skew - 1))
    rows = draw(st.sets(st.tuples(*[code] * num_levels), min_size=1, max_size=60))
    shuffled = draw(st.permutations(sorted(rows)))
    return np.array(shuffled, dtype=np.int32).reshape(len(rows), num_levels), codebook_size


@pytest.mark.slow
@given(catalogues())
@settings(deadline=None, max_examples=150)
def test_every_prefix_is_one_node_with_its_items_below(catalogue: tuple[NDArray[np.int32], int]) -> None:
    semantic_ids, codebook_size = catalogue
    tables = build_trie(semantic_ids, codebook_size)
    _check(semantic_ids, tables)
    choices = prefix_nodes(tables)
    for item, row in enumerate(semantic_ids.tolist()):
        assert choices[item].tolist() == [_walk(tables, tuple(row[:level])) for level in range(len(row))]
        leaf = _walk(tables, tuple(row))
        assert leaf is not None
        assert tables.leaf_items[tables.trie_leaf_start[leaf] : tables.trie_leaf_stop[leaf]].tolist() == [item]


def test_two_thousand_items_below_few_shared_prefixes() -> None:
    rows = np.arange(2000)
    semantic_ids = np.stack([rows * 0, rows * 0 + 3, rows // 256, rows % 256], axis=1).astype(np.int32)
    tables = build_trie(semantic_ids[::-1].copy(), 256)
    _check(semantic_ids[::-1], tables)
    assert len(tables.trie_code) == 1 + 1 + 1 + 8 + 2000


def test_the_order_of_the_items_changes_only_which_item_a_leaf_names() -> None:
    rng = np.random.default_rng(0)
    semantic_ids = np.unique(rng.integers(0, 5, (300, 4)), axis=0).astype(np.int32)
    shuffle = rng.permutation(len(semantic_ids))
    one, other = build_trie(semantic_ids, 5), build_trie(semantic_ids[shuffle], 5)
    for name in ("trie_code", "trie_child_start", "trie_leaf_start", "trie_leaf_stop"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(one.leaf_items, shuffle[other.leaf_items])


@pytest.mark.slow
def test_a_million_items_take_seconds() -> None:
    rng = np.random.default_rng(0)
    keys = rng.choice(2**32, 1_000_000, replace=False)
    semantic_ids = np.stack([(keys >> shift) & 255 for shift in (24, 16, 8, 0)], axis=1).astype(np.int32)
    started = time.process_time()  # what others do on this machine counts for nothing
    tables = build_trie(semantic_ids, 256)
    assert time.process_time() - started < 15 * slowness()
    assert len(tables.leaf_items) == 1_000_000


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([[0, 1], [2, 3], [0, 1]], "semantic_ids.duplicate"),
        ([[0, 4]], "semantic_ids.range"),
        ([[0, -1]], "semantic_ids.range"),
        (np.zeros((0, 4)), "semantic_ids.shape"),
        (np.zeros((4, 0)), "semantic_ids.shape"),
        ([1, 2], "semantic_ids.shape"),
    ],
)
def test_unusable_codes_are_refused_by_name(rows: object, code: str) -> None:
    with pytest.raises(DataError) as caught:
        build_trie(np.array(rows, dtype=np.int32), 4)
    assert caught.value.code == code
    assert caught.value.fix
