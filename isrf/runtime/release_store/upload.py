"""Publishes a release in an object store: its files first, its manifest last, then `current`.

A job that is killed on the way leaves files that no manifest names: no reader sees them, and the next attempt uploads
only what is not there yet.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from isrf.contract.errors import BundleError
from isrf.contract.manifest import MANIFEST_FILE, FileEntry, Manifest
from isrf.runtime.bundle.folder import BundleFolder
from isrf.runtime.bundle.manifests import manifest_bytes, read_manifest
from isrf.runtime.bundle.reader import verify_files
from isrf.runtime.release_store.current import read_current, switch_current
from isrf.runtime.release_store.download import read_remote_manifest
from isrf.runtime.release_store.objects import STORE_CODES, ObjectStore

_AT_ONCE = 4
"""Files under way at once: most are small, and each waits for the store's answer."""


class Published(NamedTuple):
    release_id: str
    uploaded: int  # files that were not there yet
    guarded: bool  # whether the store itself checked that no other job switched `current` meanwhile


def publish_to_store(bundle: Path, store: ObjectStore, *, report: Callable[[str], None] = lambda _: None) -> Published:
    """Uploads a finished bundle and points `current` to it.

    Raises:
        BundleError: the bundle does not verify, or the store cannot be reached.
        StageError: `publish.overtaken`, another job has published meanwhile.
    """
    bundle = bundle.resolve()
    manifest = read_manifest(bundle)
    release_id = manifest.release_id
    seen = read_current(store)
    verify_files(bundle, manifest)

    def put(file: str) -> bool:
        return _put(store, f"{release_id}/{file}", bundle / file, manifest.files[file], report)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        uploaded = sum(pool.map(put, sorted(manifest.files)))
    name = f"{release_id}/{MANIFEST_FILE}"
    if uploaded or not _holds_manifest(store, manifest):
        with BundleFolder(bundle) as files:
            store.put(name, manifest_bytes(files))
        uploaded += 1
    return Published(release_id, uploaded, switch_current(store, release_id, seen))


def _holds_manifest(store: ObjectStore, manifest: Manifest) -> bool:
    """Whether the release is there already; its manifest's times may be those of an equal run."""
    with TemporaryDirectory() as folder:
        try:
            return read_remote_manifest(store, manifest.release_id, Path(folder)).files == manifest.files
        except BundleError as error:
            if error.code in STORE_CODES:
                raise
            return False


def _put(store: ObjectStore, name: str, path: Path, entry: FileEntry, report: Callable[[str], None]) -> bool:
    if store.holds_file(name, size=entry.bytes, sha256=entry.sha256):
        return False
    store.put_file(name, path, sha256=entry.sha256)
    report(f"uploaded {name} ({entry.bytes} bytes)")
    return True
