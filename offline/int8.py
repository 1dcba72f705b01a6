"""The search with 8-bit matrices: exported in fp32, then each large product made one of integers.

Weights are quantised per column when it is made, activations per *row* when it runs: a row's scale is its own largest
value, and integers add up exactly, so an answer does not depend on who shares the batch. ONNX Runtime's own dynamic
quantisation takes one scale for the whole tensor, which does; its blockwise kernel (`MatMulNBits`) was half as fast.

It knows graphs, not models: what such a graph loses is measured by `offline.evaluate`.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from isrf.nn.fused import DOMAIN

_PART = re.compile(r"/(qkv|kv|q|o|wi|wo)(_\d+)?/MatMul$")
"""Matrices of T5's stacks as the exporter names their products: attention (some of them joined) and feed-forward."""

_STEPS = 127


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
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    # The unrolled steps share their weights, and reach them by an Identity from the second step on.
    shared = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    chosen = {
        node.output[0]: shared.get(node.input[1], node.input[1]) for node in graph.node if _PART.search(node.name)
    }
    matrices = {name: numpy_helper.to_array(weights[name]) for name in sorted(set(chosen.values()))}
    relu = {node.output[0] for node in graph.node if node.op_type == "Relu"}
    nodes: list[onnx.NodeProto] = []
    quantised_rows: set[str] = set()
    for node in graph.node:
        if node.output[0] not in chosen:
            nodes.append(node)
            continue
        rows = node.input[0]
        steps = _POSITIVE if rows in relu else _SIGNED
        if rows not in quantised_rows:  # a gated feed-forward layer reads the same rows twice
            nodes += _quantise_rows(rows, steps)
            quantised_rows.add(rows)
        nodes += _product(rows, chosen[node.output[0]], node.output[0], steps)
    if DOMAIN not in {opset.domain for opset in result.opset_import}:
        result.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    del graph.node[:]
    graph.node.extend(nodes)
    still_used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in still_used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.initializer.extend(_constants())
    for name, matrix in matrices.items():
        graph.initializer.extend(_integers(name, matrix))
    onnx.checker.check_model(result)
    return result


def _quantise_rows(rows: str, steps: _Steps) -> Iterator[onnx.NodeProto]:
    """`rows` (…, K) float → `.int8` (…, K) uint8, and `.range` (…, 1) float, each row's largest value.

    A row of zeros becomes 0 / 0, which are some bytes or other; their product is multiplied by the range, 0.
    """
    size = rows if steps.zero == 0 else f"{rows}.size"
    if size != rows:
        yield helper.make_node("Abs", [rows], [size])
    yield helper.make_node("ReduceMax", [size], [f"{rows}.range"], axes=[-1], keepdims=1)
    yield helper.make_node("Div", [rows, f"{rows}.range"], [f"{rows}.scaled"])
    yield helper.make_node("QuantizeLinear", [f"{rows}.scaled", *steps.constants], [f"{rows}.int8"])


def _product(rows: str, matrix: str, output: str, steps: _Steps) -> Iterator[onnx.NodeProto]:
    step, zero = steps.constants
    columns = [f"{rows}.int8", f"{matrix}.int8", step, f"{matrix}.step", zero]
    yield helper.make_node("MatMulIntegerToFloat", columns, [f"{output}.columns"], domain=DOMAIN)
    yield helper.make_node("Mul", [f"{output}.columns", f"{rows}.range"], [output])


def _constants() -> Iterator[onnx.TensorProto]:
    for steps in (_SIGNED, _POSITIVE):
        step, zero = steps.constants
        yield numpy_helper.from_array(np.array(1 / steps.from_0_to_1, dtype=np.float32), step)
        yield numpy_helper.from_array(np.array(steps.zero, dtype=np.uint8), zero)


def _integers(name: str, matrix: NDArray[np.float32]) -> Iterator[onnx.TensorProto]:
    """(K, N) float → int8 and a step per column."""
    step = np.maximum(np.abs(matrix).max(axis=0), np.float32(1e-20)) / np.float32(_STEPS)
    yield numpy_helper.from_array(np.round(matrix / step).astype(np.int8), f"{name}.int8")
    yield numpy_helper.from_array(step.astype(np.float32), f"{name}.step")
