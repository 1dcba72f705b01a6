"""Makes the fp16 variant of the search graph, for GPUs: large products in half precision, everything else in fp32.

The residual stream and the softmax stay in fp32, because T5 overflows there in half precision. Scores that are compared
between items stay in fp32 too. A processor without half-precision products computes them in fp32, only slower.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from offline.stages.export_onnx.matmul_rewrite import Rows, exchange_products

_LARGEST = float(np.finfo(np.float16).max)


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the graph in which the products with the stacks' matrices use half precision."""
    result = exchange_products(model, _Halves())
    onnx.checker.check_model(result)
    return result


class _Halves:
    """The `offline.stages.export_onnx.matmul_rewrite.Exchange` for half precision."""

    def read(self, rows: Rows) -> Iterator[onnx.NodeProto]:
        yield helper.make_node("Cast", [rows.name], [f"{rows.name}.fp16"], to=TensorProto.FLOAT16)

    def product(self, rows: Rows, matrix: str, output: str) -> Iterator[onnx.NodeProto]:
        yield helper.make_node("MatMul", [f"{rows.name}.fp16", f"{matrix}.fp16"], [f"{output}.fp16"])
        yield helper.make_node("Cast", [f"{output}.fp16"], [output], to=TensorProto.FLOAT)

    def stored(self, name: str, matrix: NDArray[np.float32]) -> Iterator[onnx.TensorProto]:
        yield numpy_helper.from_array(np.clip(matrix, -_LARGEST, _LARGEST).astype(np.float16), f"{name}.fp16")
