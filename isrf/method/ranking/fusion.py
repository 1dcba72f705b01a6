"""Log-linear fusion of the learned paths and the evidence channels.

score(item) = Σ over channels of weight · log(p(item) + ε). In the generative channel an item that no beam reached
counts as the lowest beam − δ. It knows nothing of graphs or bundles: probabilities in, order out.
`isrf.method.ranking.fusion_fit` fits the weights. `isrf.method.ranking.ranker` orders the same candidates with a
learned ranker.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from isrf.contract.manifest import FusionWeights
from isrf.method.evidence import ITEM_CHANNELS, Evidence
from isrf.method.interest import BoolArray, FloatArray, IntArray

LEARNED_CHANNELS = ("generative", "dense", "explicit")
EVIDENCE_CHANNELS = ("group", "transition", "cooccurrence", "content", "popular")
CHANNELS = (*LEARNED_CHANNELS, *EVIDENCE_CHANNELS)
_IS_EVIDENCE = np.array([name in EVIDENCE_CHANNELS for name in CHANNELS])

NO_BEAM = -np.inf
_EPSILON = 1e-3
DEFAULT_FUSION = FusionWeights(
    weights={
        "generative": 0.25,
        "dense": 1.0,
        "explicit": 0.5,
        "group": 0.75,
        "transition": 1.5,
        "cooccurrence": 0.5,
        "content": 1.0,
        "popular": 0.25,
    },
    epsilons=dict.fromkeys(EVIDENCE_CHANNELS, _EPSILON),
    beam_gap=1.0,
)
"""The weights where there are no others; fitting starts from them."""

_Matrix: TypeAlias = NDArray[np.float32]


class Candidates(NamedTuple):
    """One request's candidates and each channel's value for them, before fusion.

    `values` holds log-probabilities in the learned columns (generative: −inf where no beam reached the item) and plain
    probabilities in the evidence columns.
    """

    items: IntArray  # (c,)
    values: _Matrix  # (c, len(CHANNELS)) float32
    last_item: _Matrix  # (c, len(ITEM_CHANNELS)) float32: the item channels' values from the history's last item alone
    beams_only: BoolArray  # (c,) whether only the beam search found the candidate
    takers: FloatArray  # (c,) float32 users who took each candidate
    history_length: int
    last_takers: float  # users who took the history's last item

    def without_beams(self) -> "Candidates":
        """The candidates that there would be without the generative path."""
        others = ~self.beams_only
        values = self.values[others]
        values[:, 0] = NO_BEAM
        return self._replace(
            items=self.items[others],
            values=values,
            last_item=self.last_item[others],
            beams_only=self.beams_only[others],
            takers=self.takers[others],
        )


def gather(
    items: IntArray,
    beams: tuple[IntArray, FloatArray],
    *,
    dense: FloatArray,
    explicit: FloatArray,
    evidence: Mapping[str, Evidence],
    popular: FloatArray | None,
    last_item: Mapping[str, Evidence],
    beams_only: BoolArray,
    takers: FloatArray,
    history_length: int,
    last_takers: float,
) -> Candidates:
    """Collects every channel's value for each candidate item.

    Args:
        items: (c,) candidate rows, ascending and distinct.
        beams: item rows (K,), −1 where dead, and their log-probabilities.
        dense: (c,) the dense path's log-probability of every candidate.
        explicit: (c,) the interaction graph's log-probability of every candidate, given the explicit vector.
        evidence: the distribution of each evidence channel.
        popular: (c,) every candidate's share of recent events, which the distribution names for few; None: unknown.
        last_item: the distribution of each item channel from the history's last item alone.
        beams_only: (c,) whether only the beam search found the candidate.
        takers: (c,) users who took each candidate.
        history_length: number of items in the history.
        last_takers: users who took its last item.
    """
    values = np.zeros((len(items), len(CHANNELS)), dtype=np.float32)
    values[:, 0] = NO_BEAM
    alive = beams[0] >= 0
    place, found = _find(items, beams[0][alive])
    values[place[found], 0] = beams[1][alive][found]
    values[:, 1] = dense
    values[:, 2] = explicit
    for column, name in enumerate(EVIDENCE_CHANNELS, start=len(LEARNED_CHANNELS)):
        _place(evidence[name], items, values[:, column])
    if popular is not None:
        values[:, CHANNELS.index("popular")] = popular
    last = np.zeros((len(items), len(ITEM_CHANNELS)), dtype=np.float32)
    for column, name in enumerate(ITEM_CHANNELS):
        _place(last_item[name], items, last[:, column])
    return Candidates(items, values, last, beams_only, takers, history_length, last_takers)


def _place(evidence: Evidence, items: IntArray, column: NDArray[np.float32]) -> None:
    """Writes a distribution into its column (c,) of the candidates' values."""
    place, found = _find(items, evidence.items)
    column[place[found]] = evidence.probability[found]


def _find(haystack: IntArray, needles: IntArray) -> tuple[IntArray, NDArray[np.bool_]]:
    if not len(haystack):
        return np.zeros(len(needles), np.int64), np.zeros(len(needles), np.bool_)
    place = np.minimum(np.searchsorted(haystack, needles), len(haystack) - 1)
    return place, haystack[place] == needles


def channel_logs(values: _Matrix, fusion: FusionWeights) -> _Matrix:
    """Logarithms of candidate values, (c, channels) → (c, channels), with floors for missing values."""
    return np.stack(
        [channel_log(channel, values[:, channel], floor) for channel, floor in enumerate(floors(fusion))], axis=1
    )


