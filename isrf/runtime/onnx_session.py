"""Opens exported graphs with ONNX Runtime: the only place that makes sessions, and a graph as a callable.

A call uses one thread by default: calls already run in parallel in the caller's pool, and a second thread pool inside
each call would only make them wait for each other.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from isrf.contract.errors import BundleError
from isrf.contract.manifest import GraphSpec, TensorSpec
from isrf.method.recommend.recommender import Graph
from isrf.runtime.run_limit import run_within

CPU = "CPUExecutionProvider"
Provider = str | tuple[str, dict[str, str]]
"""ONNX Runtime's name of an execution provider, or the name with its options."""


def open_session(
    model: Path | bytes, *, providers: Sequence[Provider] = (CPU,), threads: int = 1
) -> onnxruntime.InferenceSession:
    """Opens a session from a graph's file or bytes; raises what ONNX Runtime raises.

    Args:
        model: the `.onnx` file, or its content.
        providers: execution providers, the best first; ONNX Runtime skips a provider that is not available.
        threads: threads of one call.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # an error is raised; ONNX Runtime must not log it as well
    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, providers=list(providers)
    )


def open_bundle_session(
    name: str, model: Path | bytes, expected: GraphSpec, *, providers: Sequence[Provider] = (CPU,)
) -> onnxruntime.InferenceSession:
    """Opens the session of a release's graph and checks its signature against the manifest.

    Raises:
        BundleError: `bundle.graph_unreadable`, `bundle.graph_mismatch`.
    """
    try:
        session = open_session(model, providers=providers)
    except Exception as error:
        raise BundleError(
            "bundle.graph_unreadable",
            f"{name} cannot be opened by ONNX Runtime {onnxruntime.__version__}: {error}.",
            fix="Publish the release again, with a version of ONNX Runtime that is not newer than the service's.",
        ) from error
    found = signature_of(session)
    if found != expected:
        raise BundleError(
            "bundle.graph_mismatch",
            f"{name}: its inputs or outputs are not the manifest's ({_difference(found, expected)}).",
            fix="Publish the release again; its parts come from different runs.",
        )
    return session


def open_graph(path: Path) -> Graph:
    """Opens a graph's file as a callable on the CPU: inputs by name → outputs by name."""
    return graph_of(open_session(path), path.name)


def open_bundle_graph(name: str, model: Path | bytes, expected: GraphSpec) -> Graph:
    """Opens a release's graph as a callable on the CPU; raises as `open_bundle_session`."""
    return graph_of(open_bundle_session(name, model, expected), name)


def graph_of(session: onnxruntime.InferenceSession, name: str) -> Graph:
    """A session as a callable, inputs by name → outputs by name; a run obeys `isrf.runtime.run_limit`."""
    outputs = [output.name for output in session.get_outputs()]
    input_names = [value.name for value in session.get_inputs()]

    def run(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        feeds = {input_name: inputs[input_name] for input_name in input_names}
        values = run_within(name, lambda options: session.run(None, feeds, options))
        return {output: np.asarray(value) for output, value in zip(outputs, values, strict=True)}

    return run


def signature_of(session: onnxruntime.InferenceSession) -> GraphSpec:
    """A session's signature: names, dtypes and symbolic shapes, in the manifest's form."""

    def tensors(values: Sequence[Any]) -> dict[str, TensorSpec]:
        return {value.name: TensorSpec(dtype=value.type, shape=tuple(value.shape)) for value in values}

    return GraphSpec(inputs=tensors(session.get_inputs()), outputs=tensors(session.get_outputs()))


def graph_signature(path: Path) -> GraphSpec:
    """The signature of a graph's file."""
    return signature_of(open_session(path))


def _difference(found: GraphSpec, expected: GraphSpec) -> str:
    actual, wanted = found.inputs | found.outputs, expected.inputs | expected.outputs
    return ", ".join(sorted(name for name in actual.keys() | wanted.keys() if actual.get(name) != wanted.get(name)))
