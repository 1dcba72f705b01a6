"""Opens a release for serving: every file verified, every part held against the others, the goldens replayed.

Anything that does not fit is a `BundleError` that names the file and the fix; nothing half-open is ever returned.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import ValidationError

from isrf import bundle, text
from isrf.bundle import Manifest, VariantName, arrays_of, check_arrays
from isrf.errors import BundleError, DataError
from isrf.event_types import EventVocabulary
from isrf.evidence import lists_from_arrays
from isrf.golden import Golden, replay, replay_within
from isrf.item_fields import FieldError
from isrf.item_reader import ItemReader
from isrf.ranker import ranker_of
from isrf.recommend import REQUEST_INPUTS, Recommender, RecommenderTables
from service.catalogue import Catalogue, read_item
from service.graphs import open_graph
from service.history_files import read_users
from service.learned import learned_until
from service.load import DeviceName
from service.neighbours import Cells, UserIndex
from service.new_items import NewItemReader
from service.release_users import ReleaseUsers
from service.wording import Wording, read_cores

CURRENT = "current"
_PUBLISH = "Publish the release again."
_REQUIRED = (
    bundle.SEARCH_GRAPH_FILE,
    bundle.INTEREST_GRAPH_FILE,
    bundle.ITEMS_FILE,
    bundle.USERS_FILE,
    bundle.HISTORIES_FILE,
    bundle.GOLDEN_FILE,
)


@dataclass(frozen=True, kw_only=True)
class Release:
    """An open release; threads may share it."""

    manifest: Manifest
    recommender: Recommender
    catalogue: Catalogue
    users: ReleaseUsers
    user_index: UserIndex
    semantic_ids: NDArray[np.int32]  # (N, L)
    wording: Wording
    new_items: NewItemReader | None
    """None where no new item can be read."""
    learned_until: float
    """Seconds: the histories can hold no event after this moment, whatever their times."""
    vocabulary: EventVocabulary
    """What the shop's event types mean."""
    items_learned_until: float
    """Seconds: what was said of items after this moment the release cannot hold."""


def find_release(releases: Path) -> Path:
    """The folder that `releases` serves: what `current` points to, or `releases` itself where it is a release."""
    if (releases / bundle.MANIFEST_FILE).is_file():
        return releases.resolve()
    current = releases / CURRENT
    if (current / bundle.MANIFEST_FILE).is_file():
        # Resolved once: a switch of the link while files are being opened must not mix two releases.
        return current.resolve()
    raise BundleError(
        "bundle.no_release",
        f"{releases} holds no release: neither {CURRENT}/{bundle.MANIFEST_FILE} nor {bundle.MANIFEST_FILE} is there.",
        fix="Make one with `python -m offline run --data DIR --releases DIR`, or point --releases to where it is.",
    )


