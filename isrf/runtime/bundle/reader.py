"""Reads a release's folder: every byte verified once and used as it was verified, every part held against the others.

Service and offline job open a release through this one function; what each makes of the parts is its own.
"""

import json
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from isrf.contract.errors import BundleError
from isrf.contract.manifest import (
    GOLDEN_FILE,
    GOLDEN_ITEMS_FILE,
    HISTORIES_FILE,
    INTEREST_GRAPH_FILE,
    ITEM_READER_DIR,
    ITEMS_FILE,
    MANIFEST_FILE,
    SCHEMA_VERSION,
    SEARCH_GRAPH_FILE,
    SEARCH_GRAPHS,
    TEXT_ENCODER_DIR,
    USER_REASONING_FILE,
    USERS_FILE,
    Manifest,
    VariantName,
    arrays_of,
)
from isrf.contract.manifest_seal import made_from
from isrf.method.golden import Golden, check_goldens, replay, replay_within
from isrf.method.golden_items import ItemGolden, ReadableItems, TextReading, replay_items
from isrf.method.item_reader import ItemReader
from isrf.method.recommend.recommender import Recommender
from isrf.method.text.encoder import ARRAY_FILES, CONFIG_FILE, VOCABULARY_FILE, check_text_encoder
from isrf.runtime.bundle.array_checks import check_arrays
from isrf.runtime.bundle.arrays import array_of
from isrf.runtime.bundle.folder import BundleFolder, Content, check_size
from isrf.runtime.bundle.manifest_checks import check_manifest
from isrf.runtime.bundle.manifests import manifest_of
from isrf.runtime.bundle.refusals import PUBLISH, refusing
from isrf.runtime.run_limit import RUN_LIMIT_S, limited
from isrf.runtime.time_limit import TimeLimit

_Line = TypeVar("_Line", bound=BaseModel)

_READ = (
    INTEREST_GRAPH_FILE,
    ITEMS_FILE,
    USERS_FILE,
    HISTORIES_FILE,
    GOLDEN_FILE,
)
"""Files that every release has, beside its arrays and its search graph."""
_ENCODER = tuple(f"{TEXT_ENCODER_DIR}/{name}" for name in (CONFIG_FILE, VOCABULARY_FILE, *ARRAY_FILES))


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A verified release's parts."""

    folder: Path
    manifest: Manifest
    arrays: dict[str, NDArray[Any]]  # by file name, all of `arrays_of`
    contents: dict[str, Content]  # the other files that are read
    deadline: TimeLimit

    def take(self, name: str) -> bytes:
        """A file's bytes, which are let go of here."""
        return self.contents.pop(name).tobytes()

    def text_reading(self) -> TextReading | None:
        """How it reads a new item's text; None where it reads none."""
        if self.manifest.item_reader is None:
            return None
        folder = f"{TEXT_ENCODER_DIR}/"
        with refusing("bundle.text_encoder", folder):
            reader = ItemReader.of(self.manifest.item_reader, self.arrays)
            config, words = (orjson.loads(self.take(folder + name)) for name in (CONFIG_FILE, VOCABULARY_FILE))
            arrays = {name: array_of(folder + name, self.contents.pop(folder + name)) for name in ARRAY_FILES}
            encoder = check_text_encoder(config, words, arrays)
        if len(encoder.mean) != reader.text_dim:
            raise BundleError(
                "bundle.array_mismatch",
                f"{folder} makes {len(encoder.mean)} numbers of a text, {ITEM_READER_DIR}/ reads {reader.text_dim}.",
                fix=PUBLISH,
            )
        # An encoder without words reads nothing.
        return TextReading(encoder, reader) if encoder.vocabulary else None

    def goldens(self) -> list[Golden]:
        """The golden requests."""
        found = self._lines(GOLDEN_FILE, Golden)
        with_lists = self.manifest.schema_version == SCHEMA_VERSION
        check_goldens(found, self.manifest.counts.num_items, with_lists=with_lists)
        self._check_count(GOLDEN_FILE, "requests", len(found))
        return found

    def replay(self, recommender: Recommender, goldens: Sequence[Golden], variant: VariantName) -> None:
        """Replays the goldens; `BundleError` where the release answers otherwise, fails, or does not answer at all."""
        name = SEARCH_GRAPHS[variant]
        self.deadline.check("the goldens")
        with limited(min(RUN_LIMIT_S, self.deadline.within_s)), refusing("bundle.graph_failed", name):
            if variant == "fp32":
                replay(recommender, goldens)
            else:
                replay_within(recommender, goldens, self.manifest.variants[variant].tolerance, variant=variant)

    def replay_items(self, recommender: Recommender, item_ids: Sequence[str], reading: TextReading | None) -> None:
        """Replays the golden items, then asks whether all goldens were made from this very release.

        A release made before there were any passes. Raises `BundleError` as `replay` does.
        """
        spec, name = self.manifest.goldens, GOLDEN_ITEMS_FILE
        if spec is None:
            return
        self.deadline.check(name)
        goldens = self._lines(name, ItemGolden)
        self._check_count(name, "items", len(goldens))
        self._check_count(name, "texts", sum(golden.new is not None for golden in goldens))
        parts = ReadableItems(
            item_ids=item_ids,
            item_vectors=recommender.tables.item_vectors,
            item_lists=recommender.tables.item_lists,
            reading=reading,
        )
        with refusing("bundle.golden_mismatch", name):
            replay_items(parts, goldens)
        # Of the fields as they were read: a later version may know more of them.
        if made_from(json.loads(self.manifest.model_dump_json(exclude_unset=True))) != spec.made_from:
            raise BundleError(
                "bundle.golden_mismatch",
                f"a file or a number of the release was changed after {GOLDEN_FILE} and {name} were made from it.",
                fix="Publish the release again; sealing a changed one does not make its goldens true.",
            )

    def _lines(self, name: str, kind: type[_Line]) -> list[_Line]:
        found = []
        for number, line in enumerate(self.take(name).splitlines(), start=1):
            try:
                found.append(kind.model_validate_json(line))
            except ValidationError as error:
                message = error.errors(include_input=False, include_url=False)[0]["msg"]
                raise BundleError("bundle.golden", f"{name} line {number}: {message}.", fix=PUBLISH) from None
        return found

    def _check_count(self, name: str, what: str, found: int) -> None:
        wanted = found if self.manifest.goldens is None else getattr(self.manifest.goldens, what)
        if found != wanted:
            raise BundleError(
                "bundle.golden_missing", f"{name} holds {found} {what}, the manifest says {wanted}.", fix=PUBLISH
            )


