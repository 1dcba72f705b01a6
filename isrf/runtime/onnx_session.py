"""Opens exported graphs with ONNX Runtime: the only place that makes sessions, and a graph as a callable.

A call uses one thread by default: calls already run in parallel in the caller's pool, and a second thread pool inside
each call would only make them wait for each other.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from isrf.contract.errors import BundleError
from isrf.contract.manifest import INTEREST_GRAPH_FILE, GraphSpec, TensorSpec
from isrf.method.recommend.recommender import Graph
from isrf.runtime.limits.run_limit import run_within
from isrf.runtime.onnx_tables import SplitModel, split_tables

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


class BundleSession(NamedTuple):
    """The session of a release's graph, and the tables that it takes as inputs in every run."""

    session: onnxruntime.InferenceSession
    tables: Mapping[str, NDArray[Any]]


def open_bundle_session(
    name: str, content: NDArray[np.uint8], expected: GraphSpec, *, providers: Sequence[Provider] = (CPU,)
) -> BundleSession:
    """Opens the session of a release's graph and checks its signature against the manifest.

    The interest graph's item tables stay where the file's bytes are; the manifest does not name them as inputs.

    Args:
        name: the graph's file name.
        content: the file's bytes, (n,).
        expected: the signature in the manifest.
        providers: as in `open_session`.

    Raises:
        BundleError: `bundle.graph_unreadable`, `bundle.graph_mismatch`.
    """
    model = split_tables(content) if name == INTEREST_GRAPH_FILE else SplitModel(content.tobytes(), {})
    try:
        session = open_session(model.model, providers=providers)
    except Exception as error:
        raise BundleError(
            "bundle.graph_unreadable",
            f"{name} cannot be opened by ONNX Runtime {onnxruntime.__version__}: {error}.",
            fix="Publish the release again, with a version of ONNX Runtime that is not newer than the service's.",
        ) from error
    found = signature_of(session)
    own = {value: tensor for value, tensor in found.inputs.items() if value not in model.tables}
    found = found.model_copy(update={"inputs": own})
    if found != expected:
        raise BundleError(
            "bundle.graph_mismatch",
            f"{name}: its inputs or outputs are not the manifest's ({_difference(found, expected)}).",
            fix="Publish the release again; its parts come from different runs.",
        )
    return BundleSession(session, model.tables)


def open_graph(path: Path) -> Graph:
    """Opens a graph's file as a callable on the CPU: inputs by name → outputs by name."""
    return graph_of(open_session(path), path.name)


def open_bundle_graph(name: str, content: NDArray[np.uint8], expected: GraphSpec) -> Graph:
    """Opens a release's graph as a callable on the CPU; raises as `open_bundle_session`."""
    session, tables = open_bundle_session(name, content, expected)
    return graph_of(session, name, tables)


def graph_of(
    session: onnxruntime.InferenceSession, name: str, tables: Mapping[str, NDArray[Any]] | None = None
) -> Graph:
    """A session as a callable, inputs by name → outputs by name; a run obeys `isrf.runtime.limits.run_limit`.

    Args:
        session: the session.
        name: the graph's file name, for messages.
        tables: inputs that are the same in every run, so that no caller passes them.
    """
    fixed = dict(tables or {})
    outputs = [output.name for output in session.get_outputs()]
    input_names = [value.name for value in session.get_inputs() if value.name not in fixed]

    def run(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        feeds = {input_name: inputs[input_name] for input_name in input_names} | fixed
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
