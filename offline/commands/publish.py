"""Publishes a finished bundle: copies it to the releases folder, verifies it, renames it, then switches `current`.

After a crash at any moment, the service still serves the old release. A damaged release of the same id is replaced by
two renames; after a crash between them it is missing, and publishing again restores it. Only one process publishes at
a time.
"""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from isrf.contract.errors import BundleError, StageError
from isrf.contract.manifest import Manifest
from isrf.runtime.bundle.manifests import CURRENT, read_manifest
from isrf.runtime.bundle.reader import verify_files
from isrf.runtime.files import locked_folder, move_into_place, sync_folder
from isrf.runtime.release_store.locations import StoreUrl
from isrf.runtime.release_store.objects import ObjectStore
from isrf.runtime.release_store.upload import publish_to_store
from offline.runtime.release import open_release

_PARTS = (".publishing-", ".damaged-")


def publish(bundle: Path, releases: Path) -> Path:
    """Copies the bundle to `<releases>/<release_id>`, points `<releases>/current` to it and returns its folder.

    An existing release that verifies stays as it is; a damaged one is replaced.

    Raises:
        BundleError: the copy does not verify; `current` is unchanged.
        StageError: `publish.locked` if another process publishes there, `publish.no_space`, `publish.current` if
            `current` is not a link.
    """
    manifest = read_manifest(bundle)
    release_id = manifest.release_id
    target = releases / release_id
    releases.mkdir(parents=True, exist_ok=True)
    refusal = StageError(
        "publish.locked",
        f"another run is publishing in {releases}.",
        fix="Run the same command again when it has ended; it reuses finished stages.",
    )
    with locked_folder(releases, refusal):
        _refuse_other_current(releases)
        if not _is_sound(target, manifest):
            part, damaged = (releases / f"{name}{release_id}" for name in _PARTS)
            # Of any release: this process holds the lock, so the processes that made these are dead.
            for leftover in (path for name in _PARTS for path in releases.glob(f"{name}*")):
                _remove(leftover)
            try:
                _copy(bundle, part)
                open_release(part)
                sync_folder(part)
                if os.path.lexists(target):
                    target.rename(damaged)
                part.rename(target)
            except Exception:
                _remove(part)
                raise
            _remove(damaged)
        switch(releases, release_id)
    return target


def publish_to_url(bundle: Path, url: StoreUrl, *, report: Callable[[str], None] = lambda _: None) -> None:
    """Uploads the bundle to a place in an object store and points `current` there to it.

    Raises:
        BundleError: it does not verify, or the store cannot be reached; `current` is unchanged.
        StageError: `publish.overtaken`, another job has published there meanwhile.
    """
    open_release(bundle)
    published = publish_to_store(bundle, ObjectStore(url), report=report)
    if not published.guarded:
        report(
            f"{url} has no conditional writes: of two jobs that publish there at once, the last one wins unnoticed. "
            "Run one at a time."
        )


def _refuse_other_current(releases: Path) -> None:
    current = releases / CURRENT
    if os.path.lexists(current) and not current.is_symlink():
        raise StageError(
            "publish.current",
            f"{current} exists and is not a link, so it cannot point to a release.",
            fix="Move it away and run the same command again.",
        )


def _copy(bundle: Path, part: Path) -> None:
    try:
        shutil.copytree(bundle, part, symlinks=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or _says_full(error):
            raise StageError(
                "publish.no_space",
                f"the disk of {part.parent} is full: the release was not copied there, and {CURRENT} is unchanged.",
                fix="Free disk space, for example delete old releases, and run the same command again.",
            ) from error
        raise


def _says_full(error: OSError) -> bool:
    """Returns whether the error is a full disk; `copytree` collects the errors of single files as text."""
    return isinstance(error, shutil.Error) and os.strerror(errno.ENOSPC) in str(error)


def _remove(path: Path) -> None:
    """Removes a file, a link or a folder; does nothing if it does not exist."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_sound(target: Path, manifest: Manifest) -> bool:
    """Returns whether `target` holds the release of this manifest, with every file intact.

    The stored manifest's times may be those of another run: with an earlier time the service keeps more of what shops
    sent, which is correct too.
    """
    if target.is_symlink():
        return False
    try:
        stored = read_manifest(target)
        verify_files(target, manifest)
    except BundleError:
        return False
    # the id is a hash over everything else, except in schema 2
    return stored.release_id == manifest.release_id and stored.files == manifest.files


def switch(releases: Path, release_id: str) -> None:
    """Points `current` at a release in one step."""
    link = releases / f".{CURRENT}-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(release_id)
    move_into_place(link, releases / CURRENT)
