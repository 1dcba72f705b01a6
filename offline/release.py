"""Opens a release for the offline job: verified as the service verifies it, with a recommender ready to ask."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from pydantic import ValidationError

from isrf import bundle
from isrf.bundle import Manifest, arrays_of, check_arrays
from isrf.errors import BundleError
from isrf.golden import Golden, replay, replay_within
from isrf.ranker import Ranker, ranker_of
from isrf.recommend import Recommender, RecommenderTables
from offline.neighbours import load_user_index
from offline.onnx_graphs import graph_signature, open_graph


class Release(NamedTuple):
    manifest: Manifest
    recommender: Recommender
    item_ids: list[str]
    ranker: Ranker | None


def open_release(folder: Path) -> Release:
    """Reads, hashes, checks and golden-replays a release; `BundleError` names the file that is wrong."""
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    arrays = {name: np.load(folder / name) for name in arrays_of(manifest)}
    check_arrays(manifest, arrays)
    for name, expected in manifest.graphs.items():
        if graph_signature(folder / name) != expected:
            raise BundleError(
                "bundle.graph_mismatch", f"{name}: its inputs or outputs are not the manifest's.", fix=_PUBLISH
            )
    index = load_user_index(folder, manifest.group_search)
    ranker = ranker_of(manifest, arrays)
    recommender = Recommender(
        RecommenderTables.from_arrays(arrays, codebook_size=manifest.dimensions.codebook_size),
        decoding=manifest.decoding,
        group_search=manifest.group_search,
        fusion=manifest.fusion,
        interest_graph=open_graph(folder / bundle.INTEREST_GRAPH_FILE),
        search_graph=open_graph(folder / bundle.SEARCH_GRAPH_FILE),
        nearest_users=index,
        ranker=ranker,
    )
    lines = (folder / bundle.GOLDEN_FILE).read_text(encoding="utf-8").splitlines()
    goldens, everywhere = [Golden.model_validate_json(line) for line in lines], recommender.among(index.exact)
    replay(everywhere, goldens)
    for name, variant in manifest.variants.items():
        graph = open_graph(folder / bundle.SEARCH_GRAPHS[name])
        replay_within(everywhere.searching_with(graph), goldens, variant.tolerance, variant=name)
    return Release(manifest, recommender, _item_ids(folder, manifest), ranker)


_PUBLISH = "Publish the release again."


def read_manifest(folder: Path) -> Manifest:
    """The manifest; `bundle.no_release` where there is none, `bundle.manifest` where it cannot be understood."""
    path = folder / bundle.MANIFEST_FILE
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise BundleError(
            "bundle.no_release", f"{folder} holds no {path.name}.", fix="Name the folder of one release."
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        raise BundleError(
            "bundle.manifest",
            f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}.",
            fix="Publish the release again with this version.",
        ) from None


def read_ranker(folder: Path, manifest: Manifest) -> Ranker | None:
    """The ranker of a release that was just published; None where it has none."""
    return (
        None
        if manifest.ranker is None
        else ranker_of(manifest, {bundle.RANKER_FILE: np.load(folder / bundle.RANKER_FILE)})
    )


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Every file of the manifest is there, with its size and hash."""
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise BundleError("bundle.missing_file", f"{name} is missing from {folder}.", fix=_PUBLISH)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if path.stat().st_size != entry.bytes or digest != entry.sha256:
            raise BundleError("bundle.hash_mismatch", f"{name} in {folder} was changed.", fix=_PUBLISH)


def _item_ids(folder: Path, manifest: Manifest) -> list[str]:
    ids: list[str] = pl.read_ndjson(folder / bundle.ITEMS_FILE, schema={"item_id": pl.String})["item_id"].to_list()
    if len(ids) != manifest.counts.num_items:
        raise BundleError(
            "bundle.array_mismatch",
            f"{bundle.ITEMS_FILE} has {len(ids)} lines, the manifest says {manifest.counts.num_items}.",
            fix=_PUBLISH,
        )
    return ids
