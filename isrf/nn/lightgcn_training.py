"""Trains LightGCN to rank the item that a user took next, given the items before it.

Every training position after a user's first is a sample, unless its weight is 0; a sample's loss has the weight of its
target. An item's layer 2 contains the sample's own user, and so the
target; that user's share is subtracted exactly from the prefix's vector and from the target's vector.
It knows no files and no held-out data.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from isrf.contract.errors import StageError
from isrf.method.order import MAX_TARGETS_PER_USER, mean_one
from isrf.nn.lightgcn import Interactions, LightGCN, LightGCNSettings, Propagated, edge_weights, prefix_sum
from isrf.nn.losses import loss_weights, mean_cross_entropy

MIN_STEPS = 50
"""Fewest steps of an epoch. A small shop gets smaller batches, so that the same number of epochs trains it as well."""
_MIN_BATCH = 64

WARMUP_SHARE = 0.1


class LightGCNVectors(NamedTuple):
    """The results of training."""

    item_layers: NDArray[np.float32]  # (N, E) mean of the layers, 1/sqrt(degree) folded in; a history is a sum of these
    item_embeddings: NDArray[np.float32]  # (N, E) mean of the layers; 0 without training interactions
    losses: list[float]  # mean loss of every epoch, nats


class _Samples(NamedTuple):
    """The training samples: the prefix of a sample is `items[start:stop]`, its target is `items[stop]`."""

    start: NDArray[np.int64]  # (P,)
    stop: NDArray[np.int64]  # (P,)
    own_prefix: NDArray[np.float32]  # (P,) share of the sample's own user's layer 1 in the prefix's sum
    own_target: NDArray[np.float32]  # (P,) and in the target's embedding
    weight: NDArray[np.float32]  # (P,) of the loss, 1 on average


def train_lightgcn(
    interactions: Interactions,
    item_text: NDArray[np.float32],
    *,
    settings: LightGCNSettings,
    on_epoch: Callable[[int, float], None] | None = None,
) -> LightGCNVectors:
    """Trains on every prefix and its next item, with a softmax over the catalogue (over a sample of a large one).

    Args:
        interactions: training interactions only.
        item_text: (N, D_t) float32, rows of length 1 or 0.
        settings: the settings of the model and its training.
        on_epoch: called after every epoch with its number (from 1) and mean loss.

    Raises:
        StageError: `graph.nan_loss`, the training diverged.
    """
    model = LightGCN(interactions, item_text, settings=settings)
    samples = _samples(interactions, model, settings.recency, prefix_length=settings.prefix_length)
    trained = [model.item_id, model.adapter, model.log_scale]
    optimizer = torch.optim.Adam(trained, lr=settings.learning_rate)
    rng = np.random.default_rng(settings.seed)
    losses: list[float] = []
    batch_size = min(settings.batch_size, max(len(samples.stop) // MIN_STEPS, _MIN_BATCH))
    num_steps = max(-(-len(samples.stop) // batch_size), 1) * settings.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate_share(step / num_steps))
    for epoch in range(1, settings.epochs + 1):
        order = rng.permutation(len(samples.stop))
        total = 0.0
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            loss = _loss(model, interactions, samples, rows, settings=settings, rng=rng)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        losses.append(total / max(len(order), 1))
        if not np.isfinite(losses[-1]):
            raise StageError(
                "graph.nan_loss",
                f"LightGCN's loss is {losses[-1]} in epoch {epoch}.",
                fix="Lower graph.learning_rate.",
            )
        if on_epoch is not None:
            on_epoch(epoch, losses[-1])
    return LightGCNVectors(*model.vectors(), losses)


def _learning_rate_share(progress: float) -> float:
    """The learning rate's factor: linear warm-up over the first tenth, then half a cosine to 0; progress is 0 … 1."""
    if progress < WARMUP_SHARE:
        return max(progress / WARMUP_SHARE, 0.02)
    return 0.5 * (1.0 + math.cos(math.pi * (progress - WARMUP_SHARE) / (1.0 - WARMUP_SHARE)))


