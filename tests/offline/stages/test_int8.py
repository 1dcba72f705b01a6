"""The search with integer matrices answers nearly what fp32 does, and the same whoever shares the batch."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from isrf.method.recommend.recommender import REQUEST_INPUTS
from isrf.method.trie import build_trie
from isrf.nn.search import ConstrainedSearch
from offline.stages.export_onnx.int8 import quantised
from offline.stages.export_onnx.stage import export_search
from tests.isrf.nn.toy import make_model, make_request, random_ids, search_inputs

BATCH = 16


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, dict[str, NDArray[Any]]]:
    """fp32 and int8 sessions of one random model, and the inputs of 16 requests."""
    path = tmp_path_factory.mktemp("int8") / "fp32.onnx"
    semantic_ids = random_ids(60, 3, 6)
    search = ConstrainedSearch(make_model(semantic_ids, 6), num_beams=5)
    export_search(search, build_trie(semantic_ids, 6), path)
    model = onnx.load_model(str(path))
    sessions = [
        onnxruntime.InferenceSession(one.SerializeToString(), providers=["CPUExecutionProvider"])
        for one in (model, quantised(model))
    ]
    inputs = search_inputs(search, semantic_ids, **make_request(search.model, BATCH))
    return *sessions, {name: value.numpy() for name, value in zip(search.input_names, inputs, strict=True)}


def _requests(arrays: dict[str, NDArray[Any]], rows: list[int]) -> dict[str, NDArray[Any]]:
    return {name: value[rows] if name in REQUEST_INPUTS else value for name, value in arrays.items()}


def test_alone_and_beside_fifteen_others_the_answer_is_the_same_to_the_last_bit(
    graphs: tuple[Any, Any, dict[str, NDArray[Any]]],
) -> None:
    _, int8, arrays = graphs
    together = int8.run(None, arrays)
    for row in range(BATCH):
        alone = int8.run(None, _requests(arrays, [row]))
        copies = int8.run(None, _requests(arrays, [row] * BATCH))
        for one, many, company in zip(alone, copies, together, strict=True):
            np.testing.assert_array_equal(many, np.repeat(one, BATCH, axis=0))
            np.testing.assert_array_equal(company[row], one[0])


def test_scores_stay_near_those_of_fp32(graphs: tuple[Any, Any, dict[str, NDArray[Any]]]) -> None:
    fp32, int8, arrays = graphs
    names = [output.name for output in fp32.get_outputs()]
    exact = dict(zip(names, fp32.run(None, arrays), strict=True))
    coarse = dict(zip(names, int8.run(None, arrays), strict=True))
    assert not np.array_equal(exact["query"], coarse["query"])
    cosine = np.sum(exact["query"] * coarse["query"], axis=1)
    cosine /= np.linalg.norm(exact["query"], axis=1) * np.linalg.norm(coarse["query"], axis=1)
    assert cosine.min() > 0.999
    off = []
    for row in range(BATCH):
        theirs = dict(zip(exact["beam_items"][row], exact["beam_log_probs"][row], strict=True))
        ours = dict(zip(coarse["beam_items"][row], coarse["beam_log_probs"][row], strict=True))
        off += [abs(theirs[item] - ours[item]) for item in theirs.keys() & ours.keys()]
    assert len(off) > 0.9 * BATCH * 5
    assert np.mean(off) < 0.3


def test_every_matrix_of_the_stacks_is_an_integer_one_and_stands_once(
    graphs: tuple[Any, Any, dict[str, NDArray[Any]]], tmp_path: Path
) -> None:
    semantic_ids = random_ids(60, 3, 6)
    search = ConstrainedSearch(make_model(semantic_ids, 6), num_beams=5)
    export_search(search, build_trie(semantic_ids, 6), tmp_path / "fp32.onnx")
    graph = quantised(onnx.load_model(str(tmp_path / "fp32.onnx"))).graph
    spec = search.model.spec.stacks
    matrices = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    joined = 4 * spec.num_layers + 6 * spec.num_decoder_layers  # queries, keys and values are one
    assert len(matrices) == joined + 1  # the source's keys and values of all decoder layers
    assert not {tensor.name for tensor in graph.initializer} & {one.name.removesuffix(".int8") for one in matrices}
    assert not [node.name for node in graph.node if node.op_type == "MatMul" and node.name.endswith("wo/MatMul")]
    steps = 3 * spec.num_decoder_layers * 6  # of decoding: all but the source's keys and values
    products = [node for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) == 4 * spec.num_layers + 1 + steps


def test_a_row_of_zeros_stays_one() -> None:
    rows = np.array([[0, 0, 0], [0.5, -2, 1], [0, 0, 0]], dtype=np.float32)
    weights = np.arange(12, dtype=np.float32).reshape(3, 4) - 5
    for relu in (False, True):
        nodes = [helper.make_node("Relu", ["x"], ["r"])] if relu else [helper.make_node("Identity", ["x"], ["r"])]
        nodes.append(helper.make_node("MatMul", ["r", "w"], ["y"], name="/q/MatMul"))
        graph = helper.make_graph(
            nodes,
            "product",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["R", 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["R", 4])],
            [numpy_helper.from_array(weights, "w")],
        )
        model = quantised(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"x": rows})
        np.testing.assert_array_equal(found[[0, 2]], 0)
        np.testing.assert_allclose(found[1], (np.maximum(rows, 0) if relu else rows)[1] @ weights, atol=0.1)
