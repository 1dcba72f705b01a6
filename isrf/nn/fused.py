"""Operators that export to fewer ONNX nodes than plain torch would, with the same arithmetic in torch.

Outside an export they run the plain torch code below. In an export, attention and norms become one node of ONNX
Runtime's own domain instead of about ten, and a change of shape becomes one node, where the exporter would read, slice
and concatenate sizes. This matters because at 20 rows a node costs as much as the work in it. It knows neither layers
nor beams. Inference only.
"""

from typing import Any

import torch
from torch import Tensor

DOMAIN = "com.microsoft"


def add_and_norm(states: Tensor, change: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    """Adds `change` to `states` and returns T5's layer norm (root mean square, no shift) of the sum, and the sum.

    All tensors are (…, D).
    """
    run: Any = _AddAndNorm.apply
    normed, total = run(states, change, norm.weight, float(norm.variance_epsilon))
    return normed, total


def attend(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor, *, heads: int) -> Tensor:
    """Multi-head attention without scaling of the scores, as in T5; the heads lie side by side in the width.

    Args:
        query: (B, Q, H · d).
        keys, values: (B, H, T, d), or (B, T, H · d) like the query.
        bias: (B, H, Q, T); the first two sizes may be 1.
        heads: H.

    Returns:
        (B, Q, H · d).
    """
    run: Any = _Attend.apply
    mixed: Tensor = run(query, keys, values, bias, heads)
    return mixed


def attend_on(
    query: Tensor, key: Tensor, value: Tensor, past: tuple[Tensor, Tensor], bias: Tensor, *, heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention of one new position over the earlier positions and itself.

    Args:
        query, key, value: (R, 1, H · d), the heads side by side.
        past: keys and values of the earlier positions, (R, H, t, d).
        bias: (1, H, 1, t + 1).
        heads: H.

    Returns:
        the result (R, 1, H · d), and the keys and values extended by the new position, (R, H, t + 1, d).
    """
    run: Any = _AttendOn.apply
    mixed, keys, values = run(query, key, value, *past, bias, heads)
    return mixed, keys, values


def reshaped(rows: Tensor, *sizes: int) -> Tensor:
    """The same values in another shape: a size of 0 keeps that dimension, −1 (at most once) takes the rest."""
    run: Any = _Reshape.apply
    shaped: Tensor = run(rows, sizes)
    return shaped


def rows_like(rows: Tensor, other: Tensor) -> Tensor:
    """Reshapes (B · W, 1, d) to (B, W, d), with B and W from `other` (B, W, …)."""
    run: Any = _RowsLike.apply
    shaped: Tensor = run(rows, other)
    return shaped


class _Reshape(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, rows: Tensor, sizes: tuple[int, ...]) -> Tensor:
        return rows.reshape([size or rows.shape[place] for place, size in enumerate(sizes)])

    @staticmethod
    def symbolic(g: Any, rows: Any, sizes: tuple[int, ...]) -> Any:
        shaped = g.op("Reshape", rows, _constant(g, *sizes))
        return shaped.setType(rows.type().with_sizes([size if size > 0 else None for size in sizes]))


class _RowsLike(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, rows: Tensor, other: Tensor) -> Tensor:
        return rows.reshape(*other.shape[:2], -1)

    @staticmethod
    def symbolic(g: Any, rows: Any, other: Any) -> Any:
        sizes = g.op("Concat", g.op("Shape", other, end_i=2), _constant(g, -1), axis_i=0)
        return g.op("Reshape", rows, sizes).setType(rows.type().with_sizes([None, None, None]))


def _constant(g: Any, *values: int) -> Any:
    return g.op("Constant", value_t=torch.tensor(values, dtype=torch.int64))


class _AddAndNorm(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, states: Tensor, change: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        total = states + change
        return total / torch.sqrt(total.pow(2).mean(-1, keepdim=True) + epsilon) * weight, total

    @staticmethod
    def symbolic(g: Any, states: Any, change: Any, weight: Any, epsilon: float) -> Any:
        normed, _, _, total = g.op(
            f"{DOMAIN}::SkipSimplifiedLayerNormalization", states, change, weight, epsilon_f=epsilon, outputs=4
        )
        return normed.setType(states.type()), total.setType(states.type())


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor, heads: int) -> Tensor:
        if keys.dim() == 3:
            keys, values = (_by_head(rows, heads) for rows in (keys, values))
        return _mixed(query, keys, values, bias)

    @staticmethod
    def symbolic(g: Any, query: Any, keys: Any, values: Any, bias: Any, heads: int) -> Any:
        return _attention(g, query, keys, values, bias, heads=heads, outputs=1).setType(query.type())


class _AttendOn(torch.autograd.Function):
    @staticmethod
    def forward(
        _: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        past_keys: Tensor,
        past_values: Tensor,
        bias: Tensor,
        heads: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        keys = torch.cat([past_keys, _by_head(key, heads)], dim=2)
        values = torch.cat([past_values, _by_head(value, heads)], dim=2)
        return _mixed(query, keys, values, bias), keys, values

    @staticmethod
    def symbolic(
        g: Any, query: Any, key: Any, value: Any, past_keys: Any, past_values: Any, bias: Any, heads: int
    ) -> Any:
        inputs = (query, key, value, bias, past_keys, past_values)
        mixed, keys, values = _attention(g, *inputs, heads=heads, outputs=3)
        rows = torch._C.TensorType.get().with_dtype(torch.float32)  # noqa: SLF001 - no public name
        line = rows.with_sizes([None, heads, None, None])
        return mixed.setType(rows.with_sizes([None, 1, None])), keys.setType(line), values.setType(line)


def _mixed(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    weights = torch.softmax(_by_head(query, keys.shape[1]) @ keys.transpose(2, 3) + bias, dim=-1)
    return (weights @ values).transpose(1, 2).flatten(2)


def _by_head(rows: Tensor, heads: int) -> Tensor:
    """(B, T, H · d) → (B, H, T, d)."""
    return rows.view(*rows.shape[:2], heads, -1).transpose(1, 2)


def _attention(g: Any, query: Any, keys: Any, values: Any, bias: Any, *past: Any, heads: int, outputs: int) -> Any:
    none = g.op("prim::Constant")
    none.setType(torch._C.OptionalType.ofTensor())  # noqa: SLF001 - no public name
    inputs = (query, keys, values, none, none, bias, *past)
    return g.op(f"{DOMAIN}::MultiHeadAttention", *inputs, num_heads_i=heads, scale_f=1.0, outputs=outputs)
