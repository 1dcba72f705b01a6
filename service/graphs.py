"""Opens an exported graph with ONNX Runtime as a callable of arrays, and says what its signature is.

One thread per call: calls run side by side in the engine's pool, and a second thread pool inside each would only make
them wait for each other.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from isrf.bundle import GraphSpec, TensorSpec
from isrf.errors import BundleError
from isrf.recommend import Graph

PROVIDERS = ("CPUExecutionProvider",)


def open_graph(path: Path, expected: GraphSpec) -> Graph:
    """The graph as inputs by name → outputs by name; `BundleError` if it cannot be read or is not the manifest's."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=list(PROVIDERS))
    except Exception as error:
        raise BundleError(
            "bundle.graph_unreadable",
            f"{path.name} cannot be opened by ONNX Runtime {onnxruntime.__version__}: {error}.",
            fix="Publish the release again, with a version of ONNX Runtime that is not newer than the service's.",
        ) from error
    if tuple(session.get_providers()) != PROVIDERS:
        raise BundleError(
            "bundle.graph_provider",
            f"{path.name} runs on {session.get_providers()}, {PROVIDERS} was asked for.",
            fix="Install one ONNX Runtime package only.",
        )
    found = _signature(session)
    if found != expected:
        raise BundleError(
            "bundle.graph_mismatch",
            f"{path.name}: its inputs or outputs are not the manifest's ({_difference(found, expected)}).",
            fix="Publish the release again; its parts come from different runs.",
        )
    names = list(found.outputs)

    def run(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        taken = {name: inputs[name] for name in found.inputs}
        return {name: np.asarray(value) for name, value in zip(names, session.run(None, taken), strict=True)}

    return run


def _signature(session: Any) -> GraphSpec:
    def tensors(values: list[Any]) -> dict[str, TensorSpec]:
        return {value.name: TensorSpec(dtype=value.type, shape=tuple(value.shape)) for value in values}

    return GraphSpec(inputs=tensors(session.get_inputs()), outputs=tensors(session.get_outputs()))


def _difference(found: GraphSpec, expected: GraphSpec) -> str:
    have, want = found.inputs | found.outputs, expected.inputs | expected.outputs
    return ", ".join(sorted(name for name in have.keys() | want.keys() if have.get(name) != want.get(name)))
