"""The index of items finds what brute force finds, with and without HNSW, under every mask."""

import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from isrf.contract.errors import BundleError
from isrf.contract.manifest import ItemSearchSpec
from isrf.method.interest import BoolArray, FloatArray
from isrf.method.recommend.item_masks import ItemMask, ItemMasks
from isrf.method.trie import build_trie
from isrf.runtime import item_index
from isrf.runtime.bundle.opening import item_searches
from isrf.runtime.item_index import HnswIndex, ItemIndex, inner_products
from offline.runtime import hnsw as offline_hnsw

NUM_ITEMS, WIDTH, NUM_QUERIES, K = 6_000, 16, 40, 10


class Table(NamedTuple):
    """Rows in groups, as a trained model's are; every seventh row is unknown."""

    rows: FloatArray
    known: BoolArray
    queries: FloatArray


@pytest.fixture(scope="module")
def table() -> Table:
    rng = np.random.default_rng(0)
    groups = rng.normal(size=(60, WIDTH)) * 2
    rows = (groups[rng.integers(0, 60, NUM_ITEMS)] + rng.normal(size=(NUM_ITEMS, WIDTH))).astype(np.float32)
    known = np.arange(NUM_ITEMS) % 7 > 0
    rows[~known] = 0
    queries = rows[rng.choice(np.flatnonzero(known), NUM_QUERIES)] + rng.normal(size=(NUM_QUERIES, WIDTH)) / 2
    return Table(rows, known, queries.astype(np.float32))


@pytest.fixture(scope="module")
def indexed(table: Table) -> HnswIndex:
    made = offline_hnsw.index_table(table.rows, table.known, table.queries)
    assert made.recall >= offline_hnsw.RECALL
    assert made.ef < offline_hnsw.MOST_EF
    return HnswIndex(made.data, made.ef, table.known)


@pytest.fixture
def hnsw(indexed: HnswIndex, monkeypatch: pytest.MonkeyPatch) -> HnswIndex:
    """The index, searched where more than 30 items are allowed, as in a larger catalogue."""
    monkeypatch.setattr(item_index, "SCORED_ALL", 30 / NUM_ITEMS**0.5)
    return indexed


@pytest.fixture
def masks() -> ItemMasks:
    ids = np.arange(NUM_ITEMS, dtype=np.int32)
    return ItemMasks(build_trie(np.stack([ids // 100, ids % 100], axis=1), 100))


def by_hand(table: Table, query: NDArray[np.float32], mask: ItemMask, k: int) -> tuple[list[int], NDArray[np.float64]]:
    scores = np.where(table.known, table.rows.astype(np.float64) @ query, -np.inf)
    log_probs = scores - np.log(np.exp(scores).sum())
    usable = np.flatnonzero(mask.mask & table.known)
    return usable[np.argsort(-scores[usable], kind="stable")][:k].tolist(), log_probs


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.01, 0.3, 1.0])
def test_scoring_all_items_equals_the_definition(table: Table, masks: ItemMasks, share: float) -> None:
    allowed = masks.find(np.random.default_rng(1).random(NUM_ITEMS) < share)
    index = ItemIndex(table.rows, zero_is_unknown=True)
    for query in table.queries:
        found = index.find(query, allowed, K)
        wanted, log_probs = by_hand(table, query, allowed, K)
        assert found.items.tolist() == wanted
        np.testing.assert_allclose(found.log_probs, log_probs[wanted], atol=1e-4)
        every = found.log_probs_of(np.arange(NUM_ITEMS))
        np.testing.assert_allclose(every[table.known], log_probs[table.known], atol=1e-4)
        assert np.isneginf(every[~table.known]).all()


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.01, 0.1, 0.5, 1.0])
def test_by_hnsw_nearly_all_of_the_best_ten_are_found(
    table: Table, hnsw: HnswIndex, masks: ItemMasks, share: float
) -> None:
    """Also where a filter leaves few items; and whatever it finds is allowed, known, and scored as by definition."""
    allowed = masks.find(np.random.default_rng(1).random(NUM_ITEMS) < share)
    index = ItemIndex(table.rows, zero_is_unknown=True, hnsw=hnsw)
    shared = total = 0
    for query in table.queries:
        found = index.find(query, allowed, K)
        wanted, log_probs = by_hand(table, query, allowed, K)
        assert len(found.items) == len(wanted)
        assert allowed.mask[found.items].all()
        differences = found.log_probs - log_probs[found.items]
        np.testing.assert_allclose(differences, differences.mean() if len(wanted) else 0, atol=1e-4)
        assert np.abs(differences).max(initial=0) < 0.2, "the normaliser is an estimate"
        shared, total = shared + len(set(found.items.tolist()) & set(wanted)), total + len(wanted)
    assert shared >= 0.98 * total


