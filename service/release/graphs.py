"""Opens a release's ONNX graphs on the configured device: the CPU or a GPU.

On a GPU the tables over all items stay in its memory from one call to the next.
"""

import threading
from collections.abc import Collection
from typing import Any

import numpy as np
import onnxruntime
import structlog
from numpy.typing import NDArray

from isrf.contract.errors import ConfigError
from isrf.contract.manifest import GraphSpec
from isrf.method.recommend.recommender import Graph
from isrf.runtime.limits.run_limit import run_within
from isrf.runtime.onnx_session import CPU, BundleSession, Provider, graph_of, open_bundle_session
from service.settings import DeviceName

CUDA = "CUDAExecutionProvider"
_CUDA_OPTIONS = {"use_tf32": "0"}
"""Full fp32: TensorFloat-32 has a mantissa of 10 bits, and the golden requests would fail."""

_log = structlog.get_logger("service")


def open_graph(
    name: str,
    content: NDArray[np.uint8],
    expected: GraphSpec,
    *,
    device: DeviceName = "cpu",
    tables: Collection[str] = (),
) -> Graph:
    """Opens a graph as a function from inputs by name to outputs by name.

    Args:
        name: of the `.onnx` file.
        content: the file's verified bytes, (n,).
        expected: the graph's signature in the manifest.
        device: where the graph runs.
        tables: inputs that are the same arrays in most calls; they are copied to a GPU only when they change.

    Raises:
        BundleError: the file cannot be read or does not match the manifest.
        ConfigError: the device is `cuda`, and the graph does not run there.
    """
    session, own_tables = _session(name, content, expected, device)
    if session.get_providers()[0] == CUDA:
        return BoundGraph(session, tables, memory="cuda", name=name)
    return graph_of(session, name, own_tables)


class BoundGraph:
    """A graph whose tables stay in the device's memory; threads may share it."""

    def __init__(self, session: Any, tables: Collection[str], *, memory: str, name: str = "the graph") -> None:
        """memory: ONNX Runtime's name of the device's memory, "cuda" or "cpu"."""
        self._session, self._memory, self._name = session, memory, name
        self._inputs = [value.name for value in session.get_inputs()]
        self._outputs = [value.name for value in session.get_outputs()]
        self._tables = frozenset(tables) & frozenset(self._inputs)
        self._device_copies: dict[
            str, tuple[NDArray[Any], Any]
        ] = {}  # name → the last array and its copy on the device
        self._lock = threading.Lock()

    def __call__(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        binding, copies = self._session.io_binding(), self._copies(inputs)
        for name in self._inputs:
            if name in copies:
                binding.bind_ortvalue_input(name, copies[name])
            else:
                binding.bind_cpu_input(name, np.ascontiguousarray(inputs[name]))
        for name in self._outputs:
            binding.bind_output(name, "cpu")
        run_within(self._name, lambda options: self._session.run_with_iobinding(binding, options))
        return dict(zip(self._outputs, binding.copy_outputs_to_cpu(), strict=True))

    def _copies(self, inputs: dict[str, NDArray[Any]]) -> dict[str, Any]:
        """Returns the tables' copies on the device, and copies again those that have changed.

        A table has changed where its array is another object: tables are never changed in place.
        """
        with self._lock:
            for name in self._tables:
                array = inputs[name]
                if name not in self._device_copies or self._device_copies[name][0] is not array:
                    copy = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._memory, 0)
                    self._device_copies[name] = (array, copy)
            return {name: copy for name, (_, copy) in self._device_copies.items()}


def _session(name: str, content: NDArray[np.uint8], expected: GraphSpec, device: DeviceName) -> BundleSession:
    providers: list[Provider] = [CPU]
    if device != "cpu" and CUDA in onnxruntime.get_available_providers():
        onnxruntime.preload_dlls()  # CUDA's libraries from their own wheels
        providers = [(CUDA, _CUDA_OPTIONS), CPU]
    found = open_bundle_session(name, content, expected, providers=providers)
    # ONNX Runtime silently falls back to the CPU where it finds no GPU or not all of CUDA's libraries.
    runs_on = found.session.get_providers()[0]
    if device == "cuda" and runs_on != CUDA:
        raise ConfigError(
            "config.no_gpu",
            f"ISRF_DEVICE is cuda, but ONNX Runtime {onnxruntime.__version__} runs {name} on {runs_on}.",
            fix="Install docker/requirements-gpu.txt in an environment of its own, check that the process sees the GPU "
            "(`nvidia-smi`), or set ISRF_DEVICE=cpu.",
        )
    if device != "cpu":
        _log.info("graph_opened", graph=name, provider=runs_on)
    return found
