"""Reads and verifies a release's folder: hashes every byte once, and checks the parts against each other.

Service and offline job both open a release through `read_bundle`; each uses the parts in its own way.
"""

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
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
    SEALED_SCHEMA_VERSIONS,
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
from isrf.method.goldens.items import ItemGolden, ReadableItems, TextReading, replay_items
from isrf.method.goldens.requests import Golden, check_goldens, replay, replay_within
from isrf.method.item_reader import ItemReader
from isrf.method.recommend.recommender import Recommender
from isrf.method.text.encoder import ARRAY_FILES, CONFIG_FILE, VOCABULARY_FILE, check_text_encoder
from isrf.runtime.bundle.array_checks import check_arrays
from isrf.runtime.bundle.arrays import array_of
from isrf.runtime.bundle.contents import Content, give_back_pages
from isrf.runtime.bundle.folder import BundleFolder, check_size
from isrf.runtime.bundle.manifest_checks import check_manifest
from isrf.runtime.bundle.manifests import manifest_of
from isrf.runtime.bundle.refusals import PUBLISH, refusing
from isrf.runtime.bundle.threads import in_threads
from isrf.runtime.cpus import available_cpus
from isrf.runtime.limits.run_limit import RUN_LIMIT_S, limited
from isrf.runtime.limits.time_limit import TimeLimit

_Line = TypeVar("_Line", bound=BaseModel)
_Read = TypeVar("_Read")

MOST_THREADS = 8
"""Threads that hash at once, at most as many as there are CPUs; more only wait for memory and disk."""

_ALWAYS_READ = (
    INTEREST_GRAPH_FILE,
    ITEMS_FILE,
    USERS_FILE,
    HISTORIES_FILE,
    GOLDEN_FILE,
)
"""Files that every release has, in addition to its arrays and its search graph."""
_ENCODER = tuple(f"{TEXT_ENCODER_DIR}/{name}" for name in (CONFIG_FILE, VOCABULARY_FILE, *ARRAY_FILES))


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The parts of a verified release."""

    folder: Path
    manifest: Manifest
    arrays: dict[str, NDArray[Any]]  # by file name, all of `arrays_of`
    contents: dict[str, Content]  # the other files that are read
    deadline: TimeLimit

    def take(self, name: str) -> bytes:
        """A file's bytes; the bundle releases them, so a file can be taken once."""
        return self.take_content(name).tobytes()

    def take_content(self, name: str) -> Content:
        """The same without a copy; a large file is a mapping."""
        return self.contents.pop(name)

    def text_reading(self) -> TextReading | None:
        """The parts that read a new item's text; None where the release reads no new items."""
        if self.manifest.item_reader is None:
            return None
        folder = f"{TEXT_ENCODER_DIR}/"
        with refusing("bundle.text_encoder", folder):
            reader = ItemReader.of(self.manifest.item_reader, self.arrays)
            config, words = (orjson.loads(self.take(folder + name)) for name in (CONFIG_FILE, VOCABULARY_FILE))
            arrays = {name: array_of(folder + name, self.take_content(folder + name)) for name in ARRAY_FILES}
            encoder = check_text_encoder(config, words, arrays)
        if len(encoder.mean) != reader.text_dim:
            raise BundleError(
                "bundle.array_mismatch",
                f"{folder} makes vectors of {len(encoder.mean)} numbers, {ITEM_READER_DIR}/ reads {reader.text_dim}.",
                fix=PUBLISH,
            )
        # An encoder without words reads nothing.
        return TextReading(encoder, reader) if encoder.vocabulary else None

    def goldens(self) -> list[Golden]:
        """The golden requests, checked."""
        goldens = self._lines(GOLDEN_FILE, Golden)
        with_lists = self.manifest.schema_version in SEALED_SCHEMA_VERSIONS
        check_goldens(goldens, self.manifest.counts.num_items, with_lists=with_lists)
        self._check_count(GOLDEN_FILE, "requests", len(goldens))
        return goldens

    def replay(self, recommender: Recommender, goldens: Sequence[Golden], variant: VariantName) -> None:
        """Replays the golden requests; raises `BundleError` where an answer differs, fails, or takes too long."""
        name = SEARCH_GRAPHS[variant]
        self.deadline.check("the golden requests")
        with limited(min(RUN_LIMIT_S, self.deadline.within_s)), refusing("bundle.graph_failed", name):
            if variant == "fp32":
                replay(recommender, goldens)
            else:
                replay_within(recommender, goldens, self.manifest.variants[variant].tolerance, variant=variant)

    def replay_items(self, recommender: Recommender, item_ids: Sequence[str], reading: TextReading | None) -> None:
        """Replays the golden items, then checks that all golden answers were made from exactly this release.

        An old release without golden items passes. Raises `BundleError` as `replay` does.
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
            content=recommender.tables.content,
            counts=recommender.tables.counts,
            reading=reading,
        )
        with refusing("bundle.golden_mismatch", name):
            replay_items(parts, goldens)
        # Only the fields that were set: a later version may have more fields.
        if made_from(json.loads(self.manifest.model_dump_json(exclude_unset=True))) != spec.made_from:
            raise BundleError(
                "bundle.golden_mismatch",
                f"a file or a number of the release was changed after {GOLDEN_FILE} and {name} were made from it.",
                fix="Publish the release again; a new seal does not make its golden answers valid.",
            )

    def _lines(self, name: str, kind: type[_Line]) -> list[_Line]:
        parsed = []
        for number, line in enumerate(self.take(name).splitlines(), start=1):
            try:
                parsed.append(kind.model_validate_json(line))
            except ValidationError as error:
                message = error.errors(include_input=False, include_url=False)[0]["msg"]
                raise BundleError("bundle.golden", f"{name} line {number}: {message}.", fix=PUBLISH) from None
        return parsed

    def _check_count(self, name: str, field: str, count: int) -> None:
        expected = count if self.manifest.goldens is None else getattr(self.manifest.goldens, field)
        if count != expected:
            raise BundleError(
                "bundle.golden_missing", f"{name} holds {count} {field}, the manifest says {expected}.", fix=PUBLISH
            )


def read_bundle(folder: Path, variants: Collection[VariantName] | None, deadline: TimeLimit) -> Bundle:
    """Reads and verifies a release's folder.

    Args:
        folder: the folder of one release, not a link to it.
        variants: the variants whose search graphs are read; None for all variants of the release.
        deadline: the time limit for opening.

    Raises:
        BundleError: a part is missing, changed, too large, not listed, or does not fit.
    """
    with BundleFolder(folder) as files:
        manifest = manifest_of(files)
        _check_variants(files.path, manifest, variants or ())
        check_manifest(manifest)
        graphs = bundle_graphs(manifest) if variants is None else [SEARCH_GRAPHS[name] for name in variants]
        arrays = arrays_of(manifest)
        encoder = _ENCODER if manifest.item_reader is not None else ()
        golden_items = () if manifest.goldens is None else (GOLDEN_ITEMS_FILE,)
        _check_listed(files, manifest, (*_ALWAYS_READ, *bundle_graphs(manifest), *arrays, *encoder, *golden_items))
        needed = {*_ALWAYS_READ, *graphs, *arrays, *encoder, *golden_items, USER_REASONING_FILE}
        _check_memory(sum(entry.bytes for entry in manifest.files.values()))

        def read(name: str) -> Content | NDArray[Any] | None:
            content = files.verified(name, manifest.files[name], deadline, keep=name in needed)
            return content if content is None or name not in arrays else array_of(name, content)

        found = dict(zip(manifest.files, _in_threads(read, manifest), strict=True))
    kept = {name: content for name, content in found.items() if content is not None}
    read_arrays = {name: kept.pop(name) for name in arrays}
    check_arrays(manifest, read_arrays)
    for content in (*read_arrays.values(), *kept.values()):
        give_back_pages(content)
    return Bundle(folder=folder, manifest=manifest, arrays=read_arrays, contents=kept, deadline=deadline)


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Checks that a folder holds exactly the files of a manifest, all regular, with their sizes and hashes."""
    deadline = TimeLimit()
    with BundleFolder(folder) as files:
        _check_listed(files, manifest, ())
        for _ in _in_threads(lambda name: files.verified(name, manifest.files[name], deadline, keep=False), manifest):
            pass


