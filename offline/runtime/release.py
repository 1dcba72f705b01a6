"""Opens a release for the offline job: verifies it as the service does, and makes its recommender."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from isrf.contract.errors import BundleError
from isrf.contract.manifest import ITEMS_FILE, RANKER_FILE, USER_FEATURES_FILE, Manifest
from isrf.method.goldens.items import TextReading
from isrf.method.ranking.ranker import Ranker, ranker_of
from isrf.method.recommend.recommender import Recommender
from isrf.runtime.bundle.manifests import read_manifest
from isrf.runtime.bundle.opening import open_recommender
from isrf.runtime.bundle.reader import Bundle, read_bundle
from isrf.runtime.bundle.refusals import PUBLISH, refusing
from isrf.runtime.limits.time_limit import TimeLimit
from isrf.runtime.neighbour_index import NeighbourIndex, index_of
from offline.engine.graphs import open_release_graph


class OpenedRelease(NamedTuple):
    manifest: Manifest
    recommender: Recommender
    item_ids: list[str]


class OpenedParts(NamedTuple):
    """An opened release, and the parts of it that its recommender does not hold."""

    release: OpenedRelease
    parts: Bundle
    user_index: NeighbourIndex
    reading: TextReading | None


def open_release(folder: Path) -> OpenedRelease:
    """Reads, hashes and checks a release, and replays its golden requests; `BundleError` names the wrong file."""
    return open_parts(folder).release


def open_parts(folder: Path) -> OpenedParts:
    """The same, with the base users' index and the reader of new texts."""
    read_manifest(folder)
    parts = read_bundle(folder.resolve(), None, TimeLimit())
    manifest, arrays = parts.manifest, parts.arrays
    with refusing("bundle.array_mismatch", USER_FEATURES_FILE):
        index = index_of(arrays, manifest.group_search)
    item_ids, reading = _item_ids(parts), parts.text_reading()
    recommender = open_recommender(
        parts,
        ("fp32", *manifest.variants),
        user_index=index,
        open_graph=open_release_graph,
        item_ids=item_ids,
        reading=reading,
    )
    return OpenedParts(OpenedRelease(manifest, recommender, item_ids), parts, index, reading)


def read_ranker(folder: Path, manifest: Manifest) -> Ranker | None:
    """The ranker of a release that this run has just published; None where it has none."""
    return None if manifest.ranker is None else ranker_of(manifest, {RANKER_FILE: np.load(folder / RANKER_FILE)})


def _item_ids(parts: Bundle) -> list[str]:
    name, num_items = ITEMS_FILE, parts.manifest.counts.num_items
    with refusing("bundle.items", name):
        source = io.BytesIO(parts.take(name))
        ids: list[str] = pl.read_ndjson(source, schema={"item_id": pl.String})["item_id"].to_list()
    if len(ids) != num_items or None in ids:
        raise BundleError(
            "bundle.array_mismatch", f"{name} has {len(ids)} lines, the manifest says {num_items}.", fix=PUBLISH
        )
    return ids
