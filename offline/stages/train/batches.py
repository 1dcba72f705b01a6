"""Plans the batches of an epoch (samples, order, task) and makes them tensors; (seed, epoch) decides the plan."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isrf.nn.losses import loss_weights
from isrf.nn.model import DIRECT, SEQUENTIAL
from offline.stages.train.samples import TrainingSamples

POOL = 32
"""Samples are sorted by length within this many batches: little padding, and the batches are still random."""


class EpochPlan(NamedTuple):
    """The batches of one epoch."""

    batches: list[NDArray[np.int64]]  # rows of the samples
    tasks: list[int]  # SEQUENTIAL or DIRECT for each batch


class TrainingBatch(NamedTuple):
    """B samples on the training device, padded to the longest history among them."""

    users: Tensor  # (B,) int64
    history: Tensor  # (B, S) int64
    mask: Tensor  # (B, S) bool
    target: Tensor  # (B,) int64
    explicit: Tensor  # (B, E)
    group: Tensor  # (B, G)
    task: Tensor  # (B,) int64
    weight: Tensor | None = None  # (B,) of the losses, 1 on average over all samples; None: all are 1


def plan_epoch(length: NDArray[np.int64], *, batch_size: int, direct_share: float, seed: int, epoch: int) -> EpochPlan:
    """Plans an epoch: every sample once, with the direct batches spread evenly among the sequential ones."""
    rng = np.random.default_rng([seed, epoch])
    shuffled = rng.permutation(len(length))
    batches = []
    for first in range(0, len(shuffled), POOL * batch_size):
        pool = shuffled[first : first + POOL * batch_size]
        pool = pool[np.argsort(length[pool], kind="stable")]
        batches += [pool[start : start + batch_size] for start in range(0, len(pool), batch_size)]
    order = rng.permutation(len(batches))
    tasks = [
        DIRECT if int((place + 1) * direct_share) > int(place * direct_share) else SEQUENTIAL
        for place in range(len(batches))
    ]
    return EpochPlan([batches[place] for place in order], tasks)


def take(samples: TrainingSamples, rows: NDArray[np.int64], task: int, device: torch.device) -> TrainingBatch:
    """The samples `rows` as tensors."""
    length = samples.length[rows]
    longest = int(length.max())

    def tensor(array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    return TrainingBatch(
        users=tensor(samples.users[rows]),
        history=tensor(samples.history[rows, :longest].astype(np.int64)),
        mask=tensor(np.arange(longest) < length[:, None]),
        target=tensor(samples.target[rows]),
        explicit=tensor(samples.explicit[rows]),
        group=tensor(samples.group[rows]),
        task=torch.full((len(rows),), task, device=device),
        weight=loss_weights(samples.weight[rows], device),
    )
