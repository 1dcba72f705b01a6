"""Fits the learned ranker on validation users, and decides by cross-validation whether it is served.

It is served if the 95% interval of its gain over log-linear fusion lies above zero. The gain is paired by user, on
users that the ranker was not fitted on. In a small shop a ranker rarely wins.
"""

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.contract.manifest import FusionWeights
from isrf.method.interest import FloatArray, IntArray
from isrf.method.metrics import bootstrap_difference, ndcg
from isrf.method.ranking.fusion import Candidates
from isrf.method.ranking.ranker import CONTEXT, FEATURES, TOP, Ranker, read_inputs
from isrf.nn.ranker import RankerSamples, fit

FOLDS = 4
MEASURED_FOLDS = 2
"""Measuring the gain on half of the users is enough and takes half of the time."""
MIN_SAMPLES = 100
"""Fewest users with the held-out item among the first candidates; with fewer no ranker is fitted."""
CUTOFF = 10
_CHUNK = 512


class Collected(NamedTuple):
    samples: RankerSamples
    users: IntArray  # (S,) rows of the samples' users, ascending
    num_users: int  # number of all users, with and without a sample


def collect(
    candidates: Iterable[Candidates],
    targets: IntArray,
    *,
    fusion: FusionWeights,
    without: Collection[str],
) -> Collected:
    """Collects the ranker's inputs for every user whose held-out item is among the first candidates.

    Args:
        candidates: one per user.
        targets: (R,) their held-out item rows.
        fusion: the weights of the log-linear score.
        without: channels that the ranker must not read.
    """
    users, places, base, features, context = [], [], [], [], []
    for user, (request, target) in enumerate(zip(candidates, targets.tolist(), strict=True)):
        if target not in request.items:
            continue
        inputs = read_inputs(request, fusion, without=without)
        top = inputs.weighed.order[:TOP]
        hit = np.flatnonzero(request.items[top] == target)
        if len(hit):
            users.append(user)
            places.append(int(hit[0]))
            base.append(inputs.weighed.scores[top])
            features.append(inputs.features[top])
            context.append(inputs.context)
    counts = np.array([len(scores) for scores in base], dtype=np.int64)
    samples = RankerSamples(
        np.zeros((len(users), TOP), np.float32),
        np.zeros((len(users), TOP, len(FEATURES)), np.float32),
        np.array(context, dtype=np.float32).reshape(-1, len(CONTEXT)),
        counts,
        np.array(places, dtype=np.int64),
    )
    for row, count in enumerate(counts.tolist()):
        samples.base[row, :count] = base[row]
        samples.features[row, :count] = features[row]
    return Collected(samples, np.array(users, dtype=np.int64), len(targets))


def choose_ranker(
    collected: Collected, *, without: Collection[str], seed: int, bootstrap_samples: int
) -> tuple[Ranker | None, dict[str, Any]]:
    """The ranker fitted on all samples if it won in cross-validation, else None; and the figures of that decision."""
    samples, users = collected.samples, collected.users
    if len(users) < MIN_SAMPLES:
        return None, {"served": False, "reason": f"fewer than {MIN_SAMPLES} held-out items among the first {TOP}"}
    fold_of = np.random.default_rng(seed).permutation(collected.num_users) % FOLDS
    with_ranker, fused = np.zeros(collected.num_users), np.zeros(collected.num_users)
    fused[users] = _ndcg(samples.base, samples)
    for fold in range(MEASURED_FOLDS):
        tested = np.flatnonzero(fold_of[users] == fold)
        others = np.flatnonzero(fold_of[users] != fold)
        ranker = Ranker.of(fit(samples.rows(others), seed=seed), without=without, validation={})
        part = samples.rows(tested)
        with_ranker[users[tested]] = _ndcg(_scores(ranker, part), part)
    measured = fold_of < MEASURED_FOLDS
    gain = bootstrap_difference(with_ranker[measured], fused[measured], samples=bootstrap_samples, seed=seed)
    figures: dict[str, Any] = {
        "users": int(measured.sum()),
        "NDCG@10": round(float(with_ranker[measured].mean()), 5),
        "NDCG@10_log_linear": round(float(fused[measured].mean()), 5),
        "gain": round(gain.mean, 5),
        "gain_95": [round(gain.low, 5), round(gain.high, 5)],
    }
    if gain.low <= 0:
        return None, {"served": False, **figures}
    return Ranker.of(fit(samples, seed=seed), without=without, validation=figures), {"served": True, **figures}


def _scores(ranker: Ranker, samples: RankerSamples) -> FloatArray:
    """The ranker's scores (S, TOP), computed for a few requests at a time."""
    parts = [
        ranker.scores(*(column[start : start + _CHUNK] for column in samples[:3]))
        for start in range(0, len(samples.places), _CHUNK)
    ]
    return np.concatenate(parts) if parts else samples.base


def _ndcg(scores: FloatArray, samples: RankerSamples) -> NDArray[np.float64]:
    """NDCG@10 of every sample (S,); ties go to the candidate with the better base score."""
    scores = np.where(samples.real(), scores, -np.inf)
    target_scores = np.take_along_axis(scores, samples.places[:, None], axis=1)
    before = np.arange(scores.shape[1]) < samples.places[:, None]
    return ndcg(((scores > target_scores) | ((scores == target_scores) & before)).sum(axis=1), CUTOFF)
