"""Fits fusion weights on validation users: the likelihood of the held-out item among its request's candidates.

With the logs of the channels given, a request's scores are linear in the weights, and a softmax over them makes this a
conditional logit (McFadden 1974): concave, so there is one best set of weights, wherever one starts. It is found by
Newton's method, in passes over the candidates. What a channel's floor is (ε, δ) is tried out on a part of the users.
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
"""Floors matter little: some of the users say enough of them."""
PRIOR = 1.0
"""How much the weights that one starts from count, against one user's likelihood each: it decides where nobody does."""
DIGITS = 4
"""Of a weight; what is less is noise, and sums in another order."""

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
    """Weights, none of them negative, and floors of the channels.

    Where every channel misleads, as it can in a small shop, all weights would be 0 and nothing would decide an order:
    those of `start` stay.

    Args:
        candidates: one per validation user.
        targets: (R,) the held-out item rows; a user whose target is no candidate says nothing, and is a miss.
        start: the weights where users say nothing.
        without: channels whose weight is 0, whatever `start` says.
        without_beams: candidates that only a beam brought do not count (`Candidates.without_beams`).
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
    """What the channels say of the candidates of n users whose held-out item is among them, padded to w."""

    values: FloatArray  # (n, w, channels) float32
    absent: BoolArray  # (n, w) no candidate there
    places: IntArray  # (n,) of the held-out item

    @classmethod
    def of(cls, candidates: Sequence[Candidates], targets: IntArray, *, without_beams: bool) -> "_Table":
        kept = []
        for one, target in zip(candidates, targets.tolist(), strict=True):
            hit = np.flatnonzero((one.items == target) & ~(one.beams_only & without_beams))
            if len(hit):
                kept.append((one, int(hit[0])))
        width = max((len(one.items) for one, _ in kept), default=0)
        values = np.zeros((len(kept), width, len(CHANNELS)), dtype=np.float32)
        values[:, :, 0] = NO_BEAM
        absent = np.ones((len(kept), width), dtype=np.bool_)
        for row, (one, _) in enumerate(kept):
            values[row, : len(one.items)] = one.values
            absent[row, : len(one.items)] = one.beams_only & without_beams
        return cls(values, absent, np.array([place for _, place in kept], dtype=np.int64))

    def rows(self, which: slice) -> "_Table":
        return _Table(self.values[which], self.absent[which], self.places[which])

    def ndcg(self, fusion: FusionWeights, num_users: int) -> float:
        """NDCG@10 over all users; of equal scores the one that stands first counts as better."""
        if not num_users:
            return 0.0
        ranks = np.full(num_users, -1, dtype=np.int64)
        weights = np.array([fusion.weights[name] for name in CHANNELS], dtype=np.float32)
        for part in _chunks(len(self.places)):
            own = self.rows(part)
            scores = np.where(own.absent, -np.inf, own.logs(fusion) @ weights)
            target = np.take_along_axis(scores, own.places[:, None], axis=1)
            before = np.arange(scores.shape[1]) < own.places[:, None]
            better = ((scores > target) | ((scores == target) & before)).sum(axis=1)
            ranks[part.start : part.start + len(better)] = better
        return float(ndcg(ranks, 10).mean())

    def logs(self, fusion: FusionWeights) -> FloatArray:
        """(n, w, channels) float32, floors filled in."""
        columns = [channel_log(c, self.values[:, :, c], floor) for c, floor in enumerate(floors(fusion))]
        return np.stack(columns, axis=2)


class _Fit:
    """Newton's method over the weights of `free` channels."""

    def __init__(
        self, table: _Table, fusion: FusionWeights, free: list[int], *, logs: FloatArray | None = None
    ) -> None:
        """`logs` (n, w, f) are the free channels' with the fusion's floors, where somebody has them already."""
        self._table, self._fusion, self._free = table, fusion, free
        self._logs = table.logs(fusion)[:, :, free] if logs is None else logs
        self._start = np.array([fusion.weights[CHANNELS[channel]] for channel in free], dtype=np.float64)
        self.weights: _Matrix = self._start.copy()
        self.loss = np.inf  # of the best weights, mean over users

    def with_floor(self, channel: int, fusion: FusionWeights) -> "_Fit":
        """The same with another floor of one channel, from the best weights of this one."""
        logs = self._logs.copy()
        column = channel_log(channel, self._table.values[:, :, channel], floors(fusion)[channel])
        logs[:, :, self._free.index(channel)] = column
        changed = _Fit(self._table, fusion, self._free, logs=logs)
        changed.weights = self.weights.copy()
        return changed

    def best(self) -> FusionWeights:
        """The fusion with the weights of the greatest likelihood."""
        self.solve()
        found = {CHANNELS[c]: round(float(w), DIGITS) for c, w in zip(self._free, self.weights, strict=True)}
        return self._fusion.model_copy(update={"weights": self._fusion.weights | found})

    def solve(self) -> float:
        """Goes to the best weights; their loss."""
        self.loss, slope, curve = self._at(self.weights)
        for _ in range(_STEPS):
            # A weight at 0 that would fall stays there.
            moving = (self.weights > 0) | (slope < 0)
            if not moving.any():
                break
            step = np.zeros_like(self.weights)
            step[moving] = np.linalg.solve(curve[np.ix_(moving, moving)], -slope[moving])
            for share in (1.0, 0.5, 0.25, 0.125, 0.0625):
                tried = np.maximum(self.weights + share * step, 0.0)
                loss, its_slope, its_curve = self._at(tried)
                if loss <= self.loss:
                    break
            else:
                break
            moved = np.abs(tried - self.weights).max()
            self.weights, self.loss, slope, curve = tried, loss, its_slope, its_curve
            if moved < _SMALL_STEP:
                break
        return self.loss

    def _at(self, weights: _Matrix) -> tuple[float, _Matrix, _Matrix]:
        """Loss, gradient (f,) and Hessian (f, f): means over users, the prior among them."""
        count, apart = len(self._table.places), weights - self._start
        loss = PRIOR * float(apart @ apart) / 2
        slope, curve = PRIOR * apart, PRIOR * np.eye(len(weights))
        for part in _chunks(count):
            logs, places = self._logs[part], self._table.places[part, None]
            scores = np.where(self._table.absent[part], -np.inf, logs @ weights.astype(np.float32))
            scores -= scores.max(axis=1, keepdims=True)
            share = np.exp(scores)
            total = share.sum(axis=1, keepdims=True)
            share /= total
            own = np.take_along_axis(logs, places[:, :, None], axis=1)[:, 0]
            expected = (share[:, None] @ logs)[:, 0].astype(np.float64)  # (b, f)
            loss += float(np.log(total).sum() - np.take_along_axis(scores, places, axis=1).sum())
            slope += (expected - own).sum(axis=0)
            flat = logs.reshape(-1, logs.shape[2])
            curve += (flat * share.reshape(-1, 1)).T @ flat - expected.T @ expected
        return loss / count, slope / count, curve / count


def _with_floors(table: _Table, fusion: FusionWeights, free: list[int]) -> FusionWeights:
    """The fusion with the floors of the greatest likelihood, one channel after the other."""
    best = _Fit(table, fusion, free)
    best.solve()
    for channel, tries in _floor_choices(free):
        for field, value in tries:
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
