"""The folder on a local disk that downloaded releases are in: locks between processes, and a bound on its size.

Below it stands a folder for each store's URL, laid out as a folder of releases: complete releases, the link `current`
to the one that was served last, and `.partial-ID` for one that is being downloaded. A process holds a shared lock on
each release that it serves, which the operating system drops when the process dies; a release with a lock is never
removed.
"""

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from isrf.contract.errors import BundleError
from isrf.runtime.bundle.manifests import CURRENT
from isrf.runtime.files import NO_LOCKS, move_into_place, sync_folder, sync_path
from isrf.runtime.limits.time_limit import TimeLimit
from isrf.runtime.release_store.locations import StoreUrl

MOST_BYTES = 20 << 30
"""The default bound."""
_PARTIAL, _REMOVING = ".partial-", ".removing-"
_POLL_S = 0.1


class ReleaseCache:
    """The cached releases of one URL, in a folder that several processes may share."""

    def __init__(self, root: Path, url: StoreUrl, *, most_bytes: int = MOST_BYTES) -> None:
        self._root, self._most_bytes = root, most_bytes
        slug = re.sub(r"[^A-Za-z0-9]+", "-", str(url))[:60].strip("-")
        self.folder = root / f"{slug}-{hashlib.sha256(str(url).encode()).hexdigest()[:8]}"
        self._held: dict[Path, int] = {}

    def path(self, name: str) -> Path:
        """The folder of a complete release, whether it is there or not."""
        return self.folder / name

    def served_last(self) -> Path | None:
        """The release that was served last; None where none is there."""
        target = self.folder / CURRENT
        found = target.resolve()
        return found if target.is_symlink() and found.is_dir() and found.parent == self.folder.resolve() else None

    def remember_served(self, release: Path) -> None:
        """Points `current` at a release that was opened and is served."""
        if self.served_last() == release.resolve():
            return
        link = self.folder / f".{CURRENT}-{os.getpid()}"
        link.unlink(missing_ok=True)
        link.symlink_to(release.name)
        move_into_place(link, self.folder / CURRENT)

    @contextmanager
    def locked(self, deadline: TimeLimit) -> Iterator[None]:
        """Waits for the cache's lock: one process of the machine downloads or removes, the others wait for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not _lock(handle, fcntl.LOCK_EX, elsewhere=True):
                deadline.check("its download by another process")
                time.sleep(_POLL_S)
            yield
        finally:
            os.close(handle)

    def hold(self, release: Path) -> None:
        """Keeps a release from being removed, until `let_go` or the end of this process."""
        if release in self._held:
            return
        handle = os.open(release, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        _lock(handle, fcntl.LOCK_SH, elsewhere=True)
        self._held[release] = handle
        os.utime(release)  # when it was last used

    def let_go_of(self, release: Path) -> None:
        """Drops this process's lock on a release."""
        self.let_go(but=[one for one in self._held if one != release])

    def let_go(self, *, but: Collection[Path]) -> None:
        """Drops the locks on all releases but those."""
        for release in [one for one in self._held if one not in but]:
            os.close(self._held.pop(release))

    def partial(self, name: str) -> Path:
        """The folder that a release is downloaded into; what an earlier attempt left stays there."""
        folder = self.folder / f"{_PARTIAL}{name}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def complete(self, name: str) -> Path:
        """Gives a downloaded release its name, in one step; returns its folder."""
        part, release = self.partial(name), self.path(name)
        sync_folder(part)
        part.rename(release)
        sync_path(self.folder)
        return release

    def remove(self, release: Path) -> bool:
        """Removes a release, or what is left of one; False where a process uses it."""
        try:
            handle = os.open(release, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            if release in self._held or not _lock(handle, fcntl.LOCK_EX, elsewhere=False):
                return False
            removing = release.with_name(f"{_REMOVING}{release.name.lstrip('.')}")
            shutil.rmtree(removing, ignore_errors=True)
            release.rename(removing)  # nobody may find half of it
            shutil.rmtree(removing, ignore_errors=True)
            return True
        finally:
            os.close(handle)

    def make_room(self, num_bytes: int, name: str) -> None:
        """Removes the releases that were used longest ago, until `num_bytes` more fit; needs the lock.

        Never removed: what a process serves, what `current` names, what is being downloaded.

        Raises:
            BundleError: `bundle.cache_full`.
        """
        part = self.partial(name)
        served = self.served_last()
        sizes = {folder: _size(folder) for folder in self._root.glob("*/*") if _is_folder(folder)}
        used = sum(sizes.values())
        for folder in sorted(sizes, key=lambda one: one.stat().st_mtime):
            if used + num_bytes <= self._most_bytes:
                break
            if folder != part and folder.resolve() != served and self.remove(folder):
                used -= sizes[folder]
        if used + num_bytes > self._most_bytes:
            raise BundleError(
                "bundle.cache_full",
                f"{name} needs {num_bytes} bytes more, and {self._root} may hold {self._most_bytes}, of which releases "
                f"in use take {used}.",
                fix="Raise ISRF_RELEASE_CACHE_BYTES: the served and the next release must fit.",
            )
        free = shutil.disk_usage(self.folder).free
        if free < num_bytes:
            raise BundleError(
                "bundle.cache_full",
                f"{name} needs {num_bytes} bytes more, and the disk of {self._root} has {free} free.",
                fix="Free disk space, or name another disk by ISRF_RELEASE_CACHE_DIR.",
            )


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.lstat().st_size
    return total


def _lock(handle: int, kind: int, *, elsewhere: bool) -> bool:
    """Whether the lock could be had now; `elsewhere` is the answer on a file system without locks, such as some NFS."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return elsewhere
    return True
