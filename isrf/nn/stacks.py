"""T5's encoder and decoder, computed from the modules' own weights in a form that exports well.

`transformers` trains; this runs the same arithmetic for the search: cross-attention keys and values once per request,
beams as rows of one matrix product, self-attention over every beam of every step with an ancestor mask in place of a
reordered cache. A test holds both equal. Inference only: no dropout.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

MASKED = -1e9
"""Added to a score that may not count: e^(MASKED) is 0 in float32."""


class CrossCache(NamedTuple):
    """One decoder layer's keys and values over the source."""

    keys: Tensor  # (B, H, d, S)
    values: Tensor  # (B, H, S, d)


class SelfCache(NamedTuple):
    """One decoder layer's keys and values of every beam of every step so far, T in all."""

    keys: Tensor  # (B, H, T, d)
    values: Tensor  # (B, H, T, d)


def normed(norm: Any, states: Tensor) -> Tensor:
    """T5's layer norm (root mean square, no shift), spelled as ONNX Runtime's fusion knows it."""
    scale = torch.sqrt(states.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)
    shaped: Tensor = states / scale * norm.weight
    return shaped


def relative_buckets(attention: Any, distance: Tensor, *, bidirectional: bool) -> Tensor:
    """T5's bucket of each relative position `distance` (key − query), any shape, int64."""
    buckets: Tensor = attention._relative_position_bucket(
        distance,
        bidirectional=bidirectional,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )
    return buckets


def encode(stack: Any, source: Tensor, mask: Tensor, bias: Tensor) -> Tensor:
    """The encoder's states (B, S, D).

    Args:
        stack: a `T5Stack`.
        source: (B, S, D) input vectors.
        mask: (B, S) bool.
        bias: (H, S, S) relative position bias, query by key.
    """
    scores_bias = bias[None] + source_bias(mask)
    states = source
    for block in stack.block:
        attention, inner = block.layer[0].SelfAttention, normed(block.layer[0].layer_norm, states)
        query, key, value = (_heads(attention, part(inner)) for part in (attention.q, attention.k, attention.v))
        states = states + _attend(attention, query, key.transpose(2, 3), value, scores_bias)
        states = states + _feed_forward(block.layer[1], states)
    return normed(stack.final_layer_norm, states)


def cross_caches(stack: Any, source_states: Tensor) -> list[CrossCache]:
    """Every decoder layer's cross-attention keys and values, computed once per request. (B, S, D) in."""
    caches = []
    for block in stack.block:
        attention = block.layer[1].EncDecAttention
        key, value = (_heads(attention, part(source_states)) for part in (attention.k, attention.v))
        caches.append(CrossCache(key.transpose(2, 3), value))
    return caches


def decode_step(
    stack: Any,
    tokens: Tensor,
    past: list[SelfCache] | None,
    cross: list[CrossCache],
    *,
    self_bias: Tensor,
    cross_bias: Tensor,
) -> tuple[Tensor, list[SelfCache]]:
    """One step of all beams.

    Args:
        stack: a `T5Stack` that is a decoder.
        tokens: (B, K, D) the vectors of the tokens just chosen.
        past: per layer the caches of the T earlier beams; None at the first step.
        cross: per layer the source's keys and values.
        self_bias: (B, H, K, T + K): relative position bias, `MASKED` off a beam's own line of ancestors.
        cross_bias: (B, 1, 1, S).

    Returns:
        the states (B, K, D) and the caches with this step's beams appended.
    """
    states, caches = tokens, []
    for layer, block in enumerate(stack.block):
        attention, inner = block.layer[0].SelfAttention, normed(block.layer[0].layer_norm, states)
        query, key, value = (_heads(attention, part(inner)) for part in (attention.q, attention.k, attention.v))
        if past is not None:
            key = torch.cat([past[layer].keys, key], dim=2)
            value = torch.cat([past[layer].values, value], dim=2)
        caches.append(SelfCache(key, value))
        states = states + _attend(attention, query, key.transpose(2, 3), value, self_bias)
        attention, inner = block.layer[1].EncDecAttention, normed(block.layer[1].layer_norm, states)
        query = _heads(attention, attention.q(inner))
        states = states + _attend(attention, query, cross[layer].keys, cross[layer].values, cross_bias)
        states = states + _feed_forward(block.layer[2], states)
    return normed(stack.final_layer_norm, states), caches


def source_bias(mask: Tensor) -> Tensor:
    """(B, 1, 1, S) float32: 0 where the source mask (B, S) holds, `MASKED` elsewhere."""
    return (~mask).to(torch.float32)[:, None, None, :] * MASKED


def _heads(attention: Any, projected: Tensor) -> Tensor:
    """(B, T, H · d) → (B, H, T, d)."""
    split = projected.view(*projected.shape[:2], attention.n_heads, attention.key_value_proj_dim)
    return split.transpose(1, 2)


def _attend(attention: Any, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """T5 does not scale the scores. (B, H, Q, d), (B, H, d, T), (B, H, T, d), bias to (B, H, Q, T) → (B, Q, D)."""
    weights = torch.softmax(query @ keys + bias, dim=-1)
    mixed: Tensor = attention.o((weights @ values).transpose(1, 2).flatten(2))
    return mixed


def _feed_forward(layer: Any, states: Tensor) -> Tensor:
    transformed: Tensor = layer.DenseReluDense(normed(layer.layer_norm, states))
    return transformed