def read_bundle(folder: Path, variants: Collection[VariantName] | None, deadline: TimeLimit) -> Bundle:
    """Reads and verifies a release's folder.

    Args:
        folder: of one release, no link to it.
        variants: the forms of the search whose graphs are read; None for all that it has.
        deadline: when it has to be open.

    Raises:
        BundleError: something is missing, changed, too much, or does not fit.
    """
    with BundleFolder(folder) as files:
        manifest = manifest_of(files)
        _check_variants(files.path, manifest, variants or ())
        check_manifest(manifest)
        graphs = bundle_graphs(manifest) if variants is None else [SEARCH_GRAPHS[name] for name in variants]
        arrays = arrays_of(manifest)
        encoder = _ENCODER if manifest.item_reader is not None else ()
        golden_items = () if manifest.goldens is None else (GOLDEN_ITEMS_FILE,)
        _check_listed(files, manifest, (*_READ, *bundle_graphs(manifest), *arrays, *encoder, *golden_items))
        kept = {*_READ, *graphs, *arrays, *encoder, *golden_items, USER_REASONING_FILE}
        _check_memory(sum(entry.bytes for entry in manifest.files.values()))
        found: dict[str, NDArray[Any]] = {}
        contents: dict[str, Content] = {}
        for name, entry in manifest.files.items():
            content = files.verified(name, entry, deadline, keep=name in kept)
            if content is not None and name in arrays:
                found[name] = array_of(name, content)
            elif content is not None:
                contents[name] = content
    check_arrays(manifest, found)
    return Bundle(folder=folder, manifest=manifest, arrays=found, contents=contents, deadline=deadline)


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Holds the files of a folder against a manifest: there, regular, of its size and hash, and none beside them."""
    deadline = TimeLimit()
    with BundleFolder(folder) as files:
        _check_listed(files, manifest, ())
        for name, entry in manifest.files.items():
            files.verified(name, entry, deadline, keep=False)


def bundle_graphs(manifest: Manifest) -> list[str]:
    """The files of all forms of its search."""
    return [SEARCH_GRAPH_FILE, *(SEARCH_GRAPHS[name] for name in manifest.variants)]


def _check_variants(folder: Path, manifest: Manifest, variants: Collection[VariantName]) -> None:
    for name in variants:
        if name != "fp32" and name not in manifest.variants:
            raise BundleError(
                "bundle.no_variant",
                f"{folder} holds no {name} search.",
                fix=f"Serve fp32 (ISRF_VARIANT=fp32), or publish the release with --set search.{name}=true.",
            )


def _check_listed(files: BundleFolder, manifest: Manifest, required: Iterable[str]) -> None:
    """Manifest and folder name the same files, of the same sizes; before anything is hashed."""
    for name in required:
        if name not in manifest.files:
            raise BundleError("bundle.missing_file", f"the manifest does not list {name}.", fix=PUBLISH)
    there = files.sizes()
    for name, entry in manifest.files.items():
        if name not in there:
            files.refuse(name)
        check_size(files.path, name, there[name], entry)
    unlisted = sorted(there.keys() - manifest.files.keys() - {MANIFEST_FILE})
    if unlisted:
        raise BundleError(
            "bundle.unlisted_file",
            f"{files.path} holds {unlisted[0]!r} and {len(unlisted) - 1} more files that the manifest does not list.",
            fix="Move away what the release did not come with, or publish it again.",
        )


def _check_memory(wanted: int) -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if wanted > memory:
        raise BundleError(
            "bundle.too_large",
            f"the release's files have {wanted} bytes, this machine's memory {memory}.",
            fix="Serve it on a machine with more memory.",
        )
