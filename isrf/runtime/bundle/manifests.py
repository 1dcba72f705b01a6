"""Finds the release that a folder serves, and reads its manifest: limits its size, parses it and checks its seal."""

import os
import stat
from pathlib import Path, PurePosixPath
from typing import Any

import orjson
from pydantic import ValidationError

from isrf.contract.errors import BundleError
from isrf.contract.manifest import MANIFEST_FILE, SEALED_SCHEMA_VERSIONS, UNSEALED_SCHEMA_VERSION, Manifest
from isrf.contract.manifest_seal import check_seal
from isrf.runtime.bundle.folder import BundleFolder, kind_of
from isrf.runtime.bundle.refusals import PUBLISH, refusing

CURRENT = "current"
MOST_MANIFEST_BYTES = 16 << 20
"""A hundred times the size of a release's manifest."""
_MAKE = "Make one with `python -m offline run --data DIR --releases DIR`, or set --releases to its folder."


def find_release(releases: Path) -> Path:
    """The folder of the release to serve: the target of `current`, or `releases` itself if it is a release.

    Raises:
        BundleError: `bundle.no_release`, there is no release; `bundle.outside`, `current` points outside `releases`.
    """
    if _status(releases / MANIFEST_FILE) is not None:
        return Path(os.path.realpath(releases))
    # Resolved only once: if the link changes while files are being opened, two releases must not be mixed.
    return _inside(releases, CURRENT)


def named_release(releases: Path, name: str) -> Path:
    """The folder of the release `name` in `releases`; raises as `find_release`."""
    return _inside(releases, name)


def _inside(releases: Path, name: str) -> Path:
    path = releases / name
    if _status(path) is None:
        raise BundleError(
            "bundle.no_release",
            f"{releases} holds no release: there is neither {name}/{MANIFEST_FILE} nor {MANIFEST_FILE}.",
            fix=_MAKE,
        )
    try:
        folder = Path(os.path.realpath(path, strict=True))
        status = folder.stat()
    except FileNotFoundError:
        raise BundleError(
            "bundle.no_release", f"{path} points to {_target(path)}, which does not exist.", fix=_MAKE
        ) from None
    except OSError as error:  # for instance a link to itself
        raise BundleError(
            "bundle.no_release",
            f"{path} points to {_target(path)}, which cannot be opened: {error.strerror}.",
            fix=f"Point {name} at a release: `ln -sfn RELEASE_ID {path}`.",
        ) from None
    if not stat.S_ISDIR(status.st_mode):
        raise BundleError(
            "bundle.no_release",
            f"{path} is {kind_of(status)}, not a release's folder.",
            fix=f"Point {name} at a release: `ln -sfn RELEASE_ID {path}`.",
        )
    base = Path(os.path.realpath(releases))
    if folder != base and not folder.is_relative_to(base):
        raise BundleError(
            "bundle.outside",
            f"{path} points to {folder}, which is outside {base}.",
            fix=f"Publish the release into {base}, or set --releases to its own folder: {folder}.",
        )
    if _status(folder / MANIFEST_FILE) is None:
        raise BundleError(
            "bundle.no_release", f"{releases} holds no release: {name} has no {MANIFEST_FILE}.", fix=_MAKE
        )
    return folder


def _status(path: Path) -> os.stat_result | None:
    """The status of a path itself, not of a link's target; None where nothing is there."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BundleError(
            "bundle.unreadable", f"{path} cannot be read: {error.strerror}.", fix="Check the folder's permissions."
        ) from error


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return "itself"


def manifest_bytes(folder: BundleFolder) -> bytes:
    """The bytes of the manifest file, up to a limit."""
    return folder.read(MANIFEST_FILE, most=MOST_MANIFEST_BYTES)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of one release's folder, or of a link to it.

    Raises:
        BundleError: `bundle.no_release`, there is no manifest; else as `manifest_of`.
    """
    if _status(folder / MANIFEST_FILE) is None:
        raise BundleError(
            "bundle.no_release", f"{folder} holds no {MANIFEST_FILE}.", fix="Name the folder of one release."
        )
    with BundleFolder(folder.resolve()) as files:
        return manifest_of(files)


def manifest_of(folder: BundleFolder) -> Manifest:
    """The manifest of an open release folder.

    Raises:
        BundleError: `bundle.schema_version`, `bundle.manifest` where it cannot be parsed, and as
            `isrf.contract.manifest_seal.check_seal` where it was changed.
    """
    path = folder.path / MANIFEST_FILE
    with refusing("bundle.manifest", str(path)):
        fields = _fields(manifest_bytes(folder), path)
        try:
            # Parses the fields that the seal covers, not the file: a name that appears twice there counts once.
            manifest = Manifest.model_validate_json(orjson.dumps(fields), strict=True)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the whole file"
            raise BundleError("bundle.manifest", f"{path}: {where}: {first['msg']}.", fix=PUBLISH) from None
        if manifest.schema_version in SEALED_SCHEMA_VERSIONS or manifest.sha256 is not None:
            check_seal(fields)
    for name in manifest.files:
        inner = PurePosixPath(name)
        if inner.is_absolute() or ".." in inner.parts or inner.as_posix() != name or name in {"", ".", MANIFEST_FILE}:
            raise BundleError(
                "bundle.manifest", f"the manifest names {name!r}, which is outside the release.", fix=PUBLISH
            )
    return manifest


def _fields(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BundleError("bundle.manifest", f"{path} is not valid JSON: {error}.", fix=PUBLISH) from None
    if not isinstance(fields, dict):
        raise BundleError("bundle.manifest", f"{path} holds a {type(fields).__name__}, not an object.", fix=PUBLISH)
    version = fields.get("schema_version")
    if type(version) is not int or version not in {*SEALED_SCHEMA_VERSIONS, UNSEALED_SCHEMA_VERSION}:
        raise BundleError(
            "bundle.schema_version",
            f"{path} has schema_version {repr(version)[:40]}, this version reads {UNSEALED_SCHEMA_VERSION} to "
            f"{max(SEALED_SCHEMA_VERSIONS)}.",
            fix="Publish the release with this version of isrf, or serve it with the version that made it.",
        )
    return fields
