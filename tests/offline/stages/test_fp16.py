"""The search with 16-bit matrices answers nearly what fp32 does, and holds each matrix once, in half the room."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from isrf.method.trie import build_trie
from isrf.nn.search import ConstrainedSearch
from offline.stages.export_onnx.fp16 import halved
from offline.stages.export_onnx.stage import export_search
from tests.isrf.nn.toy import make_model, make_request, random_ids, search_inputs

BATCH = 4


@pytest.fixture(scope="module")
def search() -> ConstrainedSearch:
    return ConstrainedSearch(make_model(random_ids(60, 3, 6), 6), num_beams=5)


@pytest.fixture(scope="module")
def exact(search: ConstrainedSearch, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    path = tmp_path_factory.mktemp("fp16") / "fp32.onnx"
    export_search(search, build_trie(random_ids(60, 3, 6), 6), path)
    return onnx.load_model(str(path))


def _answer(model: onnx.ModelProto, arrays: dict[str, Any]) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, arrays), strict=True))


def test_scores_stay_near_those_of_fp32(search: ConstrainedSearch, exact: onnx.ModelProto) -> None:
    inputs = search_inputs(search, random_ids(60, 3, 6), **make_request(search.model, BATCH))
    arrays = {name: value.numpy() for name, value in zip(search.input_names, inputs, strict=True)}
    wanted, found = _answer(exact, arrays), _answer(halved(exact), arrays)
    assert not np.array_equal(wanted["query"], found["query"])
    np.testing.assert_allclose(found["query"], wanted["query"], atol=0.02)
    off = []
    for row in range(BATCH):
        theirs = dict(zip(wanted["beam_items"][row], wanted["beam_log_probs"][row], strict=True))
        ours = dict(zip(found["beam_items"][row], found["beam_log_probs"][row], strict=True))
        off += [abs(theirs[item] - ours[item]) for item in theirs.keys() & ours.keys()]
    assert len(off) >= BATCH * 4
    assert np.mean(off) < 0.02


def test_every_matrix_of_the_stacks_stands_once_in_half_the_room(
    search: ConstrainedSearch, exact: onnx.ModelProto
) -> None:
    graph = halved(exact).graph
    spec = search.model.spec.stacks
    matrices = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16]
    assert len(matrices) == 4 * spec.num_layers + 6 * spec.num_decoder_layers + 1
    kept = {tensor.name for tensor in graph.initializer}
    assert not kept & {tensor.name.removesuffix(".fp16") for tensor in matrices}


def test_weights_beyond_half_precision_are_as_large_as_it_goes(exact: onnx.ModelProto) -> None:
    """And not infinite: one such weight would make every answer no number."""
    large = onnx.ModelProto()
    large.CopyFrom(exact)
    name = halved(exact).graph.initializer[-1].name.removesuffix(".fp16")
    tensor = next(one for one in large.graph.initializer if one.name == name)
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[0, 0] = 1e6
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))
    stored = next(one for one in halved(large).graph.initializer if one.name == f"{name}.fp16")
    assert float(onnx.numpy_helper.to_array(stored)[0, 0]) == float(np.finfo(np.float16).max)
