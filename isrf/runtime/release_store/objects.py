"""The objects below a prefix of an object store, by obstore: one code for S3, Google Cloud Storage and Azure.

It reads small objects and ranges of large ones, uploads files, and writes an object only if nobody else did. It never
relies on a listing to open a release: stores may list late. It knows no release.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from isrf.contract.errors import BundleError, ConfigError
from isrf.runtime.release_store.locations import StoreUrl

TIMEOUT_S = 20.0
"""How long one request may take, its body too; the largest body is a piece of a file."""
SHA256 = "sha256"
"""The attribute of an uploaded file with its hash: an object that something else wrote has none."""
STORE_CODES = frozenset({"bundle.store_unreachable", "bundle.store_denied"})
"""Codes of errors that say nothing of a release: the store does not answer, or not to us."""
_RETRIES = 2
_LONGEST = 300
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a role of the machine or pod, AWS_REGION, AWS_ENDPOINT_URL",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or the machine's service account",
    "az": "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY, or a managed identity",
}
_NO_CONDITIONS = re.compile(r"\b501\b|NotImplemented|not (yet )?implemented|not supported", re.IGNORECASE)


class Version(NamedTuple):
    """What a store calls the state of an object: S3 and Azure by its ETag, Google by its generation."""

    e_tag: str | None
    generation: str | None


class Found(NamedTuple):
    content: bytes
    version: Version


class WrittenMeanwhileError(Exception):
    """A conditional write found another version of the object than the caller had read."""


class NoConditionsError(Exception):
    """The store answers that it has no conditional writes."""


class ObjectStore:
    """The objects below a URL's prefix, by name; threads may share it."""

    def __init__(self, url: StoreUrl, *, timeout_s: float = TIMEOUT_S) -> None:
        """Opens nothing yet. Raises `ConfigError`: the extra is missing, or the environment cannot work."""
        self.url = url
        self._obstore = _obstore()
        try:
            self._store = self._obstore.store.from_url(
                str(url),
                client_options={
                    "timeout": timedelta(seconds=timeout_s),
                    "connect_timeout": timedelta(seconds=min(5.0, timeout_s)),
                    # A store in the same network, such as MinIO or SeaweedFS, often has no certificate.
                    "allow_http": any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS),
                },
                retry_config={
                    "max_retries": _RETRIES,
                    "retry_timeout": timedelta(seconds=2 * timeout_s),
                    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=2)},
                },
            )
        except (self._obstore.exceptions.BaseError, ValueError) as error:
            raise ConfigError(
                "config.object_store",
                f"{url} cannot be used: {_first_line(error)}.",
                fix=f"Set {_CREDENTIALS[url.scheme]}.",
            ) from None

    def read(self, name: str, *, most: int) -> Found | None:
        """An object of at most `most` bytes, and its version; None where there is none."""
        with self._reporting(name):
            try:
                result = self._obstore.get(self._store, name)
                size = result.meta["size"]
                if size > most:
                    raise BundleError(
                        "bundle.too_large",
                        f"{name} in {self.url} has {size} bytes, the limit is {most}.",
                        fix="Publish the release again.",
                    )
                content = bytes(result.bytes())
            except FileNotFoundError:
                return None
        if len(content) != size:
            raise self._unreachable(name, f"{len(content)} of {size} bytes came")
        return Found(content, Version(result.meta["e_tag"], result.meta["version"]))

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """The bytes from `start` to before `stop`, or the first of them where the answer was cut.

        Raises:
            BundleError: `bundle.missing_file`, there is no such object.
        """
        with self._reporting(name):
            try:
                return bytes(self._obstore.get_range(self._store, name, start=start, end=stop))
            except FileNotFoundError:
                raise BundleError(
                    "bundle.missing_file", f"{name} is missing from {self.url}.", fix="Publish the release again."
                ) from None

    def holds_file(self, name: str, *, size: int, sha256: str) -> bool:
        """Whether the object is what `put_file` made of a file of that size and hash."""
        with self._reporting(name):
            try:
                found = self._obstore.get(self._store, name, options={"head": True})
            except FileNotFoundError:
                return False
        return bool(found.meta["size"] == size and found.attributes.get(SHA256) == sha256)

    def put_file(self, name: str, path: Path, *, sha256: str) -> None:
        """Uploads a file; a large one in parts. Readers see all of it or nothing."""
        with self._reporting(name):
            self._obstore.put(self._store, name, path, attributes={SHA256: sha256})

    def put(self, name: str, content: bytes) -> None:
        """Writes an object, whatever is there."""
        with self._reporting(name):
            self._obstore.put(self._store, name, content)

    def put_if(self, name: str, content: bytes, seen: Version | None) -> None:
        """Writes an object if it still has the version `seen`; with None if there still is none.

        Raises:
            WrittenMeanwhileError: somebody else wrote it.
            NoConditionsError: the store has no conditional writes; nothing is written.
        """
        errors = self._obstore.exceptions
        version = {} if seen is None else {"e_tag": seen.e_tag, "version": seen.generation}
        known = {key: value for key, value in version.items() if value is not None}
        with self._reporting(name):
            try:
                self._obstore.put(self._store, name, content, mode="create" if seen is None else known)
            except (errors.AlreadyExistsError, errors.PreconditionError, FileNotFoundError):
                raise WrittenMeanwhileError(name) from None
            except (errors.NotSupportedError, NotImplementedError) as error:
                raise NoConditionsError(_first_line(error)) from None
            except errors.GenericError as error:
                if _NO_CONDITIONS.search(_first_line(error)):
                    raise NoConditionsError(_first_line(error)) from None
                raise

    def folders(self) -> list[str]:
        """The names directly below the prefix that hold objects, as the store lists them now."""
        return sorted({path.partition("/")[0] for path in self._listed("") if "/" in path})

    def delete_folder(self, name: str, *, last: str) -> None:
        """Deletes every object below `name` that the store lists, and only then the one that is called `last`."""
        final = f"{name}/{last}"
        others = [path for path in self._listed(f"{name}/") if path != final]
        with self._reporting(name):
            if others:
                self._obstore.delete(self._store, others)
        self.delete(final)

    def _listed(self, prefix: str) -> list[str]:
        with self._reporting("its listing"):
            pages = self._obstore.list(self._store, prefix=prefix or None)
            return [one["path"] for page in pages for one in page]

    def delete(self, name: str) -> None:
        """Deletes an object, where it is there."""
        with self._reporting(name):
            try:
                self._obstore.delete(self._store, name)
            except FileNotFoundError:
                return

    @contextmanager
    def _reporting(self, name: str) -> Iterator[None]:
        """Turns the library's errors into a `BundleError` without its debug output."""
        errors = self._obstore.exceptions
        try:
            yield
        except (errors.PermissionDeniedError, errors.UnauthenticatedError) as error:
            raise BundleError(
                "bundle.store_denied",
                f"{self.url} refuses {name}: {_first_line(error)}.",
                fix=f"Check its policy and the credentials: {_CREDENTIALS[self.url.scheme]}.",
            ) from None
        except (errors.BaseError, OSError, ValueError) as error:
            raise self._unreachable(name, _first_line(error)) from None

    def _unreachable(self, name: str, problem: str) -> BundleError:
        return BundleError(
            "bundle.store_unreachable",
            f"{name} in {self.url} cannot be read or written now: {problem}.",
            fix=f"Check the network and the store ({_CREDENTIALS[self.url.scheme]}).",
        )


def _obstore() -> Any:
    """The library; its import takes a while, and a folder of releases needs none."""
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError:
        raise ConfigError(
            "config.object_store_extra",
            "releases in an object store need the package obstore, which is not installed.",
            fix="Run: pip install 'isrf[object-store]'.",
        ) from None
    return obstore


def _first_line(error: BaseException) -> str:
    """What the library says, without its debug output and without credentials of an endpoint's URL."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"//[^/\s@]*@", "//", lines[0])[:_LONGEST].rstrip(".: ")
