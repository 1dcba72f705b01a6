"""A release's graphs where they are to run: on the CPU, or on a GPU where there is one.

On a GPU the tables over all items stay in its memory from one call to the next.
"""

import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import structlog
from numpy.typing import NDArray

from isrf.contract.errors import ConfigError
from isrf.contract.manifest import GraphSpec
from isrf.method.recommend.recommender import Graph
from isrf.runtime.onnx_session import CPU, Provider, graph_of, open_bundle_session
from isrf.runtime.run_limit import run_within
from service.settings import DeviceName

CUDA = "CUDAExecutionProvider"
_CUDA_OPTIONS = {"use_tf32": "0"}
"""fp32 is fp32: TensorFloat-32 keeps 10 bits of it, and the goldens would not be met."""

_log = structlog.get_logger("service")


def open_graph(
    path: Path,
    expected: GraphSpec,
    *,
    content: bytes | None = None,
    device: DeviceName = "cpu",
    tables: Collection[str] = (),
) -> Graph:
    """The graph as inputs by name → outputs by name.

    Args:
        path: of the `.onnx` file.
        content: its bytes, where somebody has read and verified them.
        expected: its signature, as the manifest has it.
        device: where it runs.
        tables: inputs that are the same arrays in most calls; they are copied to a GPU when they change.

    Raises:
        BundleError: it cannot be read, or is not the manifest's.
        ConfigError: `cuda`, and it does not run there.
    """
    session = _session(path, expected, device, content)
    if session.get_providers()[0] == CUDA:
        return BoundGraph(session, tables, memory="cuda", name=path.name)
    return graph_of(session, path.name)


class BoundGraph:
    """A graph whose tables stay where it runs; threads may share it."""

    def __init__(self, session: Any, tables: Collection[str], *, memory: str, name: str = "the graph") -> None:
        """`memory` is ONNX Runtime's name of the device's: "cuda" or "cpu"."""
        self._session, self._memory, self._name = session, memory, name
        self._inputs = [value.name for value in session.get_inputs()]
        self._outputs = [value.name for value in session.get_outputs()]
        self._tables = frozenset(tables) & frozenset(self._inputs)
        self._held: dict[str, tuple[NDArray[Any], Any]] = {}  # by name the last array, and its copy
        self._lock = threading.Lock()

    def __call__(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        binding, held = self._session.io_binding(), self._copies(inputs)
        for name in self._inputs:
            if name in held:
                binding.bind_ortvalue_input(name, held[name])
            else:
                binding.bind_cpu_input(name, np.ascontiguousarray(inputs[name]))
        for name in self._outputs:
            binding.bind_output(name, "cpu")
        run_within(self._name, lambda options: self._session.run_with_iobinding(binding, options))
        return dict(zip(self._outputs, binding.copy_outputs_to_cpu(), strict=True))

    def _copies(self, inputs: dict[str, NDArray[Any]]) -> dict[str, Any]:
        """The tables where the graph runs: the last ones, or new copies of those that have changed.

        Each is known by the very array: whoever changes a table makes another.
        """
        with self._lock:
            for name in self._tables:
                array = inputs[name]
                if name not in self._held or self._held[name][0] is not array:
                    there = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._memory, 0)
                    self._held[name] = (array, there)
            return {name: there for name, (_, there) in self._held.items()}


def _session(path: Path, expected: GraphSpec, device: DeviceName, content: bytes | None) -> Any:
    wanted: list[Provider] = [CPU]
    if device != "cpu" and CUDA in onnxruntime.get_available_providers():
        onnxruntime.preload_dlls()  # CUDA's libraries out of their own wheels
        wanted = [(CUDA, _CUDA_OPTIONS), CPU]
    session = open_bundle_session(path.name, content or path, expected, providers=wanted)
    # Asked for CUDA, ONNX Runtime goes on without where it finds no GPU or not all of its libraries.
    runs_on = session.get_providers()[0]
    if device == "cuda" and runs_on != CUDA:
        raise ConfigError(
            "config.no_gpu",
            f"{path.name} was to run on a CUDA GPU, and ONNX Runtime {onnxruntime.__version__} runs it on {runs_on}.",
            fix="Install docker/requirements-gpu.txt in an environment of its own, see that the GPU is visible to the "
            "process (`nvidia-smi`), or set ISRF_DEVICE=cpu.",
        )
    if device != "cpu":
        _log.info("graph_opened", graph=path.name, provider=runs_on)
    return session
