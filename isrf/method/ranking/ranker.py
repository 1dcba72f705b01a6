"""A learned ranker over the fused candidates. Unlike log-linear weights it can combine channels with each other.

score = a · base + MLP(features of the candidate, context of the request), where `base` is the log-linear score. The
ranker reorders the first `TOP` candidates by `base`; the others follow them. `read_inputs` makes the inputs for fitting
and for serving. NumPy only: `isrf.nn.ranker` fits the ranker, `offline.stages.evaluate.ranker` decides on its use.
"""

import base64
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from isrf.contract.errors import BundleError
from isrf.contract.manifest import RANKER_FILE, FusionWeights, Manifest, RankerSpec, StoredRanker
from isrf.method.evidence import ITEM_CHANNELS
from isrf.method.interest import FloatArray, IntArray
from isrf.method.ranking.fusion import (
    CHANNELS,
    EVIDENCE_CHANNELS,
    LEARNED_CHANNELS,
    Candidates,
    Fused,
    Weighed,
    boosted,
    sources_of,
    weigh,
)

TOP = 150
HIDDEN = 32
FEATURES = (
    *(f"log {name}" for name in CHANNELS),
    "beam",
    *(f"any {name}" for name in EVIDENCE_CHANNELS),
    "popularity",
    *(f"last {name}" for name in ITEM_CHANNELS),
)
CONTEXT = ("length", "last popularity", "best dense", *(f"best {name}" for name in EVIDENCE_CHANNELS))

_EVIDENCE_FLOOR = np.float32(1e-5)
_LAST_FLOOR = np.float32(1e-4)
_BEST_FLOOR = np.float32(1e-3)
_MIN_DEVIATION = 1e-3  # below this standard deviation a column counts as constant

_Matrix: TypeAlias = NDArray[np.float32]


def _names_of(channel: str) -> tuple[str, ...]:
    names = (f"log {channel}", f"any {channel}", f"last {channel}")
    return (*names, "beam") if channel == "generative" else names


_COLUMNS = {c: [FEATURES.index(name) for name in _names_of(c) if name in FEATURES] for c in CHANNELS}
"""Columns of the features that come from each channel."""
_OF_CHANNEL = np.zeros((len(CHANNELS), len(FEATURES)), dtype=np.bool_)
for _row, _name in enumerate(CHANNELS):
    _OF_CHANNEL[_row, _COLUMNS[_name]] = True


class Inputs(NamedTuple):
    """What the ranker reads of one request."""

    weighed: Weighed
    features: _Matrix  # (c, len(FEATURES)), in the order of the candidates
    context: _Matrix  # (len(CONTEXT),)


def read_inputs(candidates: Candidates, fusion: FusionWeights, *, without: Collection[str] = ()) -> Inputs:
    """Features and context of one request with at least one candidate; columns of channels in `without` are 0."""
    weighed, learned = weigh(candidates, fusion), len(LEARNED_CHANNELS)
    evidence = candidates.values[:, learned:]
    best = np.log(evidence.max(axis=0) + _BEST_FLOOR)
    features = np.concatenate(
        [
            weighed.logs[:, :learned],
            np.log(evidence + _EVIDENCE_FLOOR),
            np.isfinite(candidates.values[:, :1]),
            evidence > 0,
            np.log1p(candidates.takers)[:, None],
            np.log(candidates.last_item + _LAST_FLOOR),
        ],
        axis=1,
        dtype=np.float32,
    )
    facts = [np.log(candidates.history_length), np.log1p(candidates.last_takers), candidates.values[:, 1].max()]
    context = np.array([*facts, *best], dtype=np.float32)
    for name in without:
        features[:, _COLUMNS[name]] = 0
        if f"best {name}" in CONTEXT:
            context[CONTEXT.index(f"best {name}")] = 0
    return Inputs(weighed, features, context)


class Scale(NamedTuple):
    """Mean and standard deviation of every column, for standardising inputs."""

    mean: _Matrix
    deviation: _Matrix

    @classmethod
    def of(cls, rows: _Matrix) -> "Scale":
        """The scale of rows (n, columns); a constant column gets the deviation 1."""
        deviation = rows.std(axis=0, dtype=np.float64)
        mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        return cls(mean, np.where(deviation < _MIN_DEVIATION, 1.0, deviation).astype(np.float32))

    def apply(self, rows: _Matrix) -> _Matrix:
        """The rows (..., columns), standardised."""
        return (rows - self.mean) / self.deviation


def gelu(x: _Matrix) -> _Matrix:
    """The GELU activation in its tanh form (Hendrycks and Gimpel 2016, section 2)."""
    inner = x * x
    inner *= x
    inner *= np.float32(0.044715)
    inner += x
    inner *= np.float32(np.sqrt(2 / np.pi))
    np.tanh(inner, out=inner)
    inner += 1
    inner *= x
    inner *= np.float32(0.5)
    return inner


