"""Fits fusion weights on validation users: maximises the likelihood of the held-out item among a request's candidates.

For given logs of the channels, a request's scores are linear in the weights. With a softmax over the scores this is a
conditional logit (McFadden 1974). It is concave, so there is one best set of weights, whatever the start. Newton's
method finds it in a few passes over the candidates. The floors (ε, δ) are chosen from a grid, on a part of the users.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from isrf.contract.manifest import FusionWeights
from isrf.method.interest import BoolArray, FloatArray, IntArray
from isrf.method.metrics import ndcg
from isrf.method.ranking.fusion import CHANNELS, EVIDENCE_CHANNELS, NO_BEAM, Candidates, channel_log, floors

EPSILON_GRID: tuple[float, ...] = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
BEAM_GAPS: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
USERS_FOR_FLOORS = 4000
"""Floors matter little, so a part of the users is enough to choose them."""
PRIOR = 1.0
"""Strength of the prior that pulls the weights towards the start; one user's likelihood has strength 1. It decides
where the users do not."""
DIGITS = 4
"""Decimals of a weight. Further digits are noise, and depend on the order of summation."""

_STEPS = 20
_SMALL_STEP = 1e-4
_CHUNK = 256

_Matrix: TypeAlias = NDArray[np.float64]


class Choice(NamedTuple):
    fusion: FusionWeights
    ndcg_at_10: float  # on the sample that it was chosen on


def choose_weights(
    candidates: Sequence[Candidates],
    targets: IntArray,
    *,
    start: FusionWeights,
    without: Collection[str] = (),
    without_beams: bool = False,
) -> Choice:
    """Chooses the channels' weights, none of them negative, and their floors.

    In a small shop every channel may mislead. All weights would be 0 then and nothing would decide the order, so the
    weights of `start` stay.

    Args:
        candidates: one per validation user.
        targets: (R,) the held-out item rows; a user whose target is no candidate has no influence, and is a miss.
        start: the weights to start from, and the centre of the prior.
        without: channels whose weight is 0, whatever `start` says.
        without_beams: leaves out candidates that only the beam search found (`Candidates.without_beams`).
    """
    table = _Table.of(candidates, targets, without_beams=without_beams)
    free = [channel for channel, name in enumerate(CHANNELS) if name not in without]
    fusion = start.model_copy(update={"weights": start.weights | dict.fromkeys(without, 0.0)})
    if len(table.places):
        fusion = _with_floors(table.rows(slice(None, None, -(-len(table.places) // USERS_FOR_FLOORS))), fusion, free)
        fitted = _Fit(table, fusion, free).best()
        fusion = fitted if any(fitted.weights.values()) else fusion
    return Choice(fusion, table.ndcg(fusion, len(candidates)))


class _Table(NamedTuple):
    """The channels' values for the candidates of n users whose held-out item is a candidate, padded to width w."""

    values: FloatArray  # (n, w, channels) float32
    absent: BoolArray  # (n, w) no candidate there
    places: IntArray  # (n,) of the held-out item

    @classmethod
    def of(cls, candidates: Sequence[Candidates], targets: IntArray, *, without_beams: bool) -> "_Table":
        usable = []
        for request, target in zip(candidates, targets.tolist(), strict=True):
            hit = np.flatnonzero((request.items == target) & ~(request.beams_only & without_beams))
            if len(hit):
                usable.append((request, int(hit[0])))
        width = max((len(request.items) for request, _ in usable), default=0)
        values = np.zeros((len(usable), width, len(CHANNELS)), dtype=np.float32)
        values[:, :, 0] = NO_BEAM
        absent = np.ones((len(usable), width), dtype=np.bool_)
        for row, (request, _) in enumerate(usable):
            values[row, : len(request.items)] = request.values
            absent[row, : len(request.items)] = request.beams_only & without_beams
        return cls(values, absent, np.array([place for _, place in usable], dtype=np.int64))

    def rows(self, which: slice) -> "_Table":
        return _Table(self.values[which], self.absent[which], self.places[which])

    def ndcg(self, fusion: FusionWeights, num_users: int) -> float:
        """NDCG@10 over all users; of equal scores the earlier candidate counts as better."""
        if not num_users:
            return 0.0
        ranks = np.full(num_users, -1, dtype=np.int64)
        weights = np.array([fusion.weights.get(name, 0.0) for name in CHANNELS], dtype=np.float32)
        for part in _chunks(len(self.places)):
            chunk = self.rows(part)
            scores = np.where(chunk.absent, -np.inf, chunk.logs(fusion) @ weights)
            target = np.take_along_axis(scores, chunk.places[:, None], axis=1)
            before = np.arange(scores.shape[1]) < chunk.places[:, None]
            better = ((scores > target) | ((scores == target) & before)).sum(axis=1)
            ranks[part.start : part.start + len(better)] = better
        return float(ndcg(ranks, 10).mean())

    def logs(self, fusion: FusionWeights) -> FloatArray:
        """(n, w, channels) float32: logarithms of the values, with floors for missing values."""
        columns = [channel_log(c, self.values[:, :, c], floor) for c, floor in enumerate(floors(fusion))]
        return np.stack(columns, axis=2)


