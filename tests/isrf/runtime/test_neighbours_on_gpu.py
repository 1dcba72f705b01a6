"""Searches where the index takes no selection of rows, as on a GPU; with a GPU, the same against the CPU."""

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from isrf.runtime.neighbour_index import MOST_ON_GPU, Cells, NeighbourIndex, UnselectedSearch

RNG = np.random.default_rng(0)


def flat(features: NDArray[np.float32]) -> faiss.IndexFlatIP:
    index = faiss.IndexFlatIP(features.shape[1])
    index.add(features)
    return index


def test_present_users_are_found_without_a_selection() -> None:
    features = RNG.normal(size=(2000, 16)).astype(np.float32)
    queries = RNG.normal(size=(6, 16)).astype(np.float32)
    present = RNG.random(2000) < 0.9
    cosine, users = UnselectedSearch(flat(features))(queries, 40, present)
    expected = NeighbourIndex(features).among(present)(queries, 40)
    np.testing.assert_array_equal(users, expected[1])
    np.testing.assert_array_equal(cosine, expected[0])


def test_a_row_that_lacks_present_users_says_so() -> None:
    features = RNG.normal(size=(500, 8)).astype(np.float32)
    query = features[:1]
    present = np.zeros(500, dtype=np.bool_)
    order = np.argsort(-(query @ features.T)[0])
    present[order[[0, 499]]] = True  # the nearest, and one that is beyond what is asked for
    cosine, users = UnselectedSearch(flat(features))(query, 5, present)
    assert users.tolist() == [[order[0], -1, -1, -1, -1]]
    assert np.isneginf(cosine[0, 1:]).all()


def test_more_than_a_gpu_finds_is_left_to_the_caller() -> None:
    features = RNG.normal(size=(MOST_ON_GPU + 100, 4)).astype(np.float32)
    _, users = UnselectedSearch(flat(features))(features[:1], MOST_ON_GPU + 50)
    assert users.shape == (1, MOST_ON_GPU + 50)
    assert (users[0, :MOST_ON_GPU] >= 0).all()
    assert (users[0, MOST_ON_GPU:] == -1).all()


@pytest.mark.skipif(faiss.get_num_gpus() > 0, reason="there is a GPU")
def test_without_a_gpu_the_cpu_searches() -> None:
    features = RNG.normal(size=(300, 8)).astype(np.float16)
    asked = NeighbourIndex(features, precision="float16", device="cuda")
    plain = NeighbourIndex(features, precision="float16")
    assert asked.device == "cpu"
    queries = features[:9].astype(np.float32)
    for one, other in zip(asked(queries, 20), plain(queries, 20), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(faiss.get_num_gpus() == 0, reason="no GPU that FAISS can use")
@pytest.mark.parametrize("divided", [False, True])
def test_a_gpu_finds_the_users_that_the_cpu_finds(divided: bool) -> None:
    rows = RNG.normal(size=(5000, 64)).astype(np.float32)
    features = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    centroids = rows[:20]
    cells = Cells(centroids, np.argmax(features @ centroids.T, axis=1).astype(np.int32), 6) if divided else None
    on_cpu = NeighbourIndex(features, cells, precision="float16")
    on_gpu = NeighbourIndex(features, cells, precision="float16", device="cuda")
    assert on_gpu.device == "cuda"
    queries = features[::50].astype(np.float32)
    present = RNG.random(len(features)) < 0.7
    for cpu, gpu in ((on_cpu, on_gpu), (on_cpu.among(present), on_gpu.among(present))):
        expected, found = cpu(queries, 50), gpu(queries, 50)
        shared = [len(set(a) & set(b)) / 50 for a, b in zip(expected[1].tolist(), found[1].tolist(), strict=True)]
        assert np.mean(shared) > 0.99
        np.testing.assert_allclose(found[0], expected[0], atol=2e-3)
