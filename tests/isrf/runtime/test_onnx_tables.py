"""A graph reads its item tables where its file lies, and computes the same to the last bit."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from isrf.runtime.onnx_session import graph_of, open_session
from isrf.runtime.onnx_tables import ALIGNMENT, TAKEN_FROM, aligned_tables, split_tables

ROWS, WIDTH = 5_000, 64
HISTORY = np.array([[3, 4_999, 0], [1, 1, 2]])


def model_of(*tables: NDArray[np.float32], doc: str = "") -> bytes:
    """A graph that sums rows of its tables."""
    names = [f"table_{number}" for number in range(len(tables))]
    nodes = [helper.make_node("Gather", [name, "history"], [f"{name}_rows"]) for name in names]
    nodes.append(helper.make_node("Sum", [f"{name}_rows" for name in names], ["out"]))
    graph = helper.make_graph(
        nodes,
        "g" + doc,
        [helper.make_tensor_value_info("history", TensorProto.INT64, ["B", "H"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["B", "H", tables[0].shape[1]])],
        [numpy_helper.from_array(table, name) for name, table in zip(names, tables, strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def random_tables(count: int = 2, rows: int = ROWS) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((rows, WIDTH), dtype=np.float32) for _ in range(count)]


def bytes_of(content: bytes) -> NDArray[np.uint8]:
    """The bytes at an aligned address, as those of a mapped file are."""
    room = np.empty(len(content) + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    room[start : start + len(content)] = np.frombuffer(content, np.uint8)
    return room[start : start + len(content)]


@pytest.mark.parametrize("doc", ["", "x", "long" * 50, "longer" * 20_000])
def test_tables_are_views_of_an_aligned_file(doc: str) -> None:
    tables = random_tables()
    content = bytes_of(aligned_tables(model_of(*tables, doc=doc)))
    split = split_tables(content)
    assert len(split.model) < 2_000 + len(doc)
    for name, table in zip(("table_0", "table_1"), tables, strict=True):
        np.testing.assert_array_equal(split.tables[name], table)
        assert np.shares_memory(split.tables[name], content)


@pytest.mark.parametrize("is_aligned", [True, False])
def test_the_split_graph_computes_the_same(is_aligned: bool) -> None:
    whole = model_of(*random_tables())
    split = split_tables(bytes_of(aligned_tables(whole) if is_aligned else whole))
    ours = graph_of(open_session(split.model), "g", split.tables)({"history": HISTORY})
    theirs = graph_of(open_session(whole), "g")({"history": HISTORY})
    np.testing.assert_array_equal(ours["out"], theirs["out"])


def test_an_aligned_model_is_the_same_model() -> None:
    whole = model_of(*random_tables())
    aligned = onnx.load_model_from_string(aligned_tables(whole))
    for tensor in aligned.graph.initializer:
        tensor.ClearField("doc_string")
    assert aligned.SerializeToString(deterministic=True) == whole


def test_small_tables_and_matrices_stay_constants() -> None:
    rng = np.random.default_rng(0)
    square = rng.standard_normal((1_000, 1_000), dtype=np.float32)
    small = rng.standard_normal((TAKEN_FROM // 4 // WIDTH - 10, WIDTH), dtype=np.float32)
    for table in (square, small):
        assert split_tables(bytes_of(model_of(table))).tables == {}


@pytest.mark.parametrize("cut", [1, 40, 1_000_000, 2_000_000])
def test_a_broken_file_stays_whole(cut: int) -> None:
    content = model_of(*random_tables())[:-cut]
    split = split_tables(bytes_of(content))
    assert split.model == content
    assert split.tables == {}


def test_noise_stays_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for size in (0, 1, 10, 1_000, 100_000):
        noise = rng.integers(0, 256, size, dtype=np.uint8)
        split = split_tables(noise)
        if not split.tables:
            assert split.model == noise.tobytes()
