"""Opens an exported graph with ONNX Runtime as a callable of arrays, and reads its signature."""

from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from isrf.bundle import GraphSpec, TensorSpec
from isrf.recommend import Graph
from isrf.runtime.run_limit import run_within


def open_graph(path: Path, content: bytes | None = None) -> Graph:
    """Runs on the CPU, each call in one thread, as it is served; inputs and outputs by name.

    `content` are the file's bytes, where somebody has read and verified them.
    """
    session = _session(path, content)
    names = [output.name for output in session.get_outputs()]
    taken = [value.name for value in session.get_inputs()]

    def run(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        values = run_within(
            path.name, lambda options: session.run(None, {name: inputs[name] for name in taken}, options)
        )
        return dict(zip(names, values, strict=True))

    return run


def graph_signature(path: Path, content: bytes | None = None) -> GraphSpec:
    """Names, dtypes and symbolic shapes, as they go into the manifest."""
    session = _session(path, content)

    def tensors(values: list[Any]) -> dict[str, TensorSpec]:
        return {value.name: TensorSpec(dtype=value.type, shape=tuple(value.shape)) for value in values}

    return GraphSpec(inputs=tensors(session.get_inputs()), outputs=tensors(session.get_outputs()))


def _session(path: Path, content: bytes | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised, and told once
    return onnxruntime.InferenceSession(content or str(path), options, providers=["CPUExecutionProvider"])