def floors(fusion: FusionWeights) -> tuple[float, ...]:
    """Each channel's floor, which keeps its logarithm finite: δ for generative, ε for each evidence channel.

    The dense and explicit channels have a value for every item; their floor is 0 and not used.
    """
    return (fusion.beam_gap, 0.0, 0.0, *(fusion.epsilons.get(name, _EPSILON) for name in EVIDENCE_CHANNELS))


def channel_log(channel: int, values: _Matrix, floor: float) -> _Matrix:
    """Logarithms of one channel's values, (…, c) → (…, c)."""
    if CHANNELS[channel] in ("dense", "explicit"):
        return values
    if CHANNELS[channel] in EVIDENCE_CHANNELS:
        logs: _Matrix = np.log(values + np.float32(floor))
        return logs
    reached = np.isfinite(values)
    lowest = np.min(values, axis=-1, keepdims=True, where=reached, initial=np.inf)
    unreached = np.where(np.isfinite(lowest), lowest, np.float32(0)) - np.float32(floor)
    return np.where(reached, values, unreached).astype(np.float32)


class Fused(NamedTuple):
    """Candidates in order, best first (ties: lower row)."""

    items: IntArray  # (c,)
    scores: FloatArray  # (c,)
    contributions: _Matrix  # (e, len(CHANNELS)) for the first e items: how much each channel adds to the score,
    # compared with the channel's mean over the candidates
    sources: list[str]  # (e,) the channel that adds most
    sources_at: Callable[[IntArray], list[str]]  # the same for the items at any positions


class Weighed(NamedTuple):
    """One request's log-linear scores, before ordering."""

    logs: _Matrix  # (c, len(CHANNELS))
    weights: NDArray[np.float32]  # (len(CHANNELS),)
    scores: FloatArray  # (c,)
    order: IntArray  # (c,) positions of the candidates, best first
    average: _Matrix  # (1, len(CHANNELS)) mean of the logs

    def contributions(self, places: IntArray) -> _Matrix:
        """(e, channels): weighted logs of the candidates at `places` (e,), minus the channel's mean over all."""
        lifted: _Matrix = (self.logs[places] - self.average) * self.weights
        return lifted


def weigh(candidates: Candidates, fusion: FusionWeights, boost: FloatArray | None = None) -> Weighed:
    """Scores one request's candidates by the log-linear fusion.

    Args:
        boost: (N,) what is added to each item's score; None for nothing.
    """
    logs = channel_logs(candidates.values, fusion)
    weights = np.array([fusion.weights.get(name, 0.0) for name in CHANNELS], dtype=np.float32)
    scores = logs @ weights
    if boost is not None:
        scores += boost[candidates.items]
    average = logs.mean(axis=0, keepdims=True) if len(logs) else np.zeros((1, len(CHANNELS)), dtype=np.float32)
    return Weighed(logs, weights, scores, np.lexsort((candidates.items, -scores)), average)


def fuse(
    candidates: Candidates, fusion: FusionWeights, *, explained: int | None = None, boost: FloatArray | None = None
) -> Fused:
    """Scores and orders one request's candidates.

    Args:
        candidates: the candidates of one request.
        fusion: the weights.
        explained: for how many of the first items to compute each channel's contribution; None: all.
        boost: (N,) what is added to each item's score before they are ordered; None for nothing.
    """
    weighed = weigh(candidates, fusion, boost)
    order, used = weighed.order, weighed.weights > 0

    def explain(places: IntArray) -> tuple[_Matrix, list[str]]:
        contributions = weighed.contributions(places)
        return contributions, sources_of(contributions, candidates.values[places], used)

    contributions, sources = explain(order[:explained])
    return Fused(
        candidates.items[order],
        weighed.scores[order],
        contributions,
        sources,
        lambda positions: explain(order[positions])[1],
    )


def boosted(items: IntArray, scores: FloatArray, boost: FloatArray) -> tuple[FloatArray, IntArray]:
    """Returns scores (c,) with their boosts (N,), and the positions of the items (c,), best first (ties: lower row)."""
    raised: FloatArray = scores + boost[items]
    return raised, np.lexsort((items, -raised))


def sources_of(contributions: _Matrix, values: _Matrix, used: BoolArray) -> list[str]:
    """The channel that adds most to each item, of those that are used and have a value for it.

    An item for which no used channel has a value is the dense path's, or where that is not used, popularity's.

    Args:
        contributions: (e, len(CHANNELS)).
        values: (e, len(CHANNELS)) as `Candidates.values`.
        used: (len(CHANNELS),) channels that can add something.
    """
    if not len(contributions):
        return []
    present = used & np.where(_IS_EVIDENCE, values > 0, np.isfinite(values))
    best = np.where(present, contributions, -np.inf).argmax(axis=1)
    dense = CHANNELS.index("dense")
    best[~present.any(axis=1)] = dense if used[dense] else CHANNELS.index("popular")
    return [CHANNELS[c] for c in best]


def channel_order(candidates: Candidates, channel: int) -> IntArray:
    """One channel's own list: the item rows that it has a value for, best first (ties: lower row)."""
    values = candidates.values[:, channel]
    present = np.isfinite(values) if channel < len(LEARNED_CHANNELS) else values > 0
    items, values = candidates.items[present], values[present]
    return items[np.lexsort((items, -values))]
