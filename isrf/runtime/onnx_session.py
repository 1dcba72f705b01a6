"""Opens an exported graph with ONNX Runtime: one factory of sessions, and each as a callable of arrays by name.

One thread a call unless more are asked for: calls run side by side in a pool of their own, and a second thread pool
inside each would only make them wait for each other.
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
"""ONNX Runtime's name of where a graph runs, or that with its options."""


def open_session(
    model: Path | bytes, *, providers: Sequence[Provider] = (CPU,), threads: int = 1
) -> onnxruntime.InferenceSession:
    """A session of a graph's file or bytes; raises what ONNX Runtime raises.

    Args:
        model: the `.onnx` file, or its content.
        providers: where it may run, the best first; ONNX Runtime goes on with the next where one is not to be had.
        threads: of one call.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised, and told once
    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, providers=list(providers)
    )


def open_bundle_session(
    name: str, model: Path | bytes, expected: GraphSpec, *, providers: Sequence[Provider] = (CPU,)
) -> onnxruntime.InferenceSession:
    """The session of a release's graph, held against the manifest's signature of it.

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
    """A graph's file as inputs by name → outputs by name, on the CPU."""
    return graph_of(open_session(path), path.name)


def open_bundle_graph(name: str, model: Path | bytes, expected: GraphSpec) -> Graph:
    """As `open_graph`, of a release's graph; raises as `open_bundle_session`."""
    return graph_of(open_bundle_session(name, model, expected), name)


def graph_of(session: onnxruntime.InferenceSession, name: str) -> Graph:
    """A session as inputs by name → outputs by name; a run ends as `isrf.runtime.run_limit` says."""
    outputs = [output.name for output in session.get_outputs()]
    taken = [value.name for value in session.get_inputs()]

    def run(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        own = {one: inputs[one] for one in taken}
        values = run_within(name, lambda options: session.run(None, own, options))
        return {output: np.asarray(value) for output, value in zip(outputs, values, strict=True)}

    return run


def signature_of(session: onnxruntime.InferenceSession) -> GraphSpec:
    """Names, dtypes and symbolic shapes, as they go into the manifest."""

    def tensors(values: Sequence[Any]) -> dict[str, TensorSpec]:
        return {value.name: TensorSpec(dtype=value.type, shape=tuple(value.shape)) for value in values}

    return GraphSpec(inputs=tensors(session.get_inputs()), outputs=tensors(session.get_outputs()))


def graph_signature(path: Path) -> GraphSpec:
    """`signature_of` a graph's file."""
    return signature_of(open_session(path))


def _difference(found: GraphSpec, expected: GraphSpec) -> str:
    have, want = found.inputs | found.outputs, expected.inputs | expected.outputs
    return ", ".join(sorted(name for name in have.keys() | want.keys() if have.get(name) != want.get(name)))
