"""The losses that train the model: generation, dense retrieval, and ISRF's alignment in both directions.

Tensors in, scalars out. The trainer decides which batch is sequential and which is direct. An argument `weight` is
(B,), the weights of the samples in the mean over them; None: all are 1.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def loss_weights(weights: NDArray[np.float32], device: torch.device | None = None) -> Tensor | None:
    """The weights (B,) of a batch as a tensor; None where all are 1: then the mean needs none, and has equal bits."""
    return None if (weights == 1).all() else torch.from_numpy(weights).to(device, non_blocking=True)


def mean_cross_entropy(scores: Tensor, target: Tensor, *, weight: Tensor | None) -> Tensor:
    """Σ weight · cross-entropy / R; scores (R, N), target (R,) int64; R is a multiple of B, a sample's rows adjoin."""
    if weight is None:
        return F.cross_entropy(scores, target)
    return _mean(F.cross_entropy(scores, target, reduction="none"), weight)


def _mean(losses: Tensor, weight: Tensor | None) -> Tensor:
    return losses.mean() if weight is None else (losses.view(len(weight), -1) * weight[:, None]).mean()


def generation_loss(
    logits: Tensor,
    own: Tensor,
    exists: Tensor,
    *,
    taught: Tensor | None = None,
    distillation: float = 0.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy over samples and levels; a code competes with the codes that the trie has after its prefix.

    Args:
        logits: (B, L, C), one per choice.
        own: (B, L) int64, the position of the target's own code among the choices.
        exists: (B, L, C) bool, the positions that hold a choice.
        taught: (B, L, C) a teacher's distribution over the choices, no gradient (Hinton et al. 2015, section 2).
        distillation: the teacher's share of the loss; the rest is the target's cross-entropy.
    """
    usable = logits.float().masked_fill(~exists, -torch.inf)
    loss = mean_cross_entropy(usable.flatten(0, 1), own.flatten(), weight=weight)
    if taught is None or not distillation:
        return loss
    logs = usable.log_softmax(2).masked_fill(~exists, 0.0)
    return (1 - distillation) * loss - distillation * _mean((taught * logs).sum(2), weight)


def dense_loss(scores: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy of the target in the softmax over the whole catalogue.

    Args:
        scores: (B, N) query · item vectors, temperature folded in.
        target: (B,) int64 item rows.
    """
    return mean_cross_entropy(scores.float(), target, weight=weight)


def sampled_dense_loss(
    query: Tensor,
    target_vectors: Tensor,
    negative_vectors: Tensor,
    *,
    collision: Tensor,
    num_items: int,
    weight: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of the target, estimated with uniformly drawn negatives that all samples of the batch share.

    Each negative represents num_items / R items, so the estimate of the partition function is unbiased (sampled softmax
    with the log-probability of the draw subtracted: Jean et al. 2015, equation 8).

    Args:
        query: (B, D).
        target_vectors: (B, D).
        negative_vectors: (R, D).
        collision: (B, R) bool, whether the negative is the sample's own target.
        num_items: N.
    """
    positive = (query * target_vectors).sum(1, keepdim=True).float()
    negative = (query @ negative_vectors.T).float() + math.log(num_items / negative_vectors.shape[0])
    scores = torch.cat([positive, negative.masked_fill(collision, -torch.inf)], dim=1)
    first = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
    return mean_cross_entropy(scores, first, weight=weight)


def candidate_loss(
    query: Tensor, candidate_vectors: Tensor, collision: Tensor, *, weight: Tensor | None = None
) -> Tensor:
    """Cross-entropy for direct recommendation: the first of each sample's candidates is the target.

    Args:
        query: (B, D).
        candidate_vectors: (B, M, D), the target first.
        collision: (B, M) bool, whether a candidate repeats the target; never true for the first.
    """
    scores = torch.einsum("bd,bmd->bm", query, candidate_vectors).float().masked_fill(collision, -torch.inf)
    first = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
    return mean_cross_entropy(scores, first, weight=weight)


def alignment_loss(pulled: Tensor, anchor: Tensor, *, valid: Tensor, users: Tensor, temperature: float) -> Tensor:
    """InfoNCE that moves each `pulled` vector towards its own `anchor`, which gets no gradient.

    In sequential batches `pulled` is the sequence's individual representation and `anchor` the group vector; in direct
    batches it is the other way round (arXiv 2603.13934, iterative batch optimisation). Both are normalised here; the
    reference code does not normalise, and its softmax saturates.

    Args:
        pulled, anchor: (B, D).
        valid: (B,) bool; False for a sample without history or without neighbours, which is neither row nor negative.
        users: (B,) int64; another sample of the same user is no negative.
        temperature: divides the cosines.

    Returns:
        the mean over valid samples; 0 where there is none.
    """
    cosine = F.normalize(pulled.float(), dim=1) @ F.normalize(anchor.detach().float(), dim=1).T / temperature
    diagonal = torch.eye(len(users), dtype=torch.bool, device=users.device)
    same_user = users[:, None] == users[None, :]
    scores = cosine.masked_fill((same_user | ~valid[None, :]) & ~diagonal, -torch.inf)
    per_sample = -torch.log_softmax(scores, dim=1).diagonal()
    return torch.where(valid, per_sample, 0.0).sum() / valid.sum().clamp(min=1)