def layout(hidden: int, features: int = len(FEATURES), context: int = len(CONTEXT)) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parts in `RANKER_FILE`, in their order; a layer's shape is (inputs, outputs).

    Args:
        hidden: width of the hidden layers.
        features: number of a candidate's features.
        context: number of the request's features.
    """
    return {
        "feature_mean": (features,),
        "feature_deviation": (features,),
        "context_mean": (context,),
        "context_deviation": (context,),
        "first": (features + context, hidden),
        "first_bias": (hidden,),
        "second": (hidden, hidden),
        "second_bias": (hidden,),
        "last": (hidden,),
        "last_bias": (1,),
        "base_weight": (1,),
    }


@dataclass(frozen=True)
class Ranker:
    """A fitted ranker; threads may share it."""

    spec: RankerSpec
    parts: Mapping[str, _Matrix]  # by the names of `layout`

    @cached_property
    def _columns(self) -> tuple[IntArray, IntArray]:
        """Where its features and its context stand in `FEATURES` and `CONTEXT`: an older ranker reads fewer."""
        features = [FEATURES.index(name) for name in self.spec.features]
        return np.array(features), np.array([CONTEXT.index(name) for name in self.spec.context])

    @classmethod
    def of(cls, parts: Mapping[str, _Matrix], *, without: Collection[str], validation: dict[str, Any]) -> "Ranker":
        """A ranker from its parts, named as in `layout`."""
        hidden = len(parts["first_bias"])
        spec = RankerSpec(
            features=FEATURES,
            context=CONTEXT,
            without=tuple(sorted(without)),
            top=TOP,
            hidden=hidden,
            num_values=sum(parts[name].size for name in layout(hidden)),
            validation=validation,
        )
        return cls(spec, parts)

    @classmethod
    def from_values(cls, spec: RankerSpec, values: NDArray[np.float32]) -> "Ranker":
        """A ranker from the numbers of `RANKER_FILE`.

        Raises:
            BundleError: `bundle.ranker`, this version has other inputs or layers, or nobody knows which inputs it has.
        """
        shapes = layout(spec.hidden, len(spec.features), len(spec.context))
        sizes = [int(np.prod(shape)) for shape in shapes.values()]
        mistake = _mistake_of_names(spec)
        if mistake is None and len(values) != sum(sizes):
            mistake = f"holds {len(values)} numbers, its inputs and layers have {sum(sizes)}"
        if mistake is None and not np.isfinite(values).all():
            mistake = "holds numbers that are not finite"
        if mistake is not None:
            raise BundleError(
                "bundle.ranker",
                f"{RANKER_FILE} {mistake}: this version cannot read it.",
                fix="Publish the release again with this version.",
            )
        pieces = np.split(values, np.cumsum(sizes)[:-1])
        return cls(spec, {name: piece.reshape(shapes[name]) for name, piece in zip(shapes, pieces, strict=True)})

    @classmethod
    def from_stored(cls, stored: StoredRanker) -> "Ranker":
        return cls.from_values(stored.spec, np.frombuffer(base64.b64decode(stored.values), dtype="<f4"))

    def values(self) -> NDArray[np.float32]:
        """All numbers in the order of `layout`."""
        return np.concatenate([self.parts[name].ravel() for name in layout(self.spec.hidden)], dtype=np.float32)

    def stored(self) -> StoredRanker:
        return StoredRanker(spec=self.spec, values=base64.b64encode(self.values().astype("<f4").tobytes()).decode())

    def scores(self, base: FloatArray, features: _Matrix, context: _Matrix) -> FloatArray:
        """(..., t) scores from base (..., t), features (..., t, F) and context (..., G), none of them standardised."""
        scores: FloatArray = self.parts["base_weight"] * base + self.learned(features, context)
        return scores

    def learned(self, features: _Matrix, context: _Matrix) -> FloatArray:
        """The MLP's part of `scores`, (..., t)."""
        part, (columns, context_columns) = self.parts, self._columns
        if (self.spec.features, self.spec.context) != (FEATURES, CONTEXT):
            features, context = features[..., columns], context[..., context_columns]
        first, count = part["first"], len(columns)
        shared = Scale(part["context_mean"], part["context_deviation"]).apply(context) @ first[count:]
        hidden = Scale(part["feature_mean"], part["feature_deviation"]).apply(features) @ first[:count]
        hidden += (shared + part["first_bias"])[..., None, :]
        second = gelu(hidden) @ part["second"]
        second += part["second_bias"]
        learned: FloatArray = gelu(second) @ part["last"] + part["last_bias"]
        return learned