def open_release(releases: Path, variant: VariantName = "fp32", device: DeviceName = "cpu") -> Release:
    """Opens what `releases` serves, with one form of its search. Takes seconds: run it in a thread."""
    folder = find_release(releases)
    manifest = read_manifest(folder)
    if variant != "fp32" and variant not in manifest.variants:
        raise BundleError(
            "bundle.no_variant",
            f"{folder} holds no {variant} search.",
            fix=f"Serve fp32 (ISRF_VARIANT=fp32), or publish the release with --set search.{variant}=true.",
        )
    verify_files(folder, manifest)
    arrays = {name: _load(folder, name) for name in arrays_of(manifest)}
    check_arrays(manifest, arrays)
    catalogue = _read_catalogue(folder, manifest, arrays["popularity.npy"])
    search = manifest.group_search
    cells = None if search.probes is None else Cells.of(arrays, search.probes)
    user_index = UserIndex(arrays["user_features.npy"], cells)
    until = learned_until(folder, manifest)
    release = Release(
        manifest=manifest,
        recommender=_recommender(folder, manifest, arrays, user_index, variant, device),
        catalogue=catalogue,
        users=read_users(folder, manifest, catalogue),
        user_index=user_index,
        semantic_ids=arrays["semantic_ids.npy"],
        wording=Wording(catalogue, read_cores(folder, manifest)),
        new_items=_read_new_items(folder, manifest, arrays),
        vocabulary=_vocabulary(manifest),
        learned_until=until.events,
        items_learned_until=until.items,
    )
    # Among all users, as the goldens were made: which cells are looked into may hang on a rounding error.
    goldens, everywhere = _read_goldens(folder, manifest), release.recommender.among(user_index.exact)
    if variant == "fp32":
        replay(everywhere, goldens)
    else:
        replay_within(everywhere, goldens, manifest.variants[variant].tolerance, variant=variant)
    return release


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a release folder."""
    path = folder / bundle.MANIFEST_FILE
    try:
        raw = path.read_bytes()
        version = orjson.loads(raw).get("schema_version")
    except (OSError, orjson.JSONDecodeError, AttributeError) as error:
        raise BundleError("bundle.manifest", f"{path} cannot be read: {error}.", fix=_PUBLISH) from None
    if version != bundle.SCHEMA_VERSION:
        raise BundleError(
            "bundle.schema_version",
            f"{path} has schema_version {version!r}, this service reads {bundle.SCHEMA_VERSION}.",
            fix="Publish the release with the service's version of isrf, or serve it with the version that made it.",
        )
    try:
        return Manifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BundleError("bundle.manifest", f"{path}: {where}: {first['msg']}.", fix=_PUBLISH) from None


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Holds size and SHA-256 of every file against the manifest, and the manifest against what serving needs."""
    variants = (bundle.SEARCH_GRAPHS[name] for name in manifest.variants)
    for name in (*_REQUIRED, *variants, *arrays_of(manifest)):
        if name not in manifest.files:
            raise BundleError("bundle.missing_file", f"the manifest does not list {name}.", fix=_PUBLISH)
    for name, entry in manifest.files.items():
        parts = PurePosixPath(name).parts
        if PurePosixPath(name).is_absolute() or ".." in parts:
            raise BundleError("bundle.manifest", f"the manifest names {name!r}, outside the release.", fix=_PUBLISH)
        path = folder / name
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise BundleError("bundle.missing_file", f"{name} is missing from {folder}.", fix=_PUBLISH) from None
        except OSError as error:
            raise BundleError(
                "bundle.unreadable", f"{path} cannot be read: {error}.", fix="Check its permissions and the disk."
            ) from error
        if size != entry.bytes or digest != entry.sha256:
            raise BundleError(
                "bundle.hash_mismatch",
                f"{name} in {folder} is not the published file ({size} bytes, {entry.bytes} published).",
                fix="Restore the file, or publish the release again.",
            )


