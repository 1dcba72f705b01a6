"""Publishes a finished bundle: copied beside its place, verified, renamed, then `current` is switched.

A crash at any moment leaves the old release served. A release of the same id that was damaged in its place is replaced,
not repaired: between two renames it is in neither place, and publishing again puts it there.
"""

import os
import shutil
from pathlib import Path

from isrf.bundle import Manifest
from isrf.errors import BundleError
from offline.pipeline import sync_folder, sync_path
from offline.release import open_release, read_manifest, verify_files

CURRENT = "current"


def publish(bundle: Path, releases: Path) -> Path:
    """Puts the bundle at `<releases>/<release_id>` and points `<releases>/current` to it; returns its folder.

    What is there already and verifies stays as it is; what does not verify is replaced.

    Raises:
        BundleError: the copy does not verify; nothing was switched.
    """
    manifest = read_manifest(bundle)
    release_id = manifest.release_id
    target = releases / release_id
    if not _is_sound(target, manifest):
        part, damaged = (releases / f".{name}-{release_id}" for name in ("publishing", "damaged"))
        for left in (part, damaged):
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(bundle, part)
        open_release(part)
        sync_folder(part)
        if target.exists():
            target.rename(damaged)
        part.rename(target)
        shutil.rmtree(damaged, ignore_errors=True)
    switch(releases, release_id)
    return target


def _is_sound(target: Path, manifest: Manifest) -> bool:
    """Whether `target` holds the release of this manifest, every byte of it.

    Its moments may be another run's: who has claimed to know less keeps more of what shops said, and is right too.
    """
    try:
        there = read_manifest(target)
        verify_files(target, manifest)
    except BundleError:
        return False
    moments = {"created_at": manifest.created_at, "learned_until": manifest.learned_until}
    return there.model_copy(update=moments) == manifest


def switch(releases: Path, release_id: str) -> None:
    """Points `current` at a release in one step."""
    link = releases / f".{CURRENT}-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(release_id)
    link.replace(releases / CURRENT)
    sync_path(releases)