def _in_threads(read: Callable[[str], _Read], manifest: Manifest) -> Iterator[_Read]:
    """What `read` returns for every file, in the manifest's order; the largest files are read first."""
    names = list(manifest.files)
    order = sorted(range(len(names)), key=lambda place: -manifest.files[names[place]].bytes)
    return in_threads(read, names, order=order, threads=min(MOST_THREADS, available_cpus()))


def bundle_graphs(manifest: Manifest) -> list[str]:
    """The file names of all variants of the search graph."""
    return [SEARCH_GRAPH_FILE, *(SEARCH_GRAPHS[name] for name in manifest.variants)]


def _check_variants(folder: Path, manifest: Manifest, variants: Collection[VariantName]) -> None:
    for name in variants:
        if name != "fp32" and name not in manifest.variants:
            raise BundleError(
                "bundle.no_variant",
                f"{folder} holds no {name} variant of the search graph.",
                fix=f"Serve fp32 (ISRF_VARIANT=fp32), or publish the release with --set search.{name}=true.",
            )


def _check_listed(files: BundleFolder, manifest: Manifest, required: Iterable[str]) -> None:
    """Checks that manifest and folder have the same files with the same sizes, before any file is hashed."""
    for name in required:
        if name not in manifest.files:
            raise BundleError("bundle.missing_file", f"the manifest does not list {name}.", fix=PUBLISH)
    sizes = files.sizes()
    for name, entry in manifest.files.items():
        if name not in sizes:
            files.refuse(name)
        check_size(files.path, name, sizes[name], entry)
    unlisted = sorted(sizes.keys() - manifest.files.keys() - {MANIFEST_FILE})
    if unlisted:
        raise BundleError(
            "bundle.unlisted_file",
            f"{files.path} holds {unlisted[0]!r} and {len(unlisted) - 1} more files that the manifest does not list.",
            fix="Move the files away that do not belong to the release, or publish it again.",
        )


def _check_memory(num_bytes: int) -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if num_bytes > memory:
        raise BundleError(
            "bundle.too_large",
            f"the release's files have {num_bytes} bytes, this machine has {memory} bytes of memory.",
            fix="Serve it on a machine with more memory.",
        )
