"""Downloads a release into a folder: the manifest first, then each file that it names, checked by size and SHA-256.

What an earlier attempt has left there is continued by range requests. The store's listing is never asked.
"""

import hashlib
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from isrf.contract.errors import BundleError
from isrf.contract.manifest import MANIFEST_FILE, FileEntry, Manifest
from isrf.runtime.bundle.folder import BundleFolder
from isrf.runtime.bundle.manifests import MOST_MANIFEST_BYTES, manifest_of
from isrf.runtime.files import write_file
from isrf.runtime.limits.time_limit import TimeLimit
from isrf.runtime.release_store.objects import ObjectStore

PIECE_BYTES = 8 << 20
"""How much one request asks for: it must come within the time of one request."""
_AT_ONCE = 4
"""Pieces under way at once: one stream of a store is slower than the network."""
_TRIES = 5


class Downloaded(NamedTuple):
    num_bytes: int  # that came in this attempt; what an earlier one left is not counted
    resumed: int  # bytes that an earlier attempt had left


def read_remote_manifest(store: ObjectStore, name: str, folder: Path) -> Manifest:
    """Writes the manifest of the release `name` into `folder` and returns it, checked; "" is the store's own prefix.

    Raises:
        BundleError: `bundle.no_release`, there is none; `bundle.other_release`, it names another release; else as
            `isrf.runtime.bundle.manifests.manifest_of`.
    """
    path = f"{name}/{MANIFEST_FILE}".lstrip("/")
    found = store.read(path, most=MOST_MANIFEST_BYTES)
    if found is None:
        raise BundleError(
            "bundle.no_release",
            f"{store.url} holds no release {name}: there is no {path}.",
            fix="Publish one there, or point `current` at a release that is there.",
        )
    write_file(folder / MANIFEST_FILE, found.content)
    with BundleFolder(folder) as files:
        manifest = manifest_of(files)
    if name and manifest.release_id != name:
        raise BundleError(
            "bundle.other_release",
            f"{path} in {store.url} is the manifest of {manifest.release_id}.",
            fix="In a store a release stands under its own id: publish it again.",
        )
    return manifest


def download(
    store: ObjectStore,
    name: str,
    manifest: Manifest,
    *,
    folder: Path,
    deadline: TimeLimit,
    piece_bytes: int = PIECE_BYTES,
) -> Downloaded:
    """Downloads every file of a release into `folder` and flushes it to disk.

    Raises:
        BundleError: a file is missing or is not the published one; the store cannot be read, the
            disk not be written; `bundle.deadline`.
    """
    came = resumed = 0
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="release: download") as pool:
        for file, entry in sorted(manifest.files.items()):
            try:
                pieces = _Pieces(store, f"{name}/{file}".lstrip("/"), pool, deadline, piece_bytes)
                before = _whole_file(pieces, folder / file, entry)
            except (OSError, ValueError) as error:
                raise unwritable(error) from None
            came, resumed = came + entry.bytes - before, resumed + before
    return Downloaded(came, resumed)


def missing_bytes(manifest: Manifest, folder: Path) -> int:
    """The bytes that `download` has yet to write."""
    sizes = {file: (folder / file).stat().st_size if (folder / file).is_file() else 0 for file in manifest.files}
    return sum(max(0, entry.bytes - sizes[file]) for file, entry in manifest.files.items())


def unwritable(error: Exception) -> BundleError:
    """The error for a cache whose disk is full or may not be written; the operating system's names the path."""
    return BundleError(
        "bundle.cache_unwritable",
        f"the cache of releases cannot be written: {error}.",
        fix="Check the disk and the permissions of ISRF_RELEASE_CACHE_DIR.",
    )


class _Pieces(NamedTuple):
    """The pieces of one object."""

    store: ObjectStore
    key: str
    pool: ThreadPoolExecutor
    deadline: TimeLimit
    piece_bytes: int

    def between(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes of the object in order, with some pieces ahead."""
        waiting: deque[Future[bytes]] = deque()
        starts = iter(range(start, stop, self.piece_bytes))

        def ask() -> None:
            at = next(starts, None)
            if at is not None:
                waiting.append(self.pool.submit(self._piece, at, min(at + self.piece_bytes, stop)))

        for _ in range(_AT_ONCE):
            ask()
        try:
            while waiting:
                yield waiting.popleft().result()
                ask()
        finally:
            for one in waiting:
                one.cancel()

    def _piece(self, start: int, stop: int) -> bytes:
        """One piece; an answer that was cut, or that did not come, is asked for again where it ended."""
        content, wait_s = b"", 0.1
        for tries_left in reversed(range(_TRIES)):
            self.deadline.check(self.key)
            try:
                content += self.store.read_range(self.key, start + len(content), stop)
            except BundleError as error:
                if error.code != "bundle.store_unreachable" or not tries_left:
                    raise
                time.sleep(wait_s)
                wait_s *= 2
            if len(content) == stop - start:
                return content
        raise BundleError(
            "bundle.store_unreachable",
            f"{self.key} in {self.store.url} ended after {start + len(content)} bytes, {_TRIES} times.",
            fix="Check the network and the store, or publish the release again.",
        )


def _whole_file(pieces: _Pieces, path: Path, entry: FileEntry) -> int:
    """Downloads a file, or the rest of it; returns how many bytes were there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.stat().st_size if path.is_file() else 0
    if before > entry.bytes:
        before = 0
        path.unlink()
    while True:
        with path.open("ab") as file:
            digest = _digest(path)
            for piece in pieces.between(before, entry.bytes):
                file.write(piece)
                file.flush()  # a killed process leaves what came
                digest.update(piece)
            os.fsync(file.fileno())
        if digest.hexdigest() == entry.sha256:
            return before
        path.unlink()
        if before == 0:
            raise BundleError(
                "bundle.hash_mismatch",
                f"{pieces.key} in {pieces.store.url} is not the published file: its SHA-256 differs.",
                fix="Publish the release again.",
            )
        before = 0  # what an earlier attempt left may be of a damaged file: once more from its first byte


def _digest(path: Path) -> "hashlib._Hash":
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")
