"""Makes the int8 variant of the search graph: replaces each large fp32 product by a product of integers.

Weights are quantised per column in the export, activations per *row* at run time. A row's scale is its own largest
value, and integers sum exactly, so an answer does not depend on the other requests in the batch. ONNX Runtime's own
dynamic quantisation uses one scale for the whole tensor, so its answers do depend on them; its blockwise kernel
(`MatMulNBits`) was half as fast. Weights use 7 of the 8 bits: without VNNI, ONNX Runtime sums two products of weights
and activations in 16 bits, which can saturate and change the answer. With 7 bits they cannot (255 · 63 · 2 < 2^15).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from isrf.nn.fused import DOMAIN
from offline.stages.export_onnx.matmul_rewrite import Rows, exchange_products

_STEPS = 127
_WEIGHT_STEPS = 63


class _Steps(NamedTuple):
    """How values from −1 to 1, or from 0 to 1, are mapped to bytes."""

    name: str
    zero: int  # the byte for 0
    from_0_to_1: int  # number of steps from 0 to 1

    @property
    def constants(self) -> tuple[str, str]:
        """The names of the constants for the step size and for the byte of 0."""
        return f"int8.{self.name}.step", f"int8.{self.name}.zero"


_SIGNED = _Steps("signed", 128, _STEPS)
_POSITIVE = _Steps("positive", 0, 255)
"""For the output of a ReLU, which has no sign; the steps are half as large."""


def quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the graph in which the products with the stacks' matrices use integers."""
    result = exchange_products(model, _Integers())
    if DOMAIN not in {opset.domain for opset in result.opset_import}:
        result.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    result.graph.initializer.extend(_constants())
    onnx.checker.check_model(result)
    return result


class _Integers:
    """The `offline.stages.export_onnx.matmul_rewrite.Exchange` for 8-bit integers."""

    def read(self, rows: Rows) -> Iterator[onnx.NodeProto]:
        """Quantises rows (…, K) float: `.int8` (…, K) uint8, and `.range` (…, 1) float, each row's largest value.

        A row of zeros becomes 0 / 0, so its bytes are arbitrary; their product is then multiplied by the range, 0.
        """
        name = rows.name
        size = name if rows.positive else f"{name}.size"
        if not rows.positive:
            yield helper.make_node("Abs", [name], [size])
        yield helper.make_node("ReduceMax", [size], [f"{name}.range"], axes=[-1], keepdims=1)
        yield helper.make_node("Div", [name, f"{name}.range"], [f"{name}.scaled"])
        yield helper.make_node("QuantizeLinear", [f"{name}.scaled", *_steps(rows).constants], [f"{name}.int8"])

    def product(self, rows: Rows, matrix: str, output: str) -> Iterator[onnx.NodeProto]:
        step, zero = _steps(rows).constants
        columns = [f"{rows.name}.int8", f"{matrix}.int8", step, f"{matrix}.step", zero]
        yield helper.make_node("MatMulIntegerToFloat", columns, [f"{output}.columns"], domain=DOMAIN)
        yield helper.make_node("Mul", [f"{output}.columns", f"{rows.name}.range"], [output])

    def stored(self, name: str, matrix: NDArray[np.float32]) -> Iterator[onnx.TensorProto]:
        """The matrix as int8, and the step size of each column."""
        step = np.maximum(np.abs(matrix).max(axis=0), np.float32(1e-20)) / np.float32(_WEIGHT_STEPS)
        yield numpy_helper.from_array(np.round(matrix / step).astype(np.int8), f"{name}.int8")
        yield numpy_helper.from_array(step.astype(np.float32), f"{name}.step")


def _steps(rows: Rows) -> _Steps:
    return _POSITIVE if rows.positive else _SIGNED


def _constants() -> Iterator[onnx.TensorProto]:
    for steps in (_SIGNED, _POSITIVE):
        step, zero = steps.constants
        yield numpy_helper.from_array(np.array(1 / steps.from_0_to_1, dtype=np.float32), step)
        yield numpy_helper.from_array(np.array(steps.zero, dtype=np.uint8), zero)
