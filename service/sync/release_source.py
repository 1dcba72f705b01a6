"""Where a replica's releases come from: a folder that it opens in place, or an object store that it downloads from.

It says which release `current` names and puts a release's folder on the local disk; it opens none.
"""

import time
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

import structlog

from isrf.contract.errors import BundleError
from isrf.runtime.bundle.manifests import find_release, named_release
from isrf.runtime.limits.time_limit import TimeLimit
from isrf.runtime.release_store.cache import ReleaseCache
from isrf.runtime.release_store.locations import StoreUrl
from isrf.runtime.release_store.objects import STORE_CODES, ObjectStore
from isrf.runtime.release_store.remote import RemoteReleases
from service.settings import Settings
from service.sync.release_runtime import ReleaseIdentity, identify
from service.telemetry.metrics import Metrics

_log = structlog.get_logger("service")


class ReleaseSource(Protocol):
    """What a replica asks of it. All calls may take long: run them in a thread."""

    def identify(self, name: str | None) -> ReleaseIdentity:
        """The release that `current` names, or the one with a name; raises `BundleError`."""
        ...

    def identify_at_start(self) -> ReleaseIdentity:
        """The release to start with: the same, or one served before where it cannot be learned now."""
        ...

    def fetch(self, identity: ReleaseIdentity, within_s: float) -> None:
        """Puts the release into its folder, complete; raises `BundleError`."""
        ...

    def refused(self, identity: ReleaseIdentity) -> None:
        """Takes notice that the release in the folder could not be opened."""
        ...

    def settle(self, current: ReleaseIdentity | None, in_use: Collection[Path]) -> None:
        """Takes notice of what is served now (None: nothing yet), and which folders are still open."""
        ...

    def warnings(self) -> list[dict[str, str]]:
        """The warnings for `/readyz`."""
        ...


class FolderSource:
    """A folder of releases, or one release's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def identify(self, name: str | None) -> ReleaseIdentity:
        return identify(find_release(self._folder) if name is None else named_release(self._folder, name))

    def identify_at_start(self) -> ReleaseIdentity:
        return self.identify(None)

    def fetch(self, identity: ReleaseIdentity, within_s: float) -> None:
        """It is there already."""

    def refused(self, identity: ReleaseIdentity) -> None:
        """Repairing it is an operator's work."""

    def settle(self, current: ReleaseIdentity | None, in_use: Collection[Path]) -> None:
        """Folders are removed by nobody."""

    def warnings(self) -> list[dict[str, str]]:
        return []


class StoreSource:
    """An object store, with a cache on the local disk."""

    def __init__(self, releases: RemoteReleases, metrics: Metrics) -> None:
        self._releases, self._metrics = releases, metrics
        self._unreachable: BundleError | None = None

    def identify(self, name: str | None) -> ReleaseIdentity:
        # A release in a store never changes under its id, so that the id alone identifies it.
        release_id = self._current_id() if name is None else name
        return ReleaseIdentity(self._releases.cache.path(release_id), release_id)

    def identify_at_start(self) -> ReleaseIdentity:
        try:
            return self.identify(None)
        except BundleError as error:
            served = self._releases.cache.served_last()
            if served is None or error.code not in STORE_CODES:
                raise
            _log.warning(
                "release_store_unreachable",
                code=error.code,
                message=error.message,
                serving=served.name,
                fix=f"It starts with the release that it served last. {error.fix}",
            )
            return ReleaseIdentity(self._releases.cache.path(served.name), served.name)

    def fetch(self, identity: ReleaseIdentity, within_s: float) -> None:
        began = time.monotonic()
        copy = self._releases.fetch(identity.digest, TimeLimit(within_s))
        if copy.downloaded is not None:
            _log.info(
                "release_downloaded",
                release_id=identity.digest,
                bytes=copy.downloaded.num_bytes,
                resumed=copy.downloaded.resumed,
                seconds=round(time.monotonic() - began, 2),
            )

    def refused(self, identity: ReleaseIdentity) -> None:
        self._releases.cache.let_go_of(identity.folder)
        if self._releases.discard_if_damaged(identity.folder):
            _log.warning("release_discarded", release_id=identity.digest, message="Its cached files were damaged.")

    def settle(self, current: ReleaseIdentity | None, in_use: Collection[Path]) -> None:
        if current is not None:
            self._releases.cache.remember_served(current.folder)
        self._releases.cache.let_go(but=in_use)

    def warnings(self) -> list[dict[str, str]]:
        error = self._unreachable
        if error is None:
            return []
        # Without the store's address: nobody needs a key for the probes.
        message = f"No newer release can be found ({error.code}); the log says more."
        return [{"code": "release_store_unreachable", "message": message}]

    def _current_id(self) -> str:
        try:
            release_id = self._releases.current_id()
        except BundleError as error:
            self._unreachable = error if error.code in STORE_CODES else None
            self._metrics.release_store_up.set(self._unreachable is None)
            raise
        self._unreachable = None
        self._metrics.release_store_up.set(1)
        return release_id


def release_source(settings: Settings, metrics: Metrics) -> ReleaseSource:
    """The source that the settings name; raises `ConfigError` where the packages for it are missing."""
    location = settings.releases_dir
    if not isinstance(location, StoreUrl):
        return FolderSource(location)
    root = settings.release_cache_dir or settings.state_dir / "release-cache"
    cache = ReleaseCache(root, location, most_bytes=settings.release_cache_bytes)
    return StoreSource(RemoteReleases(ObjectStore(location), cache), metrics)
