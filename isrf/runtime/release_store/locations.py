"""Where releases are: a folder, or a place in an object store (`s3://`, `gs://`, `az://`).

A URL holds no credentials: they come from the environment, and so never stand in a log.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from isrf.contract.errors import ConfigError

SCHEMES = ("s3", "gs", "az")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")
_SEGMENT = re.compile(r"[A-Za-z0-9._=+!~-]{1,255}")
_FIX = "Write s3://BUCKET/PREFIX (or gs://, az://, file:///FOLDER); credentials stand in the environment."


@dataclass(frozen=True)
class StoreUrl:
    """A bucket (a container in Azure) and the prefix of the releases in it."""

    scheme: str
    bucket: str
    prefix: str  # without a slash at its ends; "" for the whole bucket

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")


Location = Path | StoreUrl


def location_of(text: str | Path) -> Location:
    """Reads a location as a user writes it: a folder, `file:///FOLDER`, or the URL of a place in an object store.

    Raises:
        ConfigError: `config.releases_url`.
    """
    if isinstance(text, Path):
        return text
    found = _URL.fullmatch(text.strip())
    if found is None:
        return Path(text)
    scheme, rest = found[1].lower(), found[2]
    if scheme == "file":
        if not rest.startswith("/"):
            raise _refused(f"{text[:200]!r} names no absolute folder")
        return Path(unquote(rest))
    if scheme not in SCHEMES:
        raise _refused(f"{scheme}:// is not a kind of store that releases can be in")
    if "@" in rest or "?" in rest:
        # Not quoted: what stands there may be a secret.
        raise _refused(f"the {scheme}:// URL holds a user, a key or a query, which do not belong there")
    bucket, _, prefix = rest.partition("/")
    segments = [segment for segment in prefix.split("/") if segment]
    if not _BUCKET.fullmatch(bucket):
        raise _refused(f"the {scheme}:// URL has no valid bucket")
    if not all(_SEGMENT.fullmatch(segment) and segment not in (".", "..") for segment in segments):
        raise _refused(f"{prefix[:200]!r} is not a prefix of letters, digits, '/' and ._=+!~-")
    return StoreUrl(scheme, bucket, "/".join(segments))


def folder_of(location: Location, what: str) -> Path:
    """The location where it is a folder; `ConfigError` (`config.needs_folder`) for what can only work in one."""
    if isinstance(location, StoreUrl):
        raise ConfigError(
            "config.needs_folder", f"{what} needs a folder, not {location}.", fix="Name a folder on a local disk."
        )
    return location


def _refused(problem: str) -> ConfigError:
    return ConfigError("config.releases_url", f"{problem}.", fix=_FIX)