def _mistake_of_names(spec: RankerSpec) -> str | None:
    """Why a ranker's inputs are not inputs of this version, each named once and in any order; None where they are."""
    for field, names, known in (
        ("features", spec.features, FEATURES),
        ("context", spec.context, CONTEXT),
        ("without", spec.without, CHANNELS),
    ):
        if not names and field != "without":
            return f"has no names in the manifest's ranker.{field}, so that nobody knows what its numbers belong to"
        for name in names:
            if name not in known:
                return f"needs {name[:80]!r} of the manifest's ranker.{field}, which this version does not have"
            if names.count(name) > 1:
                return f"has {name!r} twice in the manifest's ranker.{field}"
    return None


def ranker_of(manifest: Manifest, arrays: Mapping[str, NDArray[Any]]) -> Ranker | None:
    """A release's ranker from its arrays by file name; None where it has none."""
    return None if manifest.ranker is None else Ranker.from_values(manifest.ranker, arrays[RANKER_FILE])


class _Ordered(NamedTuple):
    inputs: Inputs
    places: IntArray  # (c,) of the candidates, best first
    scores: FloatArray  # (c,)


def _order(candidates: Candidates, fusion: FusionWeights, ranker: Ranker) -> _Ordered:
    inputs = read_inputs(candidates, fusion, without=ranker.spec.without)
    order, base = inputs.weighed.order, inputs.weighed.scores
    top, rest = order[: ranker.spec.top], order[ranker.spec.top :]
    scores = ranker.scores(base[top], inputs.features[top], inputs.context)
    best = np.argsort(-scores, kind="stable")  # ties stay in fusion's order
    behind = base[rest]
    if len(rest):
        behind = behind + min(np.float32(0), scores.min() - behind[0])
    return _Ordered(inputs, np.concatenate([top[best], rest]), np.concatenate([scores[best], behind]))


def rerank(
    candidates: Candidates,
    fusion: FusionWeights,
    ranker: Ranker,
    *,
    explained: int,
    boost: FloatArray | None = None,
) -> Fused:
    """Orders one request's candidates with the ranker, and computes each channel's contribution to the first ones.

    A contribution is measured by occlusion: how much of an item's score is lost if everything from the channel (its
    log, its flag, its column of the last item) is set to the mean over the candidates. For a purely log-linear ranker
    this equals the contributions of `isrf.method.ranking.fusion.fuse`.

    Args:
        candidates: the candidates of one request.
        fusion: weights of the log-linear score.
        ranker: a ranker fitted on that score.
        explained: for how many of the first items to compute contributions.
        boost: (N,) what is added to each item's score before they are ordered; None for nothing.
    """
    if not len(candidates.items):
        none = np.zeros((0, len(CHANNELS)), np.float32)
        return Fused(candidates.items, np.zeros(0, np.float32), none, [], lambda _: [])
    ordered = _order(candidates, fusion, ranker)
    items, scores = candidates.items[ordered.places], ordered.scores
    order = np.arange(len(items))
    if boost is not None:
        scores, order = boosted(items, scores, boost)
    read = np.array([name not in ranker.spec.without for name in CHANNELS])

    def explain(places: IntArray) -> tuple[_Matrix, list[str]]:
        contributions = _contributions(ordered, ranker, places)
        return contributions, sources_of(contributions, candidates.values[ordered.places[places]], read)

    contributions, sources = explain(order[:explained])
    return Fused(items[order], scores[order], contributions, sources, lambda positions: explain(order[positions])[1])


def ranked_items(candidates: Candidates, fusion: FusionWeights, ranker: Ranker) -> IntArray:
    """The items (c,) in the order of `rerank`, without contributions."""
    if not len(candidates.items):
        return candidates.items
    return candidates.items[_order(candidates, fusion, ranker).places]


def _contributions(ordered: _Ordered, ranker: Ranker, explained: IntArray) -> _Matrix:
    """(e, channels) of the items at some positions (e,) of the ranker's order."""
    inputs, places = ordered.inputs, ordered.places[explained]
    contributions = inputs.weighed.contributions(places)
    learned = explained < ranker.spec.top  # the others have only their log-linear score
    contributions[learned] *= ranker.parts["base_weight"]
    features = inputs.features[places[learned]]
    occluded = np.where(_OF_CHANNEL[:, None, :], inputs.features.mean(axis=0), features)  # (channels, e, F)
    variants = np.concatenate([features[None], occluded]).reshape(-1, features.shape[1])
    scores = ranker.learned(variants, inputs.context).reshape(1 + len(CHANNELS), -1)
    contributions[learned] += (scores[0] - scores[1:]).T
    return contributions
