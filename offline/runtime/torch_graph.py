"""Wraps the torch model in the same callable as an exported graph, for golden requests and equality tests."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from isrf.method.recommend.recommender import Graph
from isrf.nn.model import IsrfModel
from isrf.nn.search import ConstrainedSearch
from offline.config import RunConfig


def torch_search(model: IsrfModel, config: RunConfig) -> Graph:
    """The search of a trained torch model, as a callable."""
    return graph_of(ConstrainedSearch(model, num_beams=config.search.num_beams))


def graph_of(search: ConstrainedSearch) -> Graph:
    """A torch search as a callable with the exported graph's inputs and outputs, on the search's own device."""
    search.eval()
    device = search.code_vectors.device

    def run(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with torch.inference_mode():
            # A release's tables are read-only, which torch warns about.
            inputs = (np.require(arrays[name], requirements=["C", "W"]) for name in search.input_names)
            outputs = search(*(torch.from_numpy(array).to(device) for array in inputs))
        return {name: value.cpu().numpy() for name, value in zip(search.output_names, outputs, strict=True)}

    return run
