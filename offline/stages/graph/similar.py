"""The similar-user graph: calibration, edges, LightGCN over it (arrays in, arrays out).

A base user searches as a query does (predicted feature, own row excluded), by `isrf.method.interest.select_neighbours`;
so what is propagated offline and what is summed up online are the same graph.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.contract.errors import StageError
from isrf.contract.manifest import GroupSearch
from isrf.method.interest import FloatArray, IntArray, select_neighbours
from isrf.runtime.neighbour_index import Cells, NeighbourIndex
from offline.config import GraphConfig

BACKGROUND_PAIRS = 20_000
_BLOCK_QUERIES = 1024


class NearestUsers(NamedTuple):
    """Nearest base users of every base user, own row included, best first."""

    cosine: FloatArray  # (U, k)
    users: IntArray  # (U, k), −1 padded


class SimilarUserGraph(NamedTuple):
    """Edges of the similar-user graph, one row per base user."""

    users: NDArray[np.int32]  # (U, M), −1 padded
    degree: NDArray[np.int64]  # (U,)
    weak: NDArray[np.bool_]  # (U,) nobody reached the threshold


def nearest_users(
    queries: FloatArray, features: NDArray[np.float16], k: int, cells: Cells | None = None
) -> NearestUsers:
    """The k base users with the largest inner product for every query, (U, F) each; rows of length 0 find nobody."""
    present = np.flatnonzero(features.any(axis=1))
    index = NeighbourIndex(features[present], None if cells is None else cells._replace(cells=cells.cells[present]))
    k = min(k, len(present))
    cosine = np.zeros((len(queries), k), dtype=np.float32)
    users = np.full((len(queries), k), -1, dtype=np.int64)
    asking = np.flatnonzero(np.abs(queries).sum(axis=1) > 0)
    for first in range(0, len(asking), _BLOCK_QUERIES):
        rows = asking[first : first + _BLOCK_QUERIES]
        cosine[rows], found = index(queries[rows], k)
        users[rows] = present[found]
    return NearestUsers(cosine, users)


def calibrate_search(
    queries: FloatArray,
    features: NDArray[np.float16],
    nearest: NearestUsers,
    *,
    config: GraphConfig,
    seed: int,
    probes: int | None = None,
) -> GroupSearch:
    """Where cosines of random pairs and of nearest pairs lie: the mean of the one, the median of the other.

    A median may lie below a mean: by a rounding error where two users are all there are, by more where a few are alike
    and most like nobody. Nearest is then as near as random, and `isrf.method.interest.calibrate` finds no scale.
    """
    asking = np.flatnonzero(nearest.users[:, 0] >= 0) if nearest.users.shape[1] else np.zeros(0, np.int64)
    if len(asking) < 2:
        raise StageError(
            "graph.too_few_users",
            f"{len(asking)} users have training interactions; similar users need at least 2.",
            fix="Give users with at least three interactions each (two of them are held out).",
        )
    rng = np.random.default_rng(seed)
    left = rng.choice(asking, size=BACKGROUND_PAIRS)
    right = rng.choice(asking, size=BACKGROUND_PAIRS)
    pair = left != right
    background = np.einsum("pf,pf->p", queries[left[pair]], features[right[pair]].astype(np.float32))
    others = np.where(nearest.users[asking] == asking[:, None], np.float32(-np.inf), nearest.cosine[asking]).max(axis=1)
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
    """Edges from `nearest`.

    Raises:
        StageError: `graph.all_weak`, nobody has a neighbour at the threshold, and somebody would at a lower one.
    """
    rows = np.arange(len(nearest.users), dtype=np.int64)
    found = select_neighbours(search, nearest.cosine, nearest.users, rows)
    asking = nearest.users[:, 0] >= 0
    if found.weak[asking].all() and (found.similarity > 0).any():
        raise StageError(
            "graph.all_weak",
            f"no user has a similar user at a calibrated similarity of {search.threshold} "
            f"(a random pair has 0, a typical nearest pair 1).",
            fix="Give --set graph.similarity_threshold=0.7; 0.6 to 0.8 is the stable range.",
        )
    degree = (found.users >= 0).sum(axis=1)
    return SimilarUserGraph(found.users.astype(np.int32), degree, found.weak)


def propagate(graph: SimilarUserGraph, explicit: FloatArray, num_layers: int) -> NDArray[np.float16]:
    """LightGCN over the similar-user graph, (U, G) float16.

    Returns:
        mean of layers 0 … num_layers − 1 times 1/sqrt(degree): a query's group vector is the normalised sum of its
        neighbours' rows, which is the mean of its own layers 1 … num_layers. Scaled to a mean row length of 1.
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
        taken = (users >= 0).astype(np.float32)
        total[first : first + len(users)] = np.einsum("um,ume->ue", taken, vectors[users])
    return total


def describe(graph: SimilarUserGraph, present: NDArray[np.bool_]) -> dict[str, Any]:
    """Degree distribution and share of weak users, among the users that have a feature."""
    degree = graph.degree[present]
    return {
        "users": int(present.sum()),
        "users_without_training_events": int((~present).sum()),
        "weak_share": float(graph.weak[present].mean()),
        "degree_mean": float(degree.mean()),
        "degree_quantiles": {str(q): float(np.quantile(degree, q / 100)) for q in (0, 10, 25, 50, 75, 90, 100)},
    }
