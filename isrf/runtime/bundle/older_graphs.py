"""Search graphs of schemas before 5, which pass over all items: called as the graphs of today.

Such a graph also scores all items on the dense path and in the interaction graph. Only its query and beams are used, as
in every release, so it costs what it cost before and answers as before.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isrf.method.recommend.recommender import Graph


def with_query_inputs(graph: Graph, arrays: Mapping[str, NDArray[Any]]) -> Graph:
    """An older search graph as a callable with the inputs of today's.

    Args:
        graph: of an older schema.
        arrays: the bundle's arrays by file name.
    """
    embeddings = arrays["item_embeddings.npy"]
    tables = {
        "item_vectors": arrays["item_vectors.npy"],
        "item_embeddings": embeddings,
        "item_known": np.any(embeddings != 0, axis=1),
    }

    def search(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        open_nodes, leaf_items = inputs["open_nodes"], inputs["leaf_items"]
        # The leaves are the last nodes; an item without a leaf is none of this graph's.
        allowed = np.empty((len(open_nodes), len(leaf_items)), dtype=np.bool_)
        allowed[:, leaf_items] = open_nodes[:, -len(leaf_items) :]
        return graph({**inputs, **tables, "allowed": allowed})

    return search
