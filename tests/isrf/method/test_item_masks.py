"""A mask that is corrected says what a mask that is read anew says."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from isrf.method.recommend import item_masks
from isrf.method.recommend.item_masks import ItemMask, ItemMasks, TrieLevels
from isrf.method.trie import build_trie, prefix_nodes
from tests.isrf.nn.toy import random_ids

NUM_LEAVES, NUM_ITEMS = 60, 64
TRIE = build_trie(random_ids(NUM_LEAVES, 3, 6), 6)


def assert_equal(found: ItemMask, wanted: ItemMask) -> None:
    assert found.count == wanted.count
    for name in ("mask", "open_nodes", "packed", "rows"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)


def test_the_nodes_above_a_leaf_are_those_of_its_path() -> None:
    levels, items = TrieLevels(TRIE), np.arange(NUM_LEAVES)
    leaves = levels.leaves(items)
    np.testing.assert_array_equal(levels.nodes_above(leaves)[:-1].T, prefix_nodes(TRIE))
    np.testing.assert_array_equal(TRIE.leaf_items[leaves], items)


def test_an_open_node_has_an_allowed_item_below_it() -> None:
    allowed = np.random.default_rng(0).random(NUM_ITEMS) < 0.1
    found = ItemMasks(TRIE).find(allowed)
    for node, is_open in enumerate(found.open_nodes):
        below = TRIE.leaf_items[TRIE.trie_leaf_start[node] : TRIE.trie_leaf_stop[node]]
        assert is_open == allowed[below].any()


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(0, 3)), min_size=1, max_size=12), st.data()
)
@settings(deadline=None)
def test_whatever_was_asked_before_changes_nothing(asked: list[tuple[float, int]], data: st.DataObject) -> None:
    """Masks of many kinds in any order, each with a few items more or less; items without a leaf among them."""
    masks, rng = ItemMasks(TRIE), np.random.default_rng(0)
    for share, num_changed in asked:
        allowed = np.random.default_rng(int(share * 10)).random(NUM_ITEMS) < share
        changed = data.draw(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=num_changed))
        allowed[changed] = rng.random(len(changed)) < 0.5
        assert_equal(masks.find(allowed), ItemMasks(TRIE).find(allowed))


def test_a_caller_may_change_its_mask_afterwards() -> None:
    masks = ItemMasks(TRIE)
    allowed = np.ones(NUM_ITEMS, dtype=np.bool_)
    masks.find(allowed)
    allowed[:] = False
    assert_equal(masks.find(allowed), ItemMasks(TRIE).find(np.zeros(NUM_ITEMS, dtype=np.bool_)))


def test_a_similar_mask_is_corrected_and_not_read_anew() -> None:
    masks = ItemMasks(TRIE)
    everything = np.ones(NUM_ITEMS, dtype=np.bool_)
    first = masks.find(everything)
    assert masks.find(everything.copy()) is first
    without = everything.copy()
    without[[3, 62]] = False
    assert masks.find(without).leaves_before is None, "corrected"


def test_masks_that_differ_much_are_read_anew_and_few_are_kept() -> None:
    masks = ItemMasks(TRIE)
    for row in range(item_masks.NUM_KEPT + 3):
        allowed = np.random.default_rng(row).random(4_096 + NUM_ITEMS) < 0.5
        assert masks.find(allowed).leaves_before is not None
    one = np.zeros(4_096 + NUM_ITEMS, dtype=np.bool_)
    one[0] = True
    assert masks.find(one).count == 1
