"""Builds the similar-user graph: calibration, edges, and LightGCN over it (arrays in, arrays out).

A base user's neighbours are found as for a query: predicted feature, own row excluded,
`isrf.method.interest.select_neighbours`. So propagation offline and summation online use the same graph.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.contract.errors import StageError
from isrf.contract.manifest import GroupSearch
from isrf.method.interest import FloatArray, IntArray, select_neighbours
from isrf.runtime.neighbour_index import Cells, NeighbourIndex
from offline.config import GraphConfig
from offline.engine.engine import StageEngine
from offline.engine.local import LOCAL

BACKGROUND_PAIRS = 20_000
_BLOCK_QUERIES = 1024


class NearestUsers(NamedTuple):
    """The nearest base users of every base user, own row included, best first."""

    cosine: FloatArray  # (U, k)
    users: IntArray  # (U, k), −1 padded


class SimilarUserGraph(NamedTuple):
    """The edges of the similar-user graph, one row per base user."""

    users: NDArray[np.int32]  # (U, M), −1 padded
    degree: NDArray[np.int64]  # (U,)
    weak: NDArray[np.bool_]  # (U,) no user reached the threshold


def nearest_users(
    queries: FloatArray,
    features: NDArray[np.float16],
    k: int,
    cells: Cells | None = None,
    *,
    engine: StageEngine = LOCAL,
) -> NearestUsers:
    """The k base users with the largest inner product for every query; queries and features are (U, F).

    A query of length 0 has no neighbours.
    """
    present = np.flatnonzero(features.any(axis=1))
    index = NeighbourIndex(features[present], None if cells is None else cells._replace(cells=cells.cells[present]))
    k = min(k, len(present))
    cosine = np.zeros((len(queries), k), dtype=np.float32)
    users = np.full((len(queries), k), -1, dtype=np.int64)
    with_query = np.flatnonzero(np.abs(queries).sum(axis=1) > 0)
    blocks = [with_query[first : first + _BLOCK_QUERIES] for first in range(0, len(with_query), _BLOCK_QUERIES)]
    for rows, found in zip(blocks, engine.map(_search, (queries, index, k), blocks), strict=True):
        cosine[rows], users[rows] = found.cosine, present[found.users]
    return NearestUsers(cosine, users)


def _search(rows: IntArray, queries: FloatArray, index: NeighbourIndex, k: int) -> NearestUsers:
    return NearestUsers(*index(queries[rows], k))


def calibrate_search(
    queries: FloatArray,
    features: NDArray[np.float16],
    nearest: NearestUsers,
    *,
    config: GraphConfig,
    seed: int,
    probes: int | None = None,
) -> GroupSearch:
    """Measures the mean cosine of random pairs and the median cosine of nearest pairs, for `GroupSearch`.

    The median may lie below the mean: by a rounding error where there are only two users, by more where a few users are
    similar and most are not similar to anybody. Then the nearest cosine is set to the random one, and
    `isrf.method.interest.calibrate` finds no scale.
    """
    with_neighbours = np.flatnonzero(nearest.users[:, 0] >= 0) if nearest.users.shape[1] else np.zeros(0, np.int64)
    if len(with_neighbours) < 2:
        raise StageError(
            "graph.too_few_users",
            f"{len(with_neighbours)} users have training interactions; similar users need at least 2.",
            fix="Provide users with at least three interactions each (two of them are held out).",
        )
    rng = np.random.default_rng(seed)
    left = rng.choice(with_neighbours, size=BACKGROUND_PAIRS)
    right = rng.choice(with_neighbours, size=BACKGROUND_PAIRS)
    pair = left != right
    background = np.einsum("pf,pf->p", queries[left[pair]], features[right[pair]].astype(np.float32))
    others = np.where(
        nearest.users[with_neighbours] == with_neighbours[:, None], np.float32(-np.inf), nearest.cosine[with_neighbours]
    ).max(axis=1)
    random = float(background.mean())
    return GroupSearch(
        threshold=config.similarity_threshold,
        background_cosine=random,
        nearest_cosine=max(random, float(np.median(others))),
        max_neighbours=config.max_neighbours,
        min_neighbours=config.min_neighbours,
        probes=probes,
    )


def join_similar_users(search: GroupSearch, nearest: NearestUsers) -> SimilarUserGraph:
    """Makes the edges from the nearest users.

    Raises:
        StageError: `graph.all_weak`, no user has a neighbour at the threshold, but some would have at a lower one.
    """
    rows = np.arange(len(nearest.users), dtype=np.int64)
    found = select_neighbours(search, nearest.cosine, nearest.users, rows)
    with_neighbours = nearest.users[:, 0] >= 0
    if found.weak[with_neighbours].all() and (found.similarity > 0).any():
        raise StageError(
            "graph.all_weak",
            f"no user has a similar user at a calibrated similarity of {search.threshold} "
            f"(a random pair has 0, a typical nearest pair 1).",
            fix="Use --set graph.similarity_threshold=0.7; 0.6 to 0.8 is the stable range.",
        )
    degree = (found.users >= 0).sum(axis=1)
    return SimilarUserGraph(found.users.astype(np.int32), degree, found.weak)


def propagate(graph: SimilarUserGraph, explicit: FloatArray, num_layers: int) -> NDArray[np.float16]:
    """Runs LightGCN over the similar-user graph and returns the group layers, (U, G) float16.

    Returns:
        the mean of layers 0 … num_layers − 1 times 1/sqrt(degree), scaled to a mean row length of 1. A query's group
        vector is the normalised sum of its neighbours' rows, which equals the mean of its own layers 1 … num_layers.
    """
    inverse = (1.0 / np.sqrt(np.maximum(graph.degree, 1))).astype(np.float32)[:, None]
    layer = total = explicit
    for _ in range(num_layers - 1):
        layer = inverse * _neighbour_sum(graph, inverse * layer)
        total = total + layer
    rows = inverse * total
    lengths = np.linalg.norm(rows, axis=1)
    scale = lengths[lengths > 0].mean() if (lengths > 0).any() else 1.0
    return np.asarray(rows / scale, dtype=np.float16)


def _neighbour_sum(graph: SimilarUserGraph, vectors: FloatArray) -> FloatArray:
    total = np.zeros_like(vectors)
    for first in range(0, len(vectors), _BLOCK_QUERIES):
        users = graph.users[first : first + _BLOCK_QUERIES]
        real = (users >= 0).astype(np.float32)
        total[first : first + len(users)] = np.einsum("um,ume->ue", real, vectors[users])
    return total


def describe(graph: SimilarUserGraph, present: NDArray[np.bool_]) -> dict[str, Any]:
    """Degree distribution and share of weak users, among the users with a feature."""
    degree = graph.degree[present]
    return {
        "users": int(present.sum()),
        "users_without_training_events": int((~present).sum()),
        "weak_share": float(graph.weak[present].mean()),
        "degree_mean": float(degree.mean()),
        "degree_quantiles": {str(q): float(np.quantile(degree, q / 100)) for q in (0, 10, 25, 50, 75, 90, 100)},
    }
