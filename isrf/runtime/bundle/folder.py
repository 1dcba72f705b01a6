"""A release's folder, read through its descriptor: regular files of its own alone, and the very bytes that were hashed.

A name is looked at before it is opened and again once it is open, never through a link, and no opening waits: a pipe, a
device or a socket in a file's place is refused at once. What is put in the folder's place meanwhile is another folder.
It knows nothing of what the files mean.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from operator import itemgetter
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from isrf.contract.errors import BundleError
from isrf.contract.manifest import FileEntry
from isrf.runtime.bundle.refusals import PUBLISH
from isrf.runtime.time_limit import TimeLimit

Content = NDArray[np.uint8]
"""A file's bytes."""

_CHUNK = 1 << 23
_MOST_FILES = 10_000
_DEEPEST = 4
_ALONE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
}


class BundleFolder:
    """An open folder; a context that closes it."""

    def __init__(self, path: Path) -> None:
        """`path` leads to the folder itself; raises `BundleError` where it cannot be opened."""
        self.path = path
        with _refusing(path, path.name):
            self._handle = os.open(path, os.O_DIRECTORY | _ALONE)

    def __enter__(self) -> "BundleFolder":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        os.close(self._handle)

    def sizes(self) -> dict[str, int]:
        """Every file below the folder with its bytes; `bundle.not_a_file` for what is neither file nor folder."""
        found: dict[str, int] = {}
        self._walk(self._handle, PurePosixPath(), found)
        return found

    def refuse(self, name: str) -> NoReturn:
        """Says why there is no file of that name: nothing is there, or something else."""
        with self._opened(name):
            pass
        raise BundleError("bundle.missing_file", f"{name} is missing from {self.path}.", fix=PUBLISH)

    def read(self, name: str, *, most: int) -> bytes:
        """A file of at most so many bytes."""
        with self._opened(name) as file:
            size = os.fstat(file).st_size
            if size > most:
                raise BundleError(
                    "bundle.too_large", f"{name} in {self.path} has {size} bytes, at most {most} are read.", fix=PUBLISH
                )
            with _refusing(self.path / name, name), os.fdopen(os.dup(file), "rb") as content:
                return content.read(size)

    def verified(self, name: str, entry: FileEntry, deadline: TimeLimit, *, keep: bool) -> Content | None:
        """A file held against its size, then its hash; its bytes where they are to be kept.

        What is returned is what was hashed: nobody can change the file between the two.
        """
        with self._opened(name) as file:
            size = os.fstat(file).st_size
            check_size(self.path, name, size, entry)
            content = np.empty(size if keep else min(size, _CHUNK), dtype=np.uint8)
            digest, at = hashlib.sha256(), 0
            while at < size:
                deadline.check(name)
                piece = (content[at : at + _CHUNK] if keep else content[: min(_CHUNK, size - at)]).data
                with _refusing(self.path / name, name):
                    count = os.readv(file, [piece])
                if count == 0:
                    raise _changed(self.path, name, f"it ended after {at} of {size} bytes")
                digest.update(piece[:count])
                at += count
        if digest.hexdigest() != entry.sha256:
            raise _changed(self.path, name, "its SHA-256 is another")
        return content if keep else None

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        """The descriptor of a regular file, reached through folders alone."""
        path, held = self.path / name, self._handle
        *folders, last = PurePosixPath(name).parts
        with _refusing(path, name):
            try:
                for folder in folders:
                    _must_be(stat.S_IFDIR, os.stat(folder, dir_fd=held, follow_symlinks=False), f"{folder} of {path}")
                    inner = os.open(folder, os.O_DIRECTORY | _ALONE, dir_fd=held)
                    self._leave(held)
                    held = inner
                _must_be(stat.S_IFREG, os.stat(last, dir_fd=held, follow_symlinks=False), str(path))
                file = os.open(last, os.O_NONBLOCK | _ALONE, dir_fd=held)
            finally:
                self._leave(held)
        try:
            _must_be(stat.S_IFREG, os.fstat(file), str(path))
            yield file
        finally:
            os.close(file)

    def _leave(self, handle: int) -> None:
        if handle != self._handle:
            os.close(handle)

    def _walk(self, handle: int, inside: PurePosixPath, found: dict[str, int]) -> None:
        if len(inside.parts) > _DEEPEST or len(found) >= _MOST_FILES:
            raise BundleError(
                "bundle.unlisted_file",
                f"{self.path} holds more than a release does, below {inside}: no end of files or folders.",
                fix="Remove what the release did not come with, or publish it again.",
            )
        with _refusing(self.path / inside, str(inside)), os.scandir(handle) as entries:
            some = islice(entries, _MOST_FILES)
            listed = sorted(((one.name, one.stat(follow_symlinks=False)) for one in some), key=itemgetter(0))
        for name, about in listed:
            path = inside / name
            if stat.S_ISDIR(about.st_mode):
                with _refusing(self.path / path, str(path)):
                    inner = os.open(name, os.O_DIRECTORY | _ALONE, dir_fd=handle)
                try:
                    self._walk(inner, path, found)
                finally:
                    os.close(inner)
            else:
                _must_be(stat.S_IFREG, about, str(self.path / path))
                found[path.as_posix()] = about.st_size


def kind_of(about: os.stat_result) -> str:
    """What lies there, in words."""
    return _KINDS.get(stat.S_IFMT(about.st_mode), "something unknown")


def _must_be(wanted: int, about: os.stat_result, where: str) -> None:
    if stat.S_IFMT(about.st_mode) != wanted:
        raise BundleError(
            "bundle.not_a_file",
            f"{where} is {kind_of(about)}; a release is made of files and folders of its own.",
            fix="Put the file itself there, or publish the release again.",
        )


def check_size(folder: Path, name: str, size: int, entry: FileEntry) -> None:
    """Raises `BundleError` (`bundle.hash_mismatch`) where a file has not the published bytes in number."""
    if size != entry.bytes:
        raise _changed(folder, name, f"{size} bytes, {entry.bytes} published")


def _changed(folder: Path, name: str, how: str) -> BundleError:
    return BundleError(
        "bundle.hash_mismatch",
        f"{name} in {folder} is not the published file ({how}).",
        fix="Restore the file, or publish the release again.",
    )


@contextmanager
def _refusing(path: Path, name: str) -> Iterator[None]:
    """What the operating system says of a path, as a `BundleError`."""
    try:
        yield
    except FileNotFoundError:
        raise BundleError("bundle.missing_file", f"{name} is missing from {path.parent}.", fix=PUBLISH) from None
    except ValueError as error:  # a zero byte in a name
        raise BundleError("bundle.manifest", f"{name!r} can be no file's name: {error}.", fix=PUBLISH) from None
    except OSError as error:
        raise BundleError(
            "bundle.unreadable", f"{path} cannot be read: {error.strerror}.", fix="Check its permissions and the disk."
        ) from error
