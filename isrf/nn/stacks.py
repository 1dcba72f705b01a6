"""T5's encoder and decoder for the search, with the weights of `transformers` modules, in a form that exports well.

Training uses `transformers`; the search runs the same arithmetic here. One product per request computes the
cross-attention keys and values of all layers, one product computes a row's queries, keys and values, and a beam's
self-attention covers only its own ancestors. A test checks that both give equal results. Inference only: no dropout,
and the weights are copied when a stack is made.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from isrf.nn.fused import add_and_norm, attend, attend_on, reshaped, rows_like

MASKED = -1e9
"""Added to a score that must not count: e^(MASKED) is 0 in float32."""


class Memory(NamedTuple):
    """One decoder layer's keys and values, for attention."""

    keys: Tensor  # (B, H, T, d)
    values: Tensor  # (B, H, T, d)


class Joined(nn.Module):
    """Several linear projections of the same rows, computed in one product: (…, D) → (…, width) for each projection."""

    weight: Tensor

    def __init__(self, *parts: Any) -> None:
        super().__init__()
        self.widths = [len(part.weight) for part in parts]
        # Persistent, because the exporter writes a non-persistent buffer once for every step that reads it.
        self.register_buffer("weight", torch.cat([part.weight.detach() for part in parts]))

    def forward(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Every projection, in order."""
        joined = nn.functional.linear(rows, self.weight)
        parts: tuple[Tensor, ...] = torch.split(joined, self.widths, dim=-1)
        return parts


class _Layer(nn.Module):
    """One block: self-attention's three projections joined, the rest unchanged."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        attention = block.layer[0].SelfAttention
        self.qkv = Joined(attention.q, attention.k, attention.v)
        self.block = block


class _Stack(nn.Module):
    """The parts of a `T5Stack` that both stacks use."""

    def __init__(self, stack: Any) -> None:
        super().__init__()
        self.heads = stack.block[0].layer[0].SelfAttention.n_heads
        self.layers: Any = nn.ModuleList(_Layer(block) for block in stack.block)
        self.norms = [*(norm for block in stack.block for norm in _norms(block)), stack.final_layer_norm]


class EncoderStack(_Stack):
    """A `T5Stack` that is an encoder."""

    def forward(self, source: Tensor, mask: Tensor, bias: Tensor) -> Tensor:
        """The states (B, S, D).

        Args:
            source: (B, S, D) input vectors.
            mask: (B, S) bool.
            bias: (1, H, S, S) relative position bias, query by key.
        """
        norms, by_place = iter(self.norms), bias + source_bias(mask)
        states, inner = source, normed(next(norms), source)
        for layer in self.layers:
            query, key, value = layer.qkv(inner)
            mixed = layer.block.layer[0].SelfAttention.o(attend(query, key, value, by_place, heads=self.heads))
            inner, states = add_and_norm(states, mixed, next(norms))
            inner, states = add_and_norm(states, layer.block.layer[1].DenseReluDense(inner), next(norms))
        return inner


class DecoderStack(_Stack):
    """A `T5Stack` that is a decoder."""

    def __init__(self, stack: Any) -> None:
        super().__init__(stack)
        cross = [block.layer[1].EncDecAttention for block in stack.block]
        self.kv = Joined(*(part for attention in cross for part in (attention.k, attention.v)))

    def read(self, source_states: Tensor) -> list[Memory]:
        """Every layer's cross-attention keys and values, computed once per request. (B, S, D) in."""
        by_part = [_by_head(part, self.heads) for part in self.kv(source_states)]
        return [Memory(keys, values) for keys, values in zip(by_part[::2], by_part[1::2], strict=True)]

    def step(
        self,
        tokens: Tensor,
        past: list[Memory] | None,
        parents: Tensor | None,
        cross: list[Memory],
        *,
        line_bias: Tensor,
        cross_bias: Tensor,
    ) -> tuple[Tensor, list[Memory]]:
        """One decoding step of W beams of each request. A beam's *line* is the sequence of its tokens so far.

        Args:
            tokens: (B, W, D) the vectors of the latest tokens.
            past: per layer the keys and values of the lines after the last step (R', H, t, d); None at the first step.
            parents: (B · W,) int64 the row of the last step that each beam continues.
            cross: per layer the source's keys and values.
            line_bias: (1, H, 1, t + 1) relative position bias along a line.
            cross_bias: (B, 1, W, S).

        Returns:
            the states (B, W, D), and per layer the lines' keys and values, extended by this step.
        """
        norms, lines = iter(self.norms), []
        states, inner = tokens, normed(next(norms), tokens)
        for at, layer in enumerate(self.layers):
            own, reading, feeding = layer.block.layer
            flat = reshaped(inner, -1, 1, 0)
            mixed, line = self._line(layer.qkv(flat), None if past is None else past[at], parents, line_bias)
            inner, states = add_and_norm(states, own.SelfAttention.o(rows_like(mixed, tokens)), next(norms))
            asked = reading.EncDecAttention.q(inner)
            read = reading.EncDecAttention.o(attend(asked, *cross[at], cross_bias, heads=self.heads))
            inner, states = add_and_norm(states, read, next(norms))
            inner, states = add_and_norm(states, feeding.DenseReluDense(inner), next(norms))
            lines.append(line)
        return inner, lines

    def _line(
        self, projected: tuple[Tensor, ...], past: Memory | None, parents: Tensor | None, bias: Tensor
    ) -> tuple[Tensor, Memory]:
        """Each row's self-attention over its line (B · W, 1, H · d), and the extended line."""
        query, key, value = projected
        if past is None or parents is None:  # the first step: all attention is on the row itself
            return value, Memory(_by_head(key, self.heads), _by_head(value, self.heads))
        before = past.keys.index_select(0, parents), past.values.index_select(0, parents)
        mixed, keys, values = attend_on(query, key, value, before, bias, heads=self.heads)
        return mixed, Memory(keys, values)


def normed(norm: Any, states: Tensor) -> Tensor:
    """T5's layer norm (root mean square, no shift), in the form that ONNX Runtime's fusion recognises."""
    scale = torch.sqrt(states.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)
    shaped: Tensor = states / scale * norm.weight
    return shaped


def relative_bias(stack: Any, distance: Tensor, *, bidirectional: bool) -> Tensor:
    """(1, H, Q, T): T5's bias of attention by relative position `distance` (Q, T) int64, key − query."""
    attention = stack.block[0].layer[0].SelfAttention
    buckets = attention._relative_position_bucket(  # noqa: SLF001 - T5's own, no public name
        distance.to(attention.relative_attention_bias.weight.device),
        bidirectional=bidirectional,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )
    bias: Tensor = attention.relative_attention_bias(buckets).detach().permute(2, 0, 1)[None]
    return bias


def source_bias(mask: Tensor) -> Tensor:
    """(B, 1, 1, S) float32: 0 where the source mask (B, S) holds, `MASKED` elsewhere."""
    return (~mask).to(torch.float32)[:, None, None, :] * MASKED


def _norms(block: Any) -> list[Any]:
    """The layer norms of a block's sublayers, in order."""
    return [layer.layer_norm for layer in block.layer]


def _by_head(rows: Tensor, heads: int) -> Tensor:
    """(B, T, H · d) → (B, H, T, d)."""
    return reshaped(rows, 0, 0, heads, -1).transpose(1, 2)
