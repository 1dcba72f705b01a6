"""Opens a release for serving: verifies it, builds catalogue, users and recommender, and replays the golden requests.

Anything that does not fit raises a `BundleError` that names the file and the fix; a release is open or it is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import structlog
from numpy.typing import NDArray
from pydantic import ValidationError

from isrf.contract.errors import BundleError
from isrf.contract.event_types import EventVocabulary
from isrf.contract.manifest import (
    HISTORIES_FILE,
    INT8_GRAPH_FILE,
    INTEREST_GRAPH_FILE,
    ITEMS_FILE,
    MANIFEST_FILE,
    USER_FEATURES_FILE,
    GraphSpec,
    Manifest,
    VariantName,
)
from isrf.method.evidence import lists_from_arrays
from isrf.method.recommend.new_items import NewItemReader
from isrf.method.recommend.recommender import REQUEST_INPUTS, Graph, Recommender
from isrf.runtime.bundle.contents import Content, give_back_pages
from isrf.runtime.bundle.manifests import find_release
from isrf.runtime.bundle.opening import GraphOpener, open_recommender
from isrf.runtime.bundle.reader import read_bundle
from isrf.runtime.bundle.refusals import PUBLISH, refusing
from isrf.runtime.limits.time_limit import TimeLimit
from isrf.runtime.neighbour_index import NeighbourIndex, index_of
from service.release.catalogue import Catalogue
from service.release.catalogue.columns import ItemLines, read_columns
from service.release.catalogue.table import ItemTable
from service.release.graphs import open_graph
from service.release.history_files import read_users
from service.release.learned import learned_until
from service.release.users import ReleaseUsers
from service.release.wording import Wording, read_cores
from service.settings import DeviceName

_log = structlog.get_logger("service")


@dataclass(frozen=True, kw_only=True)
class Release:
    """An open release; threads may share it."""

    manifest: Manifest
    recommender: Recommender
    catalogue: Catalogue
    users: ReleaseUsers
    user_index: NeighbourIndex
    semantic_ids: NDArray[np.int32]  # (N, L)
    wording: Wording
    new_items: NewItemReader | None
    """None where the release cannot read new items."""
    learned_until: float
    """Seconds: the histories contain no event after this moment, whatever their timestamps."""
    vocabulary: EventVocabulary
    """The meaning of the shop's event types."""
    items_learned_until: float
    """Seconds: the release contains no change of an item after this moment."""


def open_release(
    releases: Path,
    variant: VariantName = "fp32",
    device: DeviceName = "cpu",
    *,
    within_s: float = float("inf"),
) -> Release:
    """Opens the current release of the folder `releases`, with one variant of its search graph.

    It takes seconds: run it in a thread.

    Raises:
        BundleError: the release cannot be served, or does not open within `within_s`.
        ConfigError: the device is missing.
    """
    return open_folder(find_release(releases), variant, device, within_s=within_s)


def open_folder(
    folder: Path, variant: VariantName = "fp32", device: DeviceName = "cpu", *, within_s: float = float("inf")
) -> Release:
    """Opens the release in this folder; else as `open_release`."""
    deadline = TimeLimit(within_s)
    parts = read_bundle(folder, (variant,), deadline)
    manifest, arrays = parts.manifest, parts.arrays
    deadline.check(ITEMS_FILE)
    catalogue = _read_catalogue(parts.take_content(ITEMS_FILE), manifest, arrays["popularity.npy"])
    deadline.check(HISTORIES_FILE)
    vocabulary = _vocabulary(manifest)
    users = read_users(parts, catalogue, vocabulary)
    wording = Wording(catalogue, read_cores(parts))
    deadline.check("the users' index")
    with refusing("bundle.array_mismatch", USER_FEATURES_FILE):
        user_index = index_of(
            arrays, manifest.group_search, precision="float16", threads=1, device="cuda" if device == "cuda" else "cpu"
        )
    if device != "cpu":
        _log.info("users_index_opened", device=user_index.device, users=len(user_index))
    reading = parts.text_reading()
    with refusing("bundle.manifest", MANIFEST_FILE):
        until = learned_until(folder, manifest)
    recommender = open_recommender(
        parts,
        (variant,),
        user_index=user_index,
        open_graph=_graph_opener(device),
        item_ids=_ItemIds(catalogue),
        reading=reading,
    )
    # The goldens may have read every page; the requests to come read few of them.
    for array in arrays.values():
        give_back_pages(array)
    return Release(
        manifest=manifest,
        recommender=recommender,
        catalogue=catalogue,
        users=users,
        user_index=user_index,
        semantic_ids=arrays["semantic_ids.npy"],
        wording=wording,
        new_items=None if reading is None else NewItemReader(reading, content=lists_from_arrays("content", arrays)),
        vocabulary=vocabulary,
        learned_until=until.events,
        items_learned_until=until.items,
    )


def _graph_opener(device: DeviceName) -> GraphOpener:
    def opened(name: str, content: Content, signature: GraphSpec) -> Graph:
        # The interest graph and the 8-bit graph have small products: copies to a GPU would take longer than they do.
        on_cpu = name in {INTEREST_GRAPH_FILE, INT8_GRAPH_FILE}
        return open_graph(
            name,
            content,
            signature,
            device="cpu" if on_cpu else device,
            tables=signature.inputs.keys() - REQUEST_INPUTS,
        )

    return opened


def _read_catalogue(content: Content, manifest: Manifest, popularity: NDArray[np.float32]) -> Catalogue:
    with refusing("bundle.items", ITEMS_FILE):
        lines = ItemLines.of(content)
        columns = read_columns(lines)
        _same_count(ITEMS_FILE, len(columns.ids), manifest.counts.num_items)
        catalogue = Catalogue.with_columns(ItemTable(lines), columns, popularity)
    give_back_pages(content)
    return catalogue


class _ItemIds(Sequence[str]):
    """The item id of each row."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def __len__(self) -> int:
        return len(self._catalogue)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[str]: ...
    def __getitem__(self, row: int | slice) -> str | Sequence[str]:
        if isinstance(row, slice):
            return [self._catalogue.item_id(one) for one in range(len(self))[row]]
        return self._catalogue.item_id(row)


def _same_count(name: str, found: int, expected: int) -> None:
    if found != expected:
        raise BundleError(
            "bundle.array_mismatch", f"{name} has {found} rows, the manifest says {expected}.", fix=PUBLISH
        )


def _vocabulary(manifest: Manifest) -> EventVocabulary:
    try:
        return EventVocabulary.model_validate(manifest.config.get("events", {}))
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"]
        raise BundleError("bundle.manifest", f"config.events: {message}.", fix=PUBLISH) from None
