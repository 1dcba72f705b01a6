"""Reads the API keys file and finds a key's entry. The file has only hashes, and may change while the service runs.

A key is `isrf_`, eight characters that name it, and 32 random bytes; the name finds a leaked key in the file. The hash
is a plain SHA-256, because nobody can guess 256 random bits from it; a slow hash would cost every request milliseconds
and would not be safer.

    {"keys": [{"id": "k3x9…", "role": "write", "sha256": "…", "created_at": "…", "name": "shop", "rate": "50/second"}]}

It does not know HTTP; `service.server.access` calls it.
"""

import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import structlog
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator

from isrf.contract.errors import ConfigError
from service.settings import checked_rate

Role = Literal["browser", "read", "write", "admin"]
INCLUDES: dict[Role, frozenset[Role]] = {
    "browser": frozenset({"browser"}),
    "read": frozenset({"read"}),
    "write": frozenset({"browser", "read", "write"}),
    "admin": frozenset({"browser", "read", "write", "admin"}),
}
"""The roles whose calls a role may make. A browser's key is public: it may write events of sessions, no more."""

LOOK_EVERY_S = 1.0
MAX_FILE_BYTES = 1_000_000
MAX_KEY_BYTES = 256
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"

_log = structlog.get_logger("service")


class KeyEntry(BaseModel):
    """The file's entry of a key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=r"^[a-z0-9]{4,16}$")]
    role: Role
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created_at: AwareDatetime
    name: Annotated[str, Field(max_length=100)] = ""
    rate: str | None = None
    """Rate limit, as `50/second` or `1000 per minute`; None for the service's own limit."""

    @field_validator("rate")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        return None if value is None else checked_rate(value)


class KeyFile(BaseModel):
    """The file as a whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: tuple[KeyEntry, ...]

    @field_validator("keys")
    @classmethod
    def _distinct(cls, keys: tuple[KeyEntry, ...]) -> tuple[KeyEntry, ...]:
        for what in ("id", "sha256"):
            if len({getattr(key, what) for key in keys}) < len(keys):
                raise ValueError(f"two keys have the same {what}")
        return keys


def make_key(role: Role, *, name: str, rate: str | None, now: datetime) -> tuple[str, KeyEntry]:
    """Makes a key; returns it, to be shown once, and its entry for the file."""
    key_id = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    key = f"isrf_{key_id}_{secrets.token_urlsafe(32)}"
    entry = KeyEntry(id=key_id, role=role, sha256=hash_key(key.encode()), created_at=now, name=name, rate=rate)
    return key, entry


def hash_key(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


def read_keys(path: Path) -> tuple[KeyEntry, ...]:
    """Returns the file's keys; raises `ConfigError` where the file cannot be read, is not valid or has no key."""
    fix = "Make one with `python -m service keys add --file FILE --role write`."
    try:
        # Does not wait where the path is a pipe without a writer.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            raw = file.read(MAX_FILE_BYTES + 1) or b""
    except OSError as error:
        raise ConfigError(
            "config.keys_file", f"the API keys file {path} cannot be read ({error.strerror}).", fix=fix
        ) from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(
            "config.keys_file", f"{path} has more than {MAX_FILE_BYTES} bytes and is not an API keys file.", fix=fix
        )
    try:
        keys = KeyFile.model_validate(json.loads(raw)).keys
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError("config.keys_file", f"{path}: {where}: {first['msg']}.", fix=fix) from None
    except (ValueError, RecursionError):
        raise ConfigError("config.keys_file", f"{path} is not JSON.", fix=fix) from None
    if not keys:
        raise ConfigError("config.keys_file", f"{path} has no key, so that no caller would have access.", fix=fix)
    return keys


class KeyRing:
    """The keys of a file, which it reads again when the file changes, without a restart.

    Where the file is gone or cannot be read, the keys stay as they are: an operator's mistake must neither open the
    service nor lock out the shop.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises `ConfigError` as `read_keys` does."""
        self._path, self._clock = path, clock
        self._stamp = _stamp(path)
        self._take(read_keys(path))
        self._next_look = clock() + LOOK_EVERY_S

    def find(self, presented: bytes) -> KeyEntry | None:
        """Returns the entry of a key, or None; a wrong key takes as long as a right one."""
        self._look()
        if len(presented) > MAX_KEY_BYTES:
            return None
        digest = hash_key(presented).encode()
        found = None
        for sha256, entry in self._keys:
            if hmac.compare_digest(digest, sha256):
                found = entry
        return found

    def _take(self, keys: Sequence[KeyEntry]) -> None:
        self._keys = [(entry.sha256.encode(), entry) for entry in keys]

    def _look(self) -> None:
        # On the event loop: one stat per second, and the file has a few KB and is read only when it has changed.
        if self._clock() < self._next_look:
            return
        self._next_look = self._clock() + LOOK_EVERY_S
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._take(read_keys(self._path))
            _log.info("keys_changed", num_keys=len(self._keys))
        except ConfigError as error:
            _log.error("keys_unchanged", code=error.code, message=error.message, fix="The last valid keys stay in use.")


def _stamp(path: Path) -> tuple[int, ...]:
    """Returns values that change with every change of a file; empty for a missing file."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_mtime_ns, status.st_size, status.st_ino)
