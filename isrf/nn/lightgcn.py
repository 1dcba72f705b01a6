"""LightGCN over the semantic interaction graph, with inductive users.

Nodes are items and users; an edge is a training interaction with its weight. An item's layer 0 is its own embedding
plus its adapted semantic feature. A user has no parameters: a user's layer k is the normalised sum of its items' layers
k − 1, and an item's layer k is the normalised sum of its users' layers k − 1. A degree is the sum of the weights. So
items have layers 0 and 2, users 1 and 3, and the vector of *any* history is a weighted sum of stored item rows
(`isrf.method.interest.read_history`), whatever its events weigh.

`isrf.nn.lightgcn_training` trains it. Source: LightGCN, arXiv 2002.02126, equations 3 and 7; semantic item nodes after
ISRF, arXiv 2603.13934. Inductive users and recency in the edges are ours. It knows no files and no held-out data.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

_INITIAL_SCALE = 0.1


@dataclass(frozen=True, kw_only=True)
class LightGCNSettings:
    """Settings of LightGCN and its training."""

    dim: int
    recency: float  # weight of an item: recency ** age in its history
    epochs: int
    batch_size: int  # at most; a small shop gets smaller batches
    learning_rate: float
    weight_decay: float
    num_negatives: int = 2048  # catalogues up to this size use the full softmax, larger ones a sample
    prefix_length: int = 50  # items of a history that a training sample reads
    seed: int = 0


class Interactions(NamedTuple):
    """Training interactions, sorted by user, then in their order, oldest first."""

    users: NDArray[np.int64]  # (T,)
    items: NDArray[np.int64]  # (T,)
    weights: NDArray[np.float64] | None = None  # (T,) from 0; None: all are 1


class Propagated(NamedTuple):
    """Vectors of items and users after two propagation steps."""

    items: Tensor  # (N, E) mean of layers 0 and 2
    users: Tensor  # (U, E) layer 1


class LightGCN(nn.Module):
    """The graph and its parameters: one embedding per item and the adapter of the semantic features."""

    item_text: Tensor
    known: Tensor
    inverse_degree: Tensor
    inverse_length: Tensor
    edges: Tensor
    edges_transposed: Tensor

    def __init__(
        self, interactions: Interactions, item_text: NDArray[np.float32], *, settings: LightGCNSettings
    ) -> None:
        """Builds the graph; `item_text` is (N, D_t) float32."""
        super().__init__()
        num_items = len(item_text)
        generator = torch.Generator().manual_seed(settings.seed)
        scale = _INITIAL_SCALE / settings.dim**0.5
        self.item_id = nn.Parameter(torch.randn(num_items, settings.dim, generator=generator) * scale)
        self.adapter = nn.Parameter(torch.randn(item_text.shape[1], settings.dim, generator=generator) * scale)
        self.log_scale = nn.Parameter(torch.tensor(np.log(10.0), dtype=torch.float32))
        users, items, weights = interactions
        degree = np.bincount(items, weights=weights, minlength=num_items)
        inverse_degree = (1.0 / np.sqrt(np.maximum(degree, 1))).astype(np.float32)
        lengths = np.bincount(users, weights=weights)
        inverse_length = (1.0 / np.sqrt(np.maximum(lengths, 1))).astype(np.float32)
        self.register_buffer("item_text", torch.from_numpy(item_text))
        self.register_buffer("known", torch.from_numpy((degree > 0).astype(np.float32))[:, None])
        self.register_buffer("inverse_degree", torch.from_numpy(inverse_degree)[:, None])
        self.register_buffer("inverse_length", torch.from_numpy(inverse_length)[:, None])
        edges = torch.sparse_coo_tensor(
            torch.from_numpy(np.stack([users, items])),
            torch.from_numpy(edge_weights(interactions, settings.recency)),
            (len(lengths), num_items),
            check_invariants=True,
        )
        self.register_buffer("edges", edges.coalesce())  # (U, N) recency of an item in its user's history · weight
        self.register_buffer("edges_transposed", edges.t().coalesce())

    def propagate(self) -> Propagated:
        """Propagates two steps over the graph: users' layer 1 and the mean of items' layers 0 and 2."""
        zero = self.item_id * self.known + self.item_text @ self.adapter  # (N, E)
        users = torch.sparse.mm(self.edges, zero * self.inverse_degree) * self.inverse_length
        second = torch.sparse.mm(self.edges_transposed, users * self.inverse_length) * self.inverse_degree
        return Propagated((zero + second) / 2, users)

    def vectors(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`item_layers` and `item_embeddings`, both (N, E) float32."""
        with torch.no_grad():
            items = self.propagate().items
            layers = items * self.inverse_degree
            embeddings = items * self.known * self.log_scale.exp()
        return layers.numpy(), embeddings.numpy()


def prefix_sum(
    vectors: Tensor, items: NDArray[np.int64], start: NDArray[np.int64], stop: NDArray[np.int64], recency: float
) -> Tensor:
    """Recency-weighted sums of `vectors[items[start:stop]]`, (B, E): `isrf.method.interest.read_history` in torch."""
    lengths = stop - start
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    age = np.repeat(offsets[1:], lengths) - 1 - np.arange(offsets[-1])
    rows = items[np.repeat(stop, lengths) - 1 - age]
    weights = torch.from_numpy((recency**age).astype(np.float32))
    return F.embedding_bag(
        torch.from_numpy(rows),
        vectors,
        torch.from_numpy(offsets[:-1]),
        mode="sum",
        per_sample_weights=weights,
    )


def edge_weights(interactions: Interactions, recency: float) -> NDArray[np.float32]:
    """(T,) float32: weight · recency ** age of every training interaction; a user's newest has age 0."""
    last = np.cumsum(np.bincount(interactions.users)) - 1
    age = last[interactions.users] - np.arange(len(interactions.users))
    weights = 1.0 if interactions.weights is None else interactions.weights
    return np.asarray(recency**age * weights, dtype=np.float32)
