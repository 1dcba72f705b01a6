"""A graph that can be sent to another process: it goes as its bytes, and is opened there."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isrf.contract.manifest import GraphSpec
from isrf.method.recommend.recommender import Graph
from isrf.runtime.onnx_session import graph_of, open_bundle_graph, open_session


class SentGraph:
    """A graph on the CPU as a callable, inputs by name → outputs by name; it can be pickled."""

    def __init__(self, name: str, model: Path | bytes | NDArray[np.uint8], run: Graph | None = None) -> None:
        """
        Args:
            name: the graph's file name, for messages.
            model: the file, or its content.
            run: the opened graph; None opens the model.
        """
        self._name, self._model = name, model
        if run is None:
            run = graph_of(open_session(model if isinstance(model, Path) else bytes(model)), name)
        self._run = run

    def __call__(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return self._run(inputs)

    def __reduce__(self) -> tuple[type["SentGraph"], tuple[str, bytes]]:
        model = self._model.read_bytes() if isinstance(self._model, Path) else bytes(self._model)
        return SentGraph, (self._name, model)


def open_graph(path: Path) -> SentGraph:
    """Opens a graph's file."""
    return SentGraph(path.name, path)


def open_release_graph(name: str, content: NDArray[np.uint8], expected: GraphSpec) -> SentGraph:
    """Opens a release's graph; raises as `isrf.runtime.onnx_session.open_bundle_session`."""
    return SentGraph(name, content, open_bundle_graph(name, content, expected))
