"""Fits the learned ranker (`isrf.method.ranking.ranker`): softmax cross-entropy of the held-out item.

The softmax is over the first `TOP` candidates of a request. It knows neither users nor splits: padded inputs in, the
ranker's numbers out. Equal seeds and rows give equal numbers.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from isrf.method.interest import IntArray
from isrf.method.ranking.ranker import CONTEXT, FEATURES, HIDDEN, Scale

EPOCHS = 12
BATCH = 256
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-4


class RankerSamples(NamedTuple):
    """Requests whose held-out item is among the first `isrf.method.ranking.ranker.TOP` candidates, padded to TOP."""

    base: NDArray[np.float32]  # (S, TOP) log-linear scores, best first, 0 where padded
    features: NDArray[np.float32]  # (S, TOP, F)
    context: NDArray[np.float32]  # (S, G)
    counts: IntArray  # (S,) number of candidates
    places: IntArray  # (S,) position of the held-out item

    def rows(self, chosen: IntArray) -> "RankerSamples":
        return RankerSamples(
            self.base[chosen], self.features[chosen], self.context[chosen], self.counts[chosen], self.places[chosen]
        )

    def real(self) -> NDArray[np.bool_]:
        """(S, TOP): whether the position holds a candidate."""
        real: NDArray[np.bool_] = np.arange(self.base.shape[1]) < self.counts[:, None]
        return real


class RankerNet(nn.Module):
    """`isrf.method.ranking.ranker.Ranker.scores` in torch, for standardised inputs; a test checks that both agree."""

    def __init__(self, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.first = nn.Linear(len(FEATURES) + len(CONTEXT), hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, 1)
        self.base_weight = nn.Parameter(torch.ones(1))
        nn.init.zeros_(self.last.weight)  # so that fitting starts from log-linear fusion
        nn.init.zeros_(self.last.bias)

    def forward(self, base: Tensor, features: Tensor, context: Tensor) -> Tensor:
        """base (B, t), features (B, t, F), context (B, G) → scores (B, t)."""
        by_feature, by_context = self.first.weight[:, : len(FEATURES)], self.first.weight[:, len(FEATURES) :]
        first = features @ by_feature.T + functional.linear(context, by_context, self.first.bias)[:, None]
        second = self.second(functional.gelu(first, approximate="tanh"))
        learned = self.last(functional.gelu(second, approximate="tanh"))[..., 0]
        scores: Tensor = self.base_weight * base + learned
        return scores

    def parts(self, features: Scale, context: Scale) -> dict[str, NDArray[np.float32]]:
        """The net's numbers, named as in `isrf.method.ranking.ranker.layout`."""
        tensors = {
            "first": self.first.weight.T,
            "first_bias": self.first.bias,
            "second": self.second.weight.T,
            "second_bias": self.second.bias,
            "last": self.last.weight[0],
            "last_bias": self.last.bias,
            "base_weight": self.base_weight,
        }
        return {
            "feature_mean": features.mean,
            "feature_deviation": features.deviation,
            "context_mean": context.mean,
            "context_deviation": context.deviation,
            **{name: np.ascontiguousarray(tensor.detach().numpy()) for name, tensor in tensors.items()},
        }


def fit(samples: RankerSamples, *, seed: int) -> dict[str, NDArray[np.float32]]:
    """Fits a ranker on at least one sample and returns its parts, named as in `isrf.method.ranking.ranker.layout`."""
    real = samples.real()
    feature_scale, context_scale = Scale.of(samples.features[real]), Scale.of(samples.context)
    base, places = torch.from_numpy(samples.base), torch.from_numpy(samples.places)
    features = torch.from_numpy(feature_scale.apply(samples.features))
    context = torch.from_numpy(context_scale.apply(samples.context))
    padded = torch.from_numpy(~real)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = RankerNet()
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    batches = math.ceil(len(places) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=EPOCHS * batches + 1)
    order = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        permutation = torch.randperm(len(places), generator=order)
        for start in range(0, len(places), BATCH):
            rows = permutation[start : start + BATCH]
            scores = net(base[rows], features[rows], context[rows]).masked_fill(padded[rows], -torch.inf)
            loss = functional.cross_entropy(scores, places[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return net.parts(feature_scale, context_scale)