class _Fit:
    """Newton's method over the weights of `free` channels."""

    def __init__(
        self, table: _Table, fusion: FusionWeights, free: list[int], *, logs: FloatArray | None = None
    ) -> None:
        """`logs` (n, w, f): the free channels' logs with the fusion's floors; computed where not passed."""
        self._table, self._fusion, self._free = table, fusion, free
        self._logs = table.logs(fusion)[:, :, free] if logs is None else logs
        self._start = np.array([fusion.weights.get(CHANNELS[channel], 0.0) for channel in free], dtype=np.float64)
        self.weights: _Matrix = self._start.copy()
        self.loss = np.inf  # of the best weights, mean over users

    def with_floor(self, channel: int, fusion: FusionWeights) -> "_Fit":
        """The same fit with another floor of one channel, starting from this fit's weights."""
        logs = self._logs.copy()
        column = channel_log(channel, self._table.values[:, :, channel], floors(fusion)[channel])
        logs[:, :, self._free.index(channel)] = column
        changed = _Fit(self._table, fusion, self._free, logs=logs)
        changed.weights = self.weights.copy()
        return changed

    def best(self) -> FusionWeights:
        """The fusion with the weights of the highest likelihood."""
        self.solve()
        found = {CHANNELS[c]: round(float(w), DIGITS) for c, w in zip(self._free, self.weights, strict=True)}
        return self._fusion.model_copy(update={"weights": self._fusion.weights | found})

    def solve(self) -> float:
        """Finds the best weights and returns their loss."""
        self.loss, slope, curve = self._at(self.weights)
        for _ in range(_STEPS):
            # A weight of 0 that would become negative stays at 0.
            moving = (self.weights > 0) | (slope < 0)
            if not moving.any():
                break
            step = np.zeros_like(self.weights)
            step[moving] = np.linalg.solve(curve[np.ix_(moving, moving)], -slope[moving])
            for share in (1.0, 0.5, 0.25, 0.125, 0.0625):
                new_weights = np.maximum(self.weights + share * step, 0.0)
                loss, new_slope, new_curve = self._at(new_weights)
                if loss <= self.loss:
                    break
            else:
                break
            change = np.abs(new_weights - self.weights).max()
            self.weights, self.loss, slope, curve = new_weights, loss, new_slope, new_curve
            if change < _SMALL_STEP:
                break
        return self.loss

    def _at(self, weights: _Matrix) -> tuple[float, _Matrix, _Matrix]:
        """Loss, gradient (f,) and Hessian (f, f) with the prior, divided by the number of users."""
        count, offset = len(self._table.places), weights - self._start
        loss = PRIOR * float(offset @ offset) / 2
        slope, curve = PRIOR * offset, PRIOR * np.eye(len(weights))
        for part in _chunks(count):
            logs, places = self._logs[part], self._table.places[part, None]
            scores = np.where(self._table.absent[part], -np.inf, logs @ weights.astype(np.float32))
            scores -= scores.max(axis=1, keepdims=True)
            share = np.exp(scores)
            total = share.sum(axis=1, keepdims=True)
            share /= total
            observed = np.take_along_axis(logs, places[:, :, None], axis=1)[:, 0]
            expected = (share[:, None] @ logs)[:, 0].astype(np.float64)  # (b, f)
            loss += float(np.log(total).sum() - np.take_along_axis(scores, places, axis=1).sum())
            slope += (expected - observed).sum(axis=0)
            flat = logs.reshape(-1, logs.shape[2])
            curve += (flat * share.reshape(-1, 1)).T @ flat - expected.T @ expected
        return loss / count, slope / count, curve / count


def _with_floors(table: _Table, fusion: FusionWeights, free: list[int]) -> FusionWeights:
    """The fusion with the floors of the highest likelihood, chosen one channel after the other."""
    best = _Fit(table, fusion, free)
    best.solve()
    for channel, choices in _floor_choices(free):
        for field, value in choices:
            changed = value if field == "beam_gap" else {**fusion.epsilons, CHANNELS[channel]: value}
            trial_fusion = fusion.model_copy(update={field: changed})
            trial = best.with_floor(channel, trial_fusion)
            if trial.solve() < best.loss - 1e-5:
                best, fusion = trial, trial_fusion
    return fusion


def _floor_choices(free: list[int]) -> Iterator[tuple[int, list[tuple[str, float]]]]:
    for channel in free:
        name = CHANNELS[channel]
        if name == "generative":
            yield channel, [("beam_gap", gap) for gap in BEAM_GAPS]
        elif name in EVIDENCE_CHANNELS:
            yield channel, [("epsilons", epsilon) for epsilon in EPSILON_GRID]


def _chunks(count: int) -> Iterator[slice]:
    return (slice(first, first + _CHUNK) for first in range(0, count, _CHUNK))
