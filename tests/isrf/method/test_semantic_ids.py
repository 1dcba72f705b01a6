"""Semantic IDs: always unique, nearest where there is room, an error only where there cannot be room."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isrf.contract.errors import ConfigError
from isrf.method.semantic_ids import assign_semantic_ids, check_capacity


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[np.ndarray, list[np.ndarray], int]:
    """Vectors with many duplicates, codebooks smaller than or as large as C, anything from sparse to brim-full."""
    levels, codebook_size = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    num_items = draw(st.integers(0, min(codebook_size**levels, 80)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([0.0, 0.01, 1.0]))
    vectors = rng.normal(size=(1, 3)) + spread * rng.integers(-2, 3, size=(num_items, 3))
    codebooks = [rng.normal(size=(draw(st.integers(1, codebook_size)), 3)).astype(np.float32) for _ in range(levels)]
    return vectors.astype(np.float32), codebooks, codebook_size


@given(catalogues())
@settings(max_examples=200, deadline=None)
def test_ids_are_unique_in_range_and_deterministic(catalogue: tuple[np.ndarray, list[np.ndarray], int]) -> None:
    vectors, codebooks, codebook_size = catalogue
    ids = assign_semantic_ids(vectors, codebooks, codebook_size=codebook_size)
    assert ids.codes.shape == (len(vectors), len(codebooks))
    assert ids.codes.dtype == np.int32
    assert len({tuple(row) for row in ids.codes.tolist()}) == len(vectors)
    assert ids.codes.size == 0 or (ids.codes.min() >= 0 and ids.codes.max() < codebook_size)
    again = assign_semantic_ids(vectors.copy(), codebooks, codebook_size=codebook_size)
    np.testing.assert_array_equal(ids.codes, again.codes)
    np.testing.assert_array_equal(ids.displaced, again.displaced)


@given(catalogues())
@settings(max_examples=100, deadline=None)
def test_an_item_that_collides_with_nobody_keeps_its_nearest_codes(
    catalogue: tuple[np.ndarray, list[np.ndarray], int],
) -> None:
    vectors, codebooks, codebook_size = catalogue
    for vector in vectors[:5]:
        alone = assign_semantic_ids(vector[None], codebooks, codebook_size=codebook_size)
        residual = vector.copy()
        for level, codebook in enumerate(codebooks):
            distances = np.square(residual - codebook).sum(axis=1)
            assert distances[alone.codes[0, level]] <= distances.min() + 1e-4
            residual = residual - codebook[alone.codes[0, level]]
        assert not alone.displaced.any()


def test_the_last_level_takes_the_nearest_free_code() -> None:
    codebook = np.array([[0.0], [1.0], [3.0]], dtype=np.float32)
    vectors = np.array([[0.2], [0.1], [0.3]], dtype=np.float32)  # all nearest to code 0; row 1 is the nearest of them
    ids = assign_semantic_ids(vectors, [codebook], codebook_size=3)
    assert ids.codes[:, 0].tolist() == [2, 0, 1]  # row 2 is nearer to code 1 than row 0
    assert ids.displaced.tolist() == [2]


def test_a_full_prefix_overflows_to_the_nearest_prefix_with_room() -> None:
    first = np.array([[0.0], [10.0], [4.0]], dtype=np.float32)
    second = np.array([[0.0], [1.0], [2.0]], dtype=np.float32)
    vectors = np.array([[0.0], [0.0], [0.0], [0.5]], dtype=np.float32)  # prefix 0 has room for three
    ids = assign_semantic_ids(vectors, [first, second], codebook_size=3)
    assert ids.codes[:, 0].tolist() == [0, 0, 0, 2]
    assert sorted(ids.codes[:3, 1].tolist()) == [0, 1, 2]


def test_codes_without_a_vector_are_the_last_resort() -> None:
    codebook = np.array([[0.0], [1.0]], dtype=np.float32)
    ids = assign_semantic_ids(np.zeros((4, 1), dtype=np.float32), [codebook], codebook_size=4)
    assert ids.codes[:, 0].tolist() == [0, 1, 2, 3]


def test_two_thousand_identical_items_get_two_thousand_ids() -> None:
    codebooks = [np.random.default_rng(0).normal(size=(256, 8)).astype(np.float32) for _ in range(4)]
    ids = assign_semantic_ids(np.ones((2000, 8), dtype=np.float32), codebooks, codebook_size=256)
    assert len(np.unique(ids.codes, axis=0)) == 2000
    assert len(np.unique(ids.codes[:, :3], axis=0)) == 8  # no more prefixes than they fill


def test_every_id_can_be_used() -> None:
    codebooks = [np.zeros((1, 2), dtype=np.float32) for _ in range(3)]
    ids = assign_semantic_ids(np.ones((27, 2), dtype=np.float32), codebooks, codebook_size=3)
    assert len(np.unique(ids.codes, axis=0)) == 27


@pytest.mark.parametrize(("num_items", "levels", "codes", "named"), [(28, 3, 3, ("4", "4")), (2, 4, 1, ("2",))])
def test_too_many_items_end_in_an_error_that_says_what_to_raise(
    num_items: int, levels: int, codes: int, named: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        assign_semantic_ids(
            np.zeros((num_items, 2), dtype=np.float32),
            [np.zeros((1, 2), dtype=np.float32)] * levels,
            codebook_size=codes,
        )
    assert caught.value.code == "config.semantic_ids_capacity"
    assert "semantic_ids.codebook_size" in caught.value.fix
    raised = [int(number) for number in re.findall(r"=(\d+)", caught.value.fix)]
    assert [str(value) for value in raised] == list(named)
    check_capacity(num_items, levels=levels, codebook_size=raised[-1])
