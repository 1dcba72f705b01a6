"""Publishes a finished bundle: copied beside its place, verified, renamed, then `current` is switched.

A crash at any moment leaves the old release served. A release of the same id that was damaged in its place is replaced,
not repaired: between two renames it is in neither place, and publishing again puts it there. One publishes at a time.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isrf.contract.errors import BundleError, StageError
from isrf.contract.manifest import Manifest
from isrf.runtime.bundle.manifests import CURRENT, read_manifest
from isrf.runtime.bundle.reader import verify_files
from isrf.runtime.files import move_into_place, sync_folder
from offline.runtime.release import open_release

_NO_LOCKS = {errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP}
"""What a network's file system says that cannot lock a folder."""
_PARTS = (".publishing-", ".damaged-")


def publish(bundle: Path, releases: Path) -> Path:
    """Puts the bundle at `<releases>/<release_id>` and points `<releases>/current` to it; returns its folder.

    What is there already and verifies stays as it is; what does not verify is replaced.

    Raises:
        BundleError: the copy does not verify; nothing was switched.
        StageError: `publish.locked` where another one publishes there, `publish.no_space`, `publish.current` where
            something other than a link has the name of `current`.
    """
    manifest = read_manifest(bundle)
    release_id = manifest.release_id
    target = releases / release_id
    with _alone(releases):
        _refuse_other_current(releases)
        if not _is_sound(target, manifest):
            part, damaged = (releases / f"{name}{release_id}" for name in _PARTS)
            # Of any release: who publishes now is alone, so whoever began these was killed.
            for left in (path for name in _PARTS for path in releases.glob(f"{name}*")):
                _remove(left)
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


@contextmanager
def _alone(releases: Path) -> Iterator[None]:
    """The folder itself is locked, so that nothing is left in it."""
    releases.mkdir(parents=True, exist_ok=True)
    handle = os.open(releases, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StageError(
                "publish.locked",
                f"another run is publishing in {releases}.",
                fix="Run the same command again when it has ended: what is finished is taken from the earlier run.",
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(handle)


def _refuse_other_current(releases: Path) -> None:
    current = releases / CURRENT
    if os.path.lexists(current) and not current.is_symlink():
        raise StageError(
            "publish.current",
            f"{current} is there and is no link, so that it cannot be pointed at a release.",
            fix="Move it away and run the same command again.",
        )


def _copy(bundle: Path, part: Path) -> None:
    try:
        shutil.copytree(bundle, part, symlinks=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or _says_full(error):
            raise StageError(
                "publish.no_space",
                f"the disk of {part.parent} is full: the release was not copied there, and {CURRENT} is as it was.",
                fix="Make room (old releases beside it can go) and run the same command again.",
            ) from error
        raise


def _says_full(error: OSError) -> bool:
    """`copytree` gathers what went wrong with each file, as text."""
    return isinstance(error, shutil.Error) and os.strerror(errno.ENOSPC) in str(error)


def _remove(path: Path) -> None:
    """Whatever lies there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_sound(target: Path, manifest: Manifest) -> bool:
    """Whether `target` holds the release of this manifest, every byte of it.

    Its moments may be another run's: who has claimed to know less keeps more of what shops said, and is right too.
    """
    if target.is_symlink():
        return False
    try:
        there = read_manifest(target)
        verify_files(target, manifest)
    except BundleError:
        return False
    # The id is a hash over all else; one of schema 2 is not.
    return there.release_id == manifest.release_id and there.files == manifest.files


def switch(releases: Path, release_id: str) -> None:
    """Points `current` at a release in one step."""
    link = releases / f".{CURRENT}-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(release_id)
    move_into_place(link, releases / CURRENT)
