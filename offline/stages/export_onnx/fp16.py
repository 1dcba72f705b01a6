"""The search with 16-bit matrices, for GPUs: each large product computed in half precision, all else in fp32.

What T5 is known to overflow in half precision, the residual stream and the softmax, stays in fp32; so does whatever is
compared between items. A processor without half-precision products computes the same in fp32, only slower.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from offline.stages.export_onnx.matmul_rewrite import Rows, exchange_products

_LARGEST = float(np.finfo(np.float16).max)


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the graph in which the products with the stacks' matrices are of half precision."""
    result = exchange_products(model, _Halves())
    onnx.checker.check_model(result)
    return result


class _Halves:
    """`offline.stages.export_onnx.matmul_rewrite.Exchange`."""

    def read(self, rows: Rows) -> Iterator[onnx.NodeProto]:
        yield helper.make_node("Cast", [rows.name], [f"{rows.name}.fp16"], to=TensorProto.FLOAT16)

    def product(self, rows: Rows, matrix: str, output: str) -> Iterator[onnx.NodeProto]:
        yield helper.make_node("MatMul", [f"{rows.name}.fp16", f"{matrix}.fp16"], [f"{output}.fp16"])
        yield helper.make_node("Cast", [f"{output}.fp16"], [output], to=TensorProto.FLOAT)

    def stored(self, name: str, matrix: NDArray[np.float32]) -> Iterator[onnx.TensorProto]:
        yield numpy_helper.from_array(np.clip(matrix, -_LARGEST, _LARGEST).astype(np.float16), f"{name}.fp16")
