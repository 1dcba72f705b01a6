"""Reads a release's folder through its descriptor: only regular files inside it, and exactly the bytes that it hashed.

It checks a name before it opens the file and again afterwards. It follows no link and never blocks: it refuses a pipe,
a device or a socket in a file's place at once. If somebody replaces the folder meanwhile, it still reads the old one.
It knows nothing of what the files mean.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from operator import itemgetter
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import NoReturn

from isrf.contract.errors import BundleError
from isrf.contract.manifest import FileEntry
from isrf.runtime.bundle.contents import Content, FileChangedError, read_hashed
from isrf.runtime.bundle.refusals import PUBLISH
from isrf.runtime.limits.time_limit import TimeLimit

_MOST_FILES = 10_000
_MOST_LEVELS = 4
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
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
    """An open folder; the context manager closes it."""

    def __init__(self, path: Path) -> None:
        """Opens the folder `path`, which must not be a link; raises `BundleError` where that fails."""
        self.path = path
        with _refusing(path, path.name):
            self._handle = os.open(path, os.O_DIRECTORY | _OPEN_FLAGS)

    def __enter__(self) -> "BundleFolder":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        os.close(self._handle)

    def sizes(self) -> dict[str, int]:
        """The size of every file below the folder, by path.

        Raises:
            BundleError: `bundle.not_a_file`, something is neither a file nor a folder.
        """
        sizes: dict[str, int] = {}
        self._walk(self._handle, PurePosixPath(), sizes)
        return sizes

    def refuse(self, name: str) -> NoReturn:
        """Raises the `BundleError` for a file that `sizes` did not find: it is missing, or something else is there."""
        with self._opened(name):
            pass
        raise BundleError("bundle.missing_file", f"{name} is missing from {self.path}.", fix=PUBLISH)

    def read(self, name: str, *, most: int) -> bytes:
        """The content of a file of at most `most` bytes."""
        with self._opened(name) as file:
            size = os.fstat(file).st_size
            if size > most:
                raise BundleError(
                    "bundle.too_large",
                    f"{name} in {self.path} has {size} bytes, the limit is {most}.",
                    fix=PUBLISH,
                )
            with _refusing(self.path / name, name), os.fdopen(os.dup(file), "rb") as content:
                return content.read(size)

    def verified(self, name: str, entry: FileEntry, deadline: TimeLimit, *, keep: bool) -> Content | None:
        """Checks a file's size and hash; returns its bytes if `keep` is True, else None. Threads may call it.

        The returned bytes are the hashed bytes (`isrf.runtime.bundle.contents`).
        """
        with self._opened(name) as file:
            size = os.fstat(file).st_size
            check_size(self.path, name, size, entry)
            with _refusing(self.path / name, name):
                try:
                    digest, content = read_hashed(file, size, keep=keep, check_deadline=lambda: deadline.check(name))
                except FileChangedError as error:
                    raise _changed(self.path, name, str(error)) from None
        if digest != entry.sha256:
            raise _changed(self.path, name, "its SHA-256 differs")
        return content

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        """The descriptor of a regular file; every parent must be a real folder, not a link."""
        path, parent = self.path / name, self._handle
        *folders, last = PurePosixPath(name).parts
        with _refusing(path, name):
            try:
                for folder in folders:
                    _must_be(stat.S_IFDIR, os.stat(folder, dir_fd=parent, follow_symlinks=False), f"{folder} of {path}")
                    inner = os.open(folder, os.O_DIRECTORY | _OPEN_FLAGS, dir_fd=parent)
                    self._close_inner(parent)
                    parent = inner
                _must_be(stat.S_IFREG, os.stat(last, dir_fd=parent, follow_symlinks=False), str(path))
                file = os.open(last, os.O_NONBLOCK | _OPEN_FLAGS, dir_fd=parent)
            finally:
                self._close_inner(parent)
        try:
            _must_be(stat.S_IFREG, os.fstat(file), str(path))
            yield file
        finally:
            os.close(file)

    def _close_inner(self, handle: int) -> None:
        if handle != self._handle:
            os.close(handle)

    def _walk(self, handle: int, inside: PurePosixPath, found: dict[str, int]) -> None:
        if len(inside.parts) > _MOST_LEVELS or len(found) >= _MOST_FILES:
            raise BundleError(
                "bundle.unlisted_file",
                f"{self.path} holds more files or levels of folders than any release, below {inside}.",
                fix="Remove the files that do not belong to the release, or publish it again.",
            )
        with _refusing(self.path / inside, str(inside)), os.scandir(handle) as entries:
            first = islice(entries, _MOST_FILES)
            listed = sorted(((entry.name, entry.stat(follow_symlinks=False)) for entry in first), key=itemgetter(0))
        for name, status in listed:
            path = inside / name
            if stat.S_ISDIR(status.st_mode):
                with _refusing(self.path / path, str(path)):
                    inner = os.open(name, os.O_DIRECTORY | _OPEN_FLAGS, dir_fd=handle)
                try:
                    self._walk(inner, path, found)
                finally:
                    os.close(inner)
            else:
                _must_be(stat.S_IFREG, status, str(self.path / path))
                found[path.as_posix()] = status.st_size


def kind_of(status: os.stat_result) -> str:
    """The kind of a path in words: "a file", "a symbolic link", …"""
    return _KINDS.get(stat.S_IFMT(status.st_mode), "something unknown")


def _must_be(kind: int, status: os.stat_result, where: str) -> None:
    if stat.S_IFMT(status.st_mode) != kind:
        raise BundleError(
            "bundle.not_a_file",
            f"{where} is {kind_of(status)}; a release holds only regular files and folders.",
            fix="Put the file itself there, or publish the release again.",
        )


def check_size(folder: Path, name: str, size: int, entry: FileEntry) -> None:
    """Raises `BundleError` (`bundle.hash_mismatch`) where a file's size differs from the published size."""
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
    """Turns the operating system's errors about a path into a `BundleError`."""
    try:
        yield
    except FileNotFoundError:
        raise BundleError("bundle.missing_file", f"{name} is missing from {path.parent}.", fix=PUBLISH) from None
    except ValueError as error:  # a zero byte in a name
        raise BundleError("bundle.manifest", f"{name!r} is not a valid file name: {error}.", fix=PUBLISH) from None
    except OSError as error:
        raise BundleError(
            "bundle.unreadable", f"{path} cannot be read: {error.strerror}.", fix="Check its permissions and the disk."
        ) from error
