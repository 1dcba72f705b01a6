"""The search with 8-bit matrices: exported in fp32, then each large product made one of integers.

Weights are quantised per column when it is made, activations per *row* when it runs: a row's scale is its own largest
value, and integers add up exactly, so an answer does not depend on who shares the batch. ONNX Runtime's own dynamic
quantisation takes one scale for the whole tensor, which does; its blockwise kernel (`MatMulNBits`) was half as fast.
Weights have 7 bits of the 8: on a processor without VNNI, ONNX Runtime adds up two products of theirs with activations
in 16 bits, which saturate, and the answer would be another one there. Of 7 bits, no two do (255 · 63 · 2 < 2^15).
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
    """How rows between −1 and 1, or 0 and 1, become bytes."""

    name: str
    zero: int  # the byte of 0
    from_0_to_1: int

    @property
    def constants(self) -> tuple[str, str]:
        """Names of a step's size and of the byte of 0."""
        return f"int8.{self.name}.step", f"int8.{self.name}.zero"


_SIGNED = _Steps("signed", 128, _STEPS)
_POSITIVE = _Steps("positive", 0, 255)
"""What comes out of a ReLU has no sign: twice as fine."""


def quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the graph in which the products with the stacks' matrices are of integers."""
    result = exchange_products(model, _Integers())
    if DOMAIN not in {opset.domain for opset in result.opset_import}:
        result.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    result.graph.initializer.extend(_constants())
    onnx.checker.check_model(result)
    return result


class _Integers:
    """`offline.stages.export_onnx.matmul_rewrite.Exchange`."""

    def read(self, rows: Rows) -> Iterator[onnx.NodeProto]:
        """Rows (…, K) float → `.int8` (…, K) uint8, and `.range` (…, 1) float, each row's largest value.

        A row of zeros becomes 0 / 0, which are some bytes or other; their product is multiplied by the range, 0.
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
        """int8 and a step per column."""
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
