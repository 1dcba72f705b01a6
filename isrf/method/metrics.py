"""Hit rate and normalised discounted cumulative gain with one relevant item, and bootstrap intervals of their means.

A rank is 0 for the first place and −1 for an item that is not in the list. Functions return values per user; means are
taken later, so that two systems can be compared user by user.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95


class Interval(NamedTuple):
    """A mean with its bootstrap interval."""

    mean: float
    low: float
    high: float


def ranks_of(lists: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank of each user's relevant item in their list.

    Args:
        lists: (U, n) int64 item rows best first, −1 where a list is shorter.
        targets: (U,) int64 item rows, none negative.

    Returns:
        (U,) int64, −1 where the item is not in the list.
    """
    if lists.shape[1] == 0:
        return np.full(len(targets), -1, dtype=np.int64)
    found = lists == targets[:, None]
    return np.where(found.any(axis=1), found.argmax(axis=1), -1).astype(np.int64)


def hit_rate(ranks: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """HR@k of each user, (U,) float64: 1 where the item stands among the first k, else 0."""
    return _hits(ranks, k).astype(np.float64)


def ndcg(ranks: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """NDCG@k of each user, (U,) float64: 1 / log2(rank + 2) where the item stands among the first k, else 0.

    With one relevant item the ideal DCG is 1 (Järvelin and Kekäläinen 2002, equation 3 with base 2).
    """
    return np.where(_hits(ranks, k), 1.0 / np.log2(np.maximum(ranks, 0) + 2.0), 0.0)


def bootstrap_mean(values: NDArray[np.float64], *, samples: int, seed: int) -> Interval:
    """Mean of `values` (U,) with its 95% percentile bootstrap interval over users.

    Raises:
        ValueError: no values, or no samples.
    """
    return bootstrap_means(values[:, None], samples=samples, seed=seed)[0]


def bootstrap_means(values: NDArray[np.float64], *, samples: int, seed: int) -> list[Interval]:
    """The mean of every column of `values` (U, M) with its interval; all columns share the same draws of users.

    A draw is stored as how often it contains each user, so a draw costs one matrix product instead of M bootstraps.

    Raises:
        ValueError: no values, or no samples.
    """
    num_users = len(values)
    if num_users == 0 or samples < 1:
        raise ValueError(f"a bootstrap needs values and samples, got {num_users} and {samples}")
    rng = np.random.default_rng(seed)
    means = np.empty((samples, values.shape[1]))
    for sample in range(samples):
        times = np.bincount(rng.integers(num_users, size=num_users), minlength=num_users)
        means[sample] = times @ values / num_users
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [Interval(*map(float, column)) for column in zip(values.mean(axis=0), low, high, strict=True)]


def bootstrap_by_user(values: NDArray[np.float64], users: NDArray[np.int64], *, samples: int, seed: int) -> Interval:
    """Mean of one value per event with its 95% percentile bootstrap interval; users are drawn, with all their events.

    Events of one user are alike, so an interval over single events would be too narrow.

    Args:
        values: (E,) of each event.
        users: (E,) whose event it is; any numbers.
        samples: draws.
        seed: of the draws.

    Raises:
        ValueError: no values, or no samples.
    """
    if len(values) == 0 or samples < 1:
        raise ValueError(f"a bootstrap needs values and samples, got {len(values)} and {samples}")
    _, rows = np.unique(users, return_inverse=True)
    sums, counts = np.bincount(rows, weights=values), np.bincount(rows)
    rng = np.random.default_rng(seed)
    means = np.empty(samples)
    for sample in range(samples):
        times = np.bincount(rng.integers(len(sums), size=len(sums)), minlength=len(sums))
        means[sample] = times @ sums / (times @ counts)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def bootstrap_difference(
    values: NDArray[np.float64], baseline: NDArray[np.float64], *, samples: int, seed: int
) -> Interval:
    """Mean of `values − baseline` with its 95% interval; both (U,), user by user, so the pairing is kept."""
    if values.shape != baseline.shape:
        raise ValueError(f"paired values have shapes {values.shape} and {baseline.shape}")
    return bootstrap_mean(values - baseline, samples=samples, seed=seed)


def _hits(ranks: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    if k < 1:
        raise ValueError(f"k is {k}, it must be at least 1")
    return (ranks >= 0) & (ranks < k)
