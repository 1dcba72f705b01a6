"""Makes a recommender from a bundle's parts, for the service, evaluation and export alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isrf.contract.manifest import (
    DENSE_HNSW_FILE,
    EXPLICIT_HNSW_FILE,
    INTEREST_GRAPH_FILE,
    QUERY_SCHEMA_VERSION,
    SEARCH_GRAPHS,
    Decoding,
    FusionWeights,
    GraphSpec,
    GroupSearch,
    ItemSearchSpec,
    LiveEvidenceSpec,
    VariantName,
)
from isrf.method.goldens.items import TextReading
from isrf.method.interest import NeighbourSearch
from isrf.method.ranking.ranker import Ranker, ranker_of
from isrf.method.recommend.recommender import Graph, OfferedItems, Recommender
from isrf.method.recommend.tables import RecommenderTables
from isrf.runtime.bundle.contents import Content
from isrf.runtime.bundle.older_graphs import with_query_inputs
from isrf.runtime.bundle.reader import Bundle
from isrf.runtime.bundle.refusals import refusing
from isrf.runtime.item_index import HnswIndex, ItemIndex
from isrf.runtime.neighbour_index import NeighbourIndex

GraphOpener = Callable[[str, Content, GraphSpec], Graph]
"""Opens a graph, given its file name, its verified bytes and its signature in the manifest."""


def open_recommender(
    parts: Bundle,
    variants: Sequence[VariantName],
    *,
    user_index: NeighbourIndex,
    open_graph: GraphOpener,
    item_ids: Sequence[str],
    reading: TextReading | None,
) -> Recommender:
    """Makes a recommender of a verified bundle, and replays its golden requests with every requested variant.

    Args:
        parts: the result of `isrf.runtime.bundle.reader.read_bundle`, with the graphs of `variants`.
        variants: variants of the search graph; the recommender uses the first.
        user_index: the base users. The golden requests are replayed with an exact search over all users and items, as
            they were made: what a search in cells or by HNSW visits could depend on a rounding error.
        open_graph: opens each graph.
        item_ids: the item id of each row.
        reading: reads a new item's text (`Bundle.text_reading`).

    Raises:
        BundleError: a part does not fit, or an answer is not the golden one.
    """
    manifest = parts.manifest
    goldens = parts.goldens()

    def graph(name: str) -> Graph:
        parts.deadline.check(name)
        with refusing("bundle.graph_unreadable", name):
            return open_graph(name, parts.take_content(name), manifest.graphs[name])

    interest = graph(INTEREST_GRAPH_FILE)
    searches = {name: graph(SEARCH_GRAPHS[name]) for name in variants}
    if manifest.schema_version < QUERY_SCHEMA_VERSION:
        searches = {name: with_query_inputs(search, parts.arrays) for name, search in searches.items()}
    recommender = assemble_recommender(
        parts.arrays,
        codebook_size=manifest.dimensions.codebook_size,
        decoding=manifest.decoding,
        group_search=manifest.group_search,
        fusion=manifest.fusion,
        ranker=ranker_of(manifest, parts.arrays),
        live_evidence=manifest.live_evidence,
        item_search=manifest.item_search,
        interest_graph=interest,
        search_graph=searches[variants[0]],
        nearest_users=user_index,
    )
    dense, explicit = item_searches(parts.arrays, None)
    exact = replace(recommender.among(user_index.exact), dense_items=dense, explicit_items=explicit)
    for name, search in searches.items():
        parts.replay(exact.searching_with(search), goldens, name)
    parts.replay_items(recommender, item_ids, reading)
    return recommender


def assemble_recommender(
    arrays: Mapping[str, NDArray[Any]],
    *,
    codebook_size: int,
    decoding: Decoding,
    group_search: GroupSearch,
    fusion: FusionWeights,
    ranker: Ranker | None = None,
    live_evidence: LiveEvidenceSpec | None = None,
    item_search: ItemSearchSpec | None = None,
    interest_graph: Graph,
    search_graph: Graph,
    nearest_users: NeighbourSearch,
) -> Recommender:
    """A recommender from a bundle's arrays by file name (`isrf.contract.manifest.ARRAYS`) and fields of its manifest.

    Raises:
        BundleError: the arrays come from different runs.
    """
    with refusing("bundle.semantic_ids", "semantic_ids.npy"):
        tables = RecommenderTables.from_arrays(arrays, codebook_size=codebook_size, live_evidence=live_evidence)
    dense, explicit = item_searches(arrays, item_search)
    return Recommender(
        tables=tables,
        offered=OfferedItems.of(tables),
        decoding=decoding,
        group_search=group_search,
        fusion=fusion,
        interest_graph=interest_graph,
        search_graph=search_graph,
        nearest_users=nearest_users,
        dense_items=dense,
        explicit_items=explicit,
        ranker=ranker,
    )


def item_searches(arrays: Mapping[str, NDArray[Any]], spec: ItemSearchSpec | None) -> tuple[ItemIndex, ItemIndex]:
    """The searches of the item vectors and of the interaction graph's embeddings.

    Args:
        arrays: a bundle's arrays by file name; with `spec` the HNSW indexes among them.
        spec: how they are searched; None: a search scores all items.

    Raises:
        BundleError: `bundle.array_mismatch`, FAISS cannot read an index, or it belongs to another table.
    """
    vectors, embeddings = arrays["item_vectors.npy"], arrays["item_embeddings.npy"]
    dense = explicit = None
    if spec is not None:
        dense = _hnsw(arrays, DENSE_HNSW_FILE, spec.dense_ef, vectors, np.ones(len(vectors), dtype=np.bool_))
        explicit = _hnsw(arrays, EXPLICIT_HNSW_FILE, spec.explicit_ef, embeddings, np.any(embeddings != 0, axis=1))
    return ItemIndex(vectors, hnsw=dense), ItemIndex(embeddings, zero_is_unknown=True, hnsw=explicit)


def _hnsw(
    arrays: Mapping[str, NDArray[Any]], name: str, ef: int, table: NDArray[Any], known: NDArray[np.bool_]
) -> HnswIndex:
    with refusing("bundle.array_mismatch", name):
        found = HnswIndex(arrays[name], ef, known)
        if found.width != table.shape[1]:
            raise ValueError(f"it holds vectors of {found.width} numbers, not of {table.shape[1]}")
        return found
