"""The releases of an object store, as a reader sees them: which one `current` names, and a local copy of each.

A copy in the cache is opened and verified like any folder. It knows no service and no offline job.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from isrf.contract.errors import BundleError, ConfigError
from isrf.contract.manifest import MANIFEST_FILE, Manifest
from isrf.runtime.bundle.manifests import CURRENT, read_manifest
from isrf.runtime.bundle.reader import verify_files
from isrf.runtime.limits.time_limit import TimeLimit
from isrf.runtime.release_store.cache import MOST_BYTES, ReleaseCache
from isrf.runtime.release_store.current import read_current
from isrf.runtime.release_store.download import (
    PIECE_BYTES,
    Downloaded,
    download,
    missing_bytes,
    read_remote_manifest,
    unwritable,
)
from isrf.runtime.release_store.locations import StoreUrl, location_of
from isrf.runtime.release_store.objects import ObjectStore


class LocalCopy(NamedTuple):
    folder: Path
    downloaded: Downloaded | None  # None where the cache held it


class RemoteReleases:
    """The releases below a URL; or one release, where the URL is its own."""

    def __init__(self, store: ObjectStore, cache: ReleaseCache, *, piece_bytes: int = PIECE_BYTES) -> None:
        self._store, self.cache, self._piece_bytes = store, cache, piece_bytes
        self._own: str | None = None  # a release does not change, so that its manifest is read once

    @property
    def url(self) -> StoreUrl:
        return self._store.url

    def current_id(self) -> str:
        """The id of the release that `current` names now, or of the release that the URL itself is.

        Raises:
            BundleError: `bundle.no_release`, `bundle.current`, `bundle.store_unreachable`, `bundle.store_denied`.
        """
        release_id = read_current(self._store).release_id or self._own_id()
        if release_id is None:
            raise BundleError(
                "bundle.no_release",
                f"{self.url} holds no release: there is neither {CURRENT} nor {MANIFEST_FILE}.",
                fix="Publish one: `python -m offline run --data DIR --releases URL`.",
            )
        return release_id

    def fetch(self, release_id: str, deadline: TimeLimit) -> LocalCopy:
        """Returns a local copy of a release, downloaded where the cache lacks it; this process then holds it.

        Raises:
            BundleError: it cannot be downloaded, or is not what was published; the cache is full.
        """
        try:
            with self.cache.locked(deadline):
                folder, downloaded = self.cache.path(release_id), None
                if not folder.is_dir():
                    downloaded = self._download(release_id, deadline)
                self.cache.hold(folder)
        except OSError as error:
            raise unwritable(error) from None
        return LocalCopy(folder, downloaded)

    def _download(self, release_id: str, deadline: TimeLimit) -> Downloaded:
        part = self.cache.partial(release_id)
        name, manifest = self._manifest(release_id, part)
        self.cache.make_room(missing_bytes(manifest, part), release_id)
        downloaded = download(
            self._store, name, manifest, folder=part, deadline=deadline, piece_bytes=self._piece_bytes
        )
        self.cache.complete(release_id)
        return downloaded

    def discard_if_damaged(self, release: Path) -> bool:
        """Removes a copy whose files are not those of its manifest, so that it is downloaded again; True where it did.

        The caller has just failed to open it, and holds it no more.
        """
        try:
            verify_files(release, read_manifest(release))
        except BundleError:
            with self.cache.locked(TimeLimit()):
                return self.cache.remove(release)
        return False

    def _manifest(self, release_id: str, part: Path) -> tuple[str, Manifest]:
        """A release's name below the URL and its manifest; the name is "" where the URL is the release's own."""
        try:
            return release_id, read_remote_manifest(self._store, release_id, part)
        except BundleError as error:
            if error.code != "bundle.no_release" or self._own_id() != release_id:
                raise
            return "", read_remote_manifest(self._store, "", part)

    def _own_id(self) -> str | None:
        """The id of the release whose own folder the URL is; None where it is none."""
        if self._own is None:
            with TemporaryDirectory() as folder:
                try:
                    self._own = read_remote_manifest(self._store, "", Path(folder)).release_id
                except BundleError as error:
                    if error.code != "bundle.no_release":
                        raise
        return self._own


def local_release(text: str | Path) -> Path:
    """The folder of a release that a user names by folder or by URL; of a URL a local copy.

    The copy lies in `ISRF_RELEASE_CACHE_DIR`, by default in the user's cache folder.

    Raises:
        ConfigError: the URL or a variable cannot work.
        BundleError: as `RemoteReleases`.
    """
    url = location_of(text)
    if isinstance(url, Path):
        return url
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(os.environ.get("ISRF_RELEASE_CACHE_DIR") or caches / "isrf" / "releases")
    bound = os.environ.get("ISRF_RELEASE_CACHE_BYTES") or str(MOST_BYTES)
    if not bound.isdecimal():
        raise ConfigError(
            "config.invalid", f"ISRF_RELEASE_CACHE_BYTES is {bound[:40]!r}, not a number.", fix="Write it in digits."
        )
    releases = RemoteReleases(ObjectStore(url), ReleaseCache(root, url, most_bytes=int(bound)))
    return releases.fetch(releases.current_id(), TimeLimit()).folder
