"""Opens a release for the offline job: verified as the service verifies it, with a recommender ready to ask."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from isrf.contract import manifest as bundle
from isrf.contract.errors import BundleError
from isrf.contract.manifest import Manifest
from isrf.method.ranking.ranker import Ranker, ranker_of
from isrf.method.recommend.recommender import Graph, Recommender
from isrf.method.recommend.tables import RecommenderTables
from isrf.runtime.bundle import manifests
from isrf.runtime.bundle.folder import BundleFolder
from isrf.runtime.bundle.reader import Bundle, bundle_graphs, read_bundle, verify_files
from isrf.runtime.bundle.refusals import PUBLISH, refusing
from isrf.runtime.time_limit import TimeLimit
from offline.runtime.neighbours import Cells, UserIndex
from offline.runtime.onnx_graphs import open_verified

__all__ = ["OpenedRelease", "open_release", "read_manifest", "read_ranker", "verify_files"]


class OpenedRelease(NamedTuple):
    manifest: Manifest
    recommender: Recommender
    item_ids: list[str]
    ranker: Ranker | None


def open_release(folder: Path) -> OpenedRelease:
    """Reads, hashes, checks and golden-replays a release; `BundleError` names the file that is wrong."""
    named = read_manifest(folder)
    parts = read_bundle(folder.resolve(), ("fp32", *named.variants), TimeLimit())
    manifest, arrays = parts.manifest, parts.arrays
    graphs = {name: _graph(parts, name) for name in (bundle.INTEREST_GRAPH_FILE, *bundle_graphs(manifest))}
    with refusing("bundle.array_mismatch", bundle.USER_FEATURES_FILE):
        probes = manifest.group_search.probes
        cells = (
            None
            if probes is None
            else Cells(arrays[bundle.USER_CENTROIDS_FILE], arrays[bundle.USER_CELLS_FILE], probes)
        )
        index = UserIndex(arrays[bundle.USER_FEATURES_FILE], cells)
    with refusing("bundle.semantic_ids", "semantic_ids.npy"):
        tables = RecommenderTables.from_arrays(arrays, codebook_size=manifest.dimensions.codebook_size)
    ranker = ranker_of(manifest, arrays)
    recommender = Recommender(
        tables,
        decoding=manifest.decoding,
        group_search=manifest.group_search,
        fusion=manifest.fusion,
        interest_graph=graphs[bundle.INTEREST_GRAPH_FILE],
        search_graph=graphs[bundle.SEARCH_GRAPH_FILE],
        nearest_users=index,
        ranker=ranker,
    )
    goldens, everywhere = parts.goldens(), recommender.among(index.exact)
    parts.replay(everywhere, goldens, "fp32")
    for name in manifest.variants:
        parts.replay(everywhere.searching_with(graphs[bundle.SEARCH_GRAPHS[name]]), goldens, name)
    item_ids = _item_ids(parts)
    parts.replay_items(recommender, item_ids, parts.text_reading())
    return OpenedRelease(manifest, recommender, item_ids, ranker)


def _graph(parts: Bundle, name: str) -> Graph:
    with refusing("bundle.graph_unreadable", name):
        graph, signature = open_verified(name, parts.take(name))
        if signature != parts.manifest.graphs[name]:
            raise BundleError(
                "bundle.graph_mismatch", f"{name}: its inputs or outputs are not the manifest's.", fix=PUBLISH
            )
        return graph


def read_manifest(folder: Path) -> Manifest:
    """The manifest of one release's folder, or of a link to it.

    Raises:
        BundleError: `bundle.no_release` where there is none, else as `isrf.runtime.bundle.manifests.read_manifest`.
    """
    if not (folder / bundle.MANIFEST_FILE).exists():
        raise BundleError(
            "bundle.no_release", f"{folder} holds no {bundle.MANIFEST_FILE}.", fix="Name the folder of one release."
        )
    with BundleFolder(folder.resolve()) as files:
        return manifests.read_manifest(files)


def read_ranker(folder: Path, manifest: Manifest) -> Ranker | None:
    """The ranker of a release that was just published; None where it has none."""
    return (
        None
        if manifest.ranker is None
        else ranker_of(manifest, {bundle.RANKER_FILE: np.load(folder / bundle.RANKER_FILE)})
    )


def _item_ids(parts: Bundle) -> list[str]:
    name, wanted = bundle.ITEMS_FILE, parts.manifest.counts.num_items
    with refusing("bundle.items", name):
        source = io.BytesIO(parts.take(name))
        ids: list[str] = pl.read_ndjson(source, schema={"item_id": pl.String})["item_id"].to_list()
    if len(ids) != wanted or None in ids:
        raise BundleError(
            "bundle.array_mismatch", f"{name} has {len(ids)} lines, the manifest says {wanted}.", fix=PUBLISH
        )
    return ids
