"""Replaces the large products in an exported search graph: the products with the matrices of T5's stacks.

The variants `offline.stages.export_onnx.int8` and `offline.stages.export_onnx.fp16` use it to compute these products in
another precision. It works on graphs, not on models; `offline.stages.evaluate` measures what quality a variant loses.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

_PART = re.compile(r"/(qkv|kv|q|o|wi|wo)(_\d+)?/MatMul$")
"""Matches the exporter's names of products with the matrices of T5's stacks: attention (some joined), feed-forward."""


class Rows(NamedTuple):
    """The left tensor of a product."""

    name: str
    positive: bool  # whether it has no negative values


class Exchange(Protocol):
    """Makes the nodes that replace `rows @ matrix`; all names are names of tensors."""

    def read(self, rows: Rows) -> Iterable[onnx.NodeProto]:
        """Nodes that convert the rows; made once for all products with the same rows."""
        ...

    def product(self, rows: Rows, matrix: str, output: str) -> Iterable[onnx.NodeProto]:
        """Nodes that compute one product."""
        ...

    def stored(self, name: str, matrix: NDArray[np.float32]) -> Iterable[onnx.TensorProto]:
        """Tensors that store a converted matrix (K, N)."""
        ...


def exchange_products(model: onnx.ModelProto, exchange: Exchange) -> onnx.ModelProto:
    """A copy of the graph in which `exchange` replaces the products with the stacks' matrices; it stores each once."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    # The unrolled steps share their weights; from the second step on they read them through an Identity node.
    shared = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    replaced = {
        node.output[0]: shared.get(node.input[1], node.input[1]) for node in graph.node if _PART.search(node.name)
    }
    matrices = {name: numpy_helper.to_array(weights[name]) for name in sorted(set(replaced.values()))}
    relu = {node.output[0] for node in graph.node if node.op_type == "Relu"}
    nodes: list[onnx.NodeProto] = []
    read: set[str] = set()
    for node in graph.node:
        if node.output[0] not in replaced:
            nodes.append(node)
            continue
        rows = Rows(node.input[0], positive=node.input[0] in relu)
        if rows.name not in read:  # a gated feed-forward layer reads the same rows twice
            nodes += exchange.read(rows)
            read.add(rows.name)
        nodes += exchange.product(rows, replaced[node.output[0]], node.output[0])
    read_by_others = {name for node in nodes for name in node.input}
    nodes = [node for node in nodes if node.op_type != "Identity" or node.output[0] in read_by_others]
    del graph.node[:]
    graph.node.extend(nodes)
    still_used = {name for node in nodes for name in node.input}
    initializers = [tensor for tensor in graph.initializer if tensor.name in still_used]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    for name, matrix in matrices.items():
        graph.initializer.extend(exchange.stored(name, matrix))
    return result
