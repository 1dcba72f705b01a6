"""The search with 8-bit matrices: exported in fp32, then each large product made one of integers.

Weights are quantised per column when it is made, activations per *row* when it runs: a row's scale is its own largest
value, and integers add up exactly, so an answer does not depend on who shares the batch. ONNX Runtime's own dynamic
quantisation takes one scale for the whole tensor, which does; its blockwise kernel (`MatMulNBits`) was half as fast.

It knows graphs, not models: what such a graph loses is measured by `offline.evaluate`.
"""

import re
from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_PART = re.compile(r"/(q|k|v|o|wi|wo)(_\d+)?/MatMul$")
"""Matrices of T5's stacks as the exporter names their products: attention and feed-forward."""

_DOMAIN = "com.microsoft"
_STEPS = 127
_ZERO = "int8.zero"
_ONE = "int8.one"
_TOP = "int8.top"
_LEAST = "int8.least"


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
    nodes: list[onnx.NodeProto] = []
    quantised_rows: set[str] = set()
    for node in graph.node:
        if node.output[0] not in chosen:
            nodes.append(node)
            continue
        rows = node.input[0]
        if rows not in quantised_rows:  # queries, keys and values are made of the same rows
            nodes += _quantise_rows(rows)
            quantised_rows.add(rows)
        nodes += _product(rows, chosen[node.output[0]], node.output[0])
    result.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
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


def _quantise_rows(rows: str) -> Iterator[onnx.NodeProto]:
    """`rows` (…, K) float → `.int8` (…, K) uint8 around 128, and `.step` (…, 1) float, one per row."""
    yield helper.make_node("Abs", [rows], [f"{rows}.size"])
    yield helper.make_node("ReduceMax", [f"{rows}.size"], [f"{rows}.largest"], axes=[-1], keepdims=1)
    yield helper.make_node("Max", [f"{rows}.largest", _LEAST], [f"{rows}.range"])
    yield helper.make_node("Div", [f"{rows}.range", _TOP], [f"{rows}.step"])
    yield helper.make_node("Div", [rows, f"{rows}.step"], [f"{rows}.scaled"])
    yield helper.make_node("QuantizeLinear", [f"{rows}.scaled", _ONE, _ZERO], [f"{rows}.int8"])


def _product(rows: str, matrix: str, output: str) -> Iterator[onnx.NodeProto]:
    columns = [f"{rows}.int8", f"{matrix}.int8", _ONE, f"{matrix}.step", _ZERO]
    yield helper.make_node("MatMulIntegerToFloat", columns, [f"{output}.columns"], domain=_DOMAIN)
    yield helper.make_node("Mul", [f"{output}.columns", f"{rows}.step"], [output])


def _constants() -> Iterator[onnx.TensorProto]:
    yield numpy_helper.from_array(np.array(128, dtype=np.uint8), _ZERO)
    yield numpy_helper.from_array(np.array(1, dtype=np.float32), _ONE)
    yield numpy_helper.from_array(np.array(_STEPS, dtype=np.float32), _TOP)
    yield numpy_helper.from_array(np.array(1e-20, dtype=np.float32), _LEAST)


def _integers(name: str, matrix: NDArray[np.float32]) -> Iterator[onnx.TensorProto]:
    """(K, N) float → int8 and a step per column."""
    step = np.maximum(np.abs(matrix).max(axis=0), np.float32(1e-20)) / np.float32(_STEPS)
    yield numpy_helper.from_array(np.round(matrix / step).astype(np.int8), f"{name}.int8")
    yield numpy_helper.from_array(step.astype(np.float32), f"{name}.step")