def test_added_items_are_found_beside_the_indexed_ones(table: Table, hnsw: HnswIndex, masks: ItemMasks) -> None:
    added = np.concatenate([table.queries[:2] * 3, np.zeros((1, WIDTH), np.float32)])
    allowed = masks.find(np.ones(NUM_ITEMS + 3, dtype=np.bool_))
    for index in (
        ItemIndex(table.rows, zero_is_unknown=True, hnsw=hnsw),
        ItemIndex(table.rows, zero_is_unknown=True),
    ):
        longer = index.over(np.concatenate([table.rows, added]))
        for number in (0, 1):
            found = longer.find(table.queries[number], allowed, K)
            assert found.items[0] == NUM_ITEMS + number
            assert NUM_ITEMS + 2 not in found.items
            assert np.isneginf(longer.find(table.queries[number], allowed, K).log_probs_of(np.array([NUM_ITEMS + 2])))


@pytest.mark.parametrize("by_hnsw", [False, True])
def test_index_and_answer_can_be_sent_to_another_process(
    table: Table, hnsw: HnswIndex, masks: ItemMasks, by_hnsw: bool
) -> None:
    index = ItemIndex(table.rows, zero_is_unknown=True, hnsw=hnsw if by_hnsw else None)
    sent_index, sent_masks = pickle.loads(pickle.dumps((index, masks)))
    allowed = np.ones(NUM_ITEMS, dtype=np.bool_)
    here = index.find(table.queries[0], masks.find(allowed), K)
    there = pickle.loads(pickle.dumps(sent_index.find(table.queries[0], sent_masks.find(allowed), K)))
    np.testing.assert_array_equal(here.items, there.items)
    np.testing.assert_array_equal(here.log_probs_of(here.items), there.log_probs_of(here.items))


def test_no_known_item_gives_no_item() -> None:
    rows = np.zeros((5, 3), np.float32)
    masks = ItemMasks(build_trie(np.arange(5, dtype=np.int32)[:, None], 5))
    found = ItemIndex(rows, zero_is_unknown=True).find(np.ones(3, np.float32), masks.find(np.ones(5, np.bool_)), 4)
    assert len(found.items) == 0
    assert np.isneginf(found.log_probs_of(np.arange(5))).all()


def test_ties_go_to_the_lower_row() -> None:
    masks = ItemMasks(build_trie(np.arange(50, dtype=np.int32)[:, None], 50))
    found = ItemIndex(np.ones((50, 4), np.float32)).find(np.ones(4, np.float32), masks.find(np.ones(50, np.bool_)), 7)
    assert found.items.tolist() == list(range(7))


def test_a_score_does_not_depend_on_the_rows_beside_it(table: Table) -> None:
    alone = [inner_products(table.queries[0], table.rows[row : row + 1])[0] for row in range(40)]
    np.testing.assert_array_equal(alone, inner_products(table.queries[0], table.rows)[:40])


def test_equal_tables_give_equal_indexes(table: Table) -> None:
    first, second = (offline_hnsw.index_table(table.rows, table.known, table.queries).data for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_an_index_that_does_not_belong_to_its_table_is_refused(table: Table, hnsw: HnswIndex) -> None:
    spec = ItemSearchSpec(dense_ef=128, explicit_ef=128)
    for name, data in (("cut", hnsw.data[:1000]), ("other", hnsw.data)):
        rows = table.rows if name == "cut" else table.rows[:-1]
        arrays: dict[str, NDArray[Any]] = {"item_vectors.npy": rows, "item_embeddings.npy": rows}
        arrays |= {"dense_hnsw.npy": data, "explicit_hnsw.npy": data}
        with pytest.raises(BundleError, match="dense_hnsw"):
            item_searches(arrays, spec)
