"""Opens an exported graph with ONNX Runtime as a callable of arrays, and reads its signature."""

from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from isrf.contract.manifest import GraphSpec, TensorSpec
from isrf.method.recommend.recommender import Graph
from isrf.runtime.run_limit import run_within


def open_graph(path: Path) -> Graph:
    """Runs on the CPU, each call in one thread, as it is served; inputs and outputs by name."""
    return _runner(path.name, _session(str(path)))


def open_verified(name: str, content: bytes) -> tuple[Graph, GraphSpec]:
    """As `open_graph` and `graph_signature` of a file whose bytes somebody has read and verified."""
    session = _session(content)
    return _runner(name, session), _signature(session)


def graph_signature(path: Path) -> GraphSpec:
    """Names, dtypes and symbolic shapes, as they go into the manifest."""
    return _signature(_session(str(path)))


def _runner(file: str, session: Any) -> Graph:
    names = [output.name for output in session.get_outputs()]
    taken = [value.name for value in session.get_inputs()]

    def run(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        values = run_within(file, lambda options: session.run(None, {name: inputs[name] for name in taken}, options))
        return dict(zip(names, values, strict=True))

    return run


def _signature(session: Any) -> GraphSpec:
    def tensors(values: list[Any]) -> dict[str, TensorSpec]:
        return {value.name: TensorSpec(dtype=value.type, shape=tuple(value.shape)) for value in values}

    return GraphSpec(inputs=tensors(session.get_inputs()), outputs=tensors(session.get_outputs()))


def _session(model: str | bytes) -> Any:
    """Of a file's path or bytes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised, and told once
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