def _load(folder: Path, name: str) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(folder / name, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BundleError("bundle.array_mismatch", f"{name} is no readable array: {error}.", fix=_PUBLISH) from error
    return array


def _recommender(
    folder: Path,
    manifest: Manifest,
    arrays: dict[str, NDArray[Any]],
    user_index: UserIndex,
    variant: VariantName,
    device: DeviceName,
) -> Recommender:
    search_graph = bundle.SEARCH_GRAPHS[variant]
    for name in (search_graph, bundle.INTEREST_GRAPH_FILE):
        if name not in manifest.graphs:
            raise BundleError("bundle.graph_mismatch", f"the manifest has no signature of {name}.", fix=_PUBLISH)
    signature = manifest.graphs[search_graph]
    search = open_graph(
        folder / search_graph,
        signature,
        device="cpu" if variant == "int8" else device,
        tables=signature.inputs.keys() - REQUEST_INPUTS,
    )
    try:
        tables = RecommenderTables.from_arrays(arrays, codebook_size=manifest.dimensions.codebook_size)
    except DataError as error:
        raise BundleError("bundle.semantic_ids", f"semantic_ids.npy: {error.message}", fix=_PUBLISH) from error
    return Recommender(
        tables,
        decoding=manifest.decoding,
        group_search=manifest.group_search,
        fusion=manifest.fusion,
        # A few products of one row: on a GPU the way there would take longer.
        interest_graph=open_graph(folder / bundle.INTEREST_GRAPH_FILE, manifest.graphs[bundle.INTEREST_GRAPH_FILE]),
        search_graph=search,
        nearest_users=user_index,
        ranker=ranker_of(manifest, arrays),
    )


def _read_new_items(folder: Path, manifest: Manifest, arrays: dict[str, NDArray[Any]]) -> NewItemReader | None:
    if manifest.item_reader is None:
        return None
    reader = ItemReader.of(manifest.item_reader, arrays)
    parts = f"{bundle.TEXT_ENCODER_DIR}/"
    try:
        config, vocabulary = (
            orjson.loads((folder / parts / name).read_bytes()) for name in (text.CONFIG_FILE, text.VOCABULARY_FILE)
        )
        encoder = text.check_text_encoder(
            config, vocabulary, {name: _load(folder, parts + name) for name in text.ARRAY_FILES}
        )
    except (OSError, ValueError, ValidationError) as error:
        raise BundleError("bundle.text_encoder", f"{parts} cannot be read: {error}.", fix=_PUBLISH) from error
    if len(encoder.mean) != reader.text_dim:
        raise BundleError(
            "bundle.array_mismatch",
            f"{parts} makes {len(encoder.mean)} numbers of a text, {bundle.ITEM_READER_DIR}/ reads {reader.text_dim}.",
            fix=_PUBLISH,
        )
    # An encoder without words reads nothing.
    if not encoder.vocabulary:
        return None
    return NewItemReader(encoder=encoder, reader=reader, content=lists_from_arrays("content", arrays))


def _read_catalogue(folder: Path, manifest: Manifest, popularity: NDArray[np.float32]) -> Catalogue:
    name = bundle.ITEMS_FILE
    items = []
    with (folder / name).open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                items.append(read_item(line))
            except ValidationError as error:
                message = error.errors(include_input=False, include_url=False)[0]["msg"]
                raise BundleError("bundle.items", f"{name} line {number}: {message}.", fix=_PUBLISH) from None
            except FieldError as error:
                message = f"{name} line {number}: {error.field} {error}."
                raise BundleError("bundle.items", message, fix=_PUBLISH) from None
    _same_count(name, len(items), manifest.counts.num_items)
    try:
        return Catalogue(items, popularity)
    except DataError as error:
        raise BundleError("bundle.items", f"{name}: {error.message}", fix=_PUBLISH) from error


def _read_goldens(folder: Path, manifest: Manifest) -> list[Golden]:
    try:
        goldens = [Golden.model_validate_json(line) for line in (folder / bundle.GOLDEN_FILE).read_bytes().splitlines()]
    except ValidationError as error:
        message = error.errors(include_input=False, include_url=False)[0]["msg"]
        raise BundleError("bundle.golden", f"{bundle.GOLDEN_FILE}: {message}.", fix=_PUBLISH) from None
    rows = [row for golden in goldens for row in golden.history]
    if any(not 0 <= row < manifest.counts.num_items for row in rows):
        raise BundleError("bundle.golden", f"{bundle.GOLDEN_FILE} names an item without a row.", fix=_PUBLISH)
    return goldens


def _same_count(name: str, found: int, expected: int) -> None:
    if found != expected:
        raise BundleError(
            "bundle.array_mismatch", f"{name} has {found} rows, the manifest says {expected}.", fix=_PUBLISH
        )


def _vocabulary(manifest: Manifest) -> EventVocabulary:
    try:
        return EventVocabulary.model_validate(manifest.config.get("events", {}))
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"]
        raise BundleError("bundle.manifest", f"config.events: {message}.", fix=_PUBLISH) from None
