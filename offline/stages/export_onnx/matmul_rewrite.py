"""Exchanges the large products of an exported search graph: those with the matrices of T5's stacks.

For forms of the search that compute these otherwise than in fp32 (`offline.stages.export_onnx.int8`,
`offline.stages.export_onnx.fp16`). It knows graphs, not models: what such a graph loses is measured by
`offline.stages.evaluate`.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

_PART = re.compile(r"/(qkv|kv|q|o|wi|wo)(_\d+)?/MatMul$")
"""Matrices of T5's stacks as the exporter names their products: attention (some of them joined) and feed-forward."""


class Rows(NamedTuple):
    """The tensor on a product's left."""

    name: str
    positive: bool  # nothing in it is below 0


class Exchange(Protocol):
    """What stands in place of `rows @ matrix`; names are those of tensors."""

    def read(self, rows: Rows) -> Iterable[onnx.NodeProto]:
        """What is made of the rows once, for all products that they take part in."""
        ...

    def product(self, rows: Rows, matrix: str, output: str) -> Iterable[onnx.NodeProto]:
        """One product."""
        ...

    def stored(self, name: str, matrix: NDArray[np.float32]) -> Iterable[onnx.TensorProto]:
        """What is kept of a matrix (K, N)."""
        ...


def exchange_products(model: onnx.ModelProto, exchange: Exchange) -> onnx.ModelProto:
    """A copy of the graph in which the products with the stacks' matrices are others; each matrix stands once."""
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
    read: set[str] = set()
    for node in graph.node:
        if node.output[0] not in chosen:
            nodes.append(node)
            continue
        rows = Rows(node.input[0], positive=node.input[0] in relu)
        if rows.name not in read:  # a gated feed-forward layer reads the same rows twice
            nodes += exchange.read(rows)
            read.add(rows.name)
        nodes += exchange.product(rows, chosen[node.output[0]], node.output[0])
    read_by_others = {name for node in nodes for name in node.input}
    nodes = [node for node in nodes if node.op_type != "Identity" or node.output[0] in read_by_others]
    del graph.node[:]
    graph.node.extend(nodes)
    still_used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in still_used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    for name, matrix in matrices.items():
        graph.initializer.extend(exchange.stored(name, matrix))
    return result