def _loss(
    model: LightGCN,
    interactions: Interactions,
    samples: _Samples,
    rows: NDArray[np.int64],
    *,
    settings: LightGCNSettings,
    rng: np.random.Generator,
) -> Tensor:
    """Mean cross-entropy of the targets of the samples `rows` plus the weight decay of layer 0."""
    propagated = model.propagate()
    target = torch.from_numpy(interactions.items[samples.stop[rows]])
    query, positive = _score_sides(model, propagated, interactions, samples, rows, settings.recency)
    candidates, correction = _candidates(model, settings.num_negatives, rng)
    scale = model.log_scale.exp()
    negative = (query * scale) @ propagated.items[candidates].T + correction  # (B, C)
    negative = negative.masked_fill(candidates[None, :] == target[:, None], -torch.inf)
    logits = torch.cat([scale * positive[:, None], negative], dim=1)
    loss = mean_cross_entropy(logits, torch.zeros_like(target), weight=loss_weights(samples.weight[rows]))
    decay = model.item_id[target].square().sum(1).mean()
    return loss + settings.weight_decay * decay


def _score_sides(
    model: LightGCN,
    propagated: Propagated,
    interactions: Interactions,
    samples: _Samples,
    rows: NDArray[np.int64],
    recency: float,
) -> tuple[Tensor, Tensor]:
    """The prefixes' explicit vectors (B, E), length 1, and the targets' scores (B,), without the sample's own user."""
    start, stop = samples.start[rows], samples.stop[rows]
    own_user = propagated.users[torch.from_numpy(interactions.users[stop])]  # (B, E)
    own_prefix = torch.from_numpy(samples.own_prefix[rows])[:, None]
    own_target = torch.from_numpy(samples.own_target[rows])[:, None]
    summed = prefix_sum(propagated.items * model.inverse_degree, interactions.items, start, stop, recency)
    query = F.normalize(summed - own_prefix * own_user, dim=1, eps=1e-8)
    target = propagated.items[torch.from_numpy(interactions.items[stop])] - own_target * own_user
    return query, (query * target).sum(1)


def _candidates(model: LightGCN, count: int, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Items that compete with the target, and the log-correction of a sampled item's logit (0 without sampling)."""
    known = np.flatnonzero(model.known.numpy()[:, 0])
    if len(known) <= count:
        return torch.from_numpy(known), 0.0
    chosen = rng.choice(known, size=count, replace=False)
    return torch.from_numpy(chosen), float(np.log(len(known) / count))


def _samples(interactions: Interactions, model: LightGCN, recency: float, *, prefix_length: int) -> _Samples:
    """Every training position after a user's first, with the exact share of its own user in prefix and target.

    A user has at most `MAX_TARGETS_PER_USER` samples, the latest ones.
    """
    users, items, weights = interactions
    first = np.searchsorted(users, users)  # each position's user starts here
    to_come = np.searchsorted(users, users, side="right") - np.arange(len(users))
    chosen = (np.arange(len(users)) > first) & (to_come <= MAX_TARGETS_PER_USER)
    stop = np.flatnonzero(chosen if weights is None else chosen & (weights > 0))
    start = np.maximum(first[stop], stop - prefix_length)
    keys = users * model.edges.shape[1] + items
    unique, place = np.unique(keys, return_inverse=True)
    edge = np.bincount(place, edge_weights(interactions, recency), len(unique))[place]  # repeats summed
    degree_share = model.inverse_degree.numpy()[items, 0]
    share = edge * model.inverse_length.numpy()[users, 0] * degree_share / 2  # of the user's layer 1 in the item
    own_prefix = prefix_sum(
        torch.from_numpy((share * degree_share).astype(np.float32)[:, None]),
        np.arange(len(users)),
        start,
        stop,
        recency,
    )
    return _Samples(
        start,
        stop,
        own_prefix=own_prefix[:, 0].numpy().astype(np.float32),
        own_target=share[stop].astype(np.float32),
        weight=mean_one(np.ones(len(stop)) if weights is None else weights[stop]),
    )
