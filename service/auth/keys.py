"""API keys: who a caller is and what they may do. The file keeps hashes only, and may change while the service runs.

A key is `isrf_`, eight characters that name it, and 32 random bytes: one that leaked can be found in the file by its
name. 256 random bits cannot be guessed from a hash, so it is a plain SHA-256; a slow hash would cost every request
milliseconds and make nothing safer.

    {"keys": [{"id": "k3x9…", "role": "write", "sha256": "…", "created_at": "…", "name": "shop", "rate": "50/second"}]}

It does not know HTTP; `service.server.access` asks it.
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

Role = Literal["read", "write", "admin"]
RANK: dict[Role, int] = {"read": 0, "write": 1, "admin": 2}
"""A role may do what the ones before it may."""

LOOK_EVERY_S = 1.0
MAX_FILE_BYTES = 1_000_000
MAX_KEY_BYTES = 256
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"

_log = structlog.get_logger("service")


class KeyEntry(BaseModel):
    """What is kept of a key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=r"^[a-z0-9]{4,16}$")]
    role: Role
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created_at: AwareDatetime
    name: Annotated[str, Field(max_length=100)] = ""
    rate: str | None = None
    """How often, as `50/second` or `1000 per minute`; None for the service's own limit."""

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
    """A new key, to be shown once, and what is kept of it."""
    key_id = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    key = f"isrf_{key_id}_{secrets.token_urlsafe(32)}"
    entry = KeyEntry(id=key_id, role=role, sha256=hash_key(key.encode()), created_at=now, name=name, rate=rate)
    return key, entry


def hash_key(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


def read_keys(path: Path) -> tuple[KeyEntry, ...]:
    """The file's keys; `ConfigError` if it cannot be read, is no such file, or holds none."""
    fix = "Make one with `python -m service keys add --file FILE --role write`."
    try:
        # A pipe in its place, which nobody writes to, must not be waited for.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            raw = file.read(MAX_FILE_BYTES + 1) or b""
    except OSError as error:
        raise ConfigError(
            "config.keys_file", f"the API keys file {path} cannot be read ({error.strerror}).", fix=fix
        ) from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(
            "config.keys_file", f"{path} has more than {MAX_FILE_BYTES} bytes and is no API keys file.", fix=fix
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
        raise ConfigError("config.keys_file", f"{path} holds no key, so nobody could come in.", fix=fix)
    return keys


class KeyRing:
    """The keys of a file, read again when it changes: keys come and go without a restart.

    A file that is gone or cannot be read leaves the keys as they were: an operator's slip must neither open the doors
    nor shut out the shop.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises `ConfigError` as `read_keys` does."""
        self._path, self._clock = path, clock
        self._stamp = _stamp(path)
        self._take(read_keys(path))
        self._next_look = clock() + LOOK_EVERY_S

    def find(self, presented: bytes) -> KeyEntry | None:
        """Who presents this key. It takes as long for a wrong key as for a right one."""
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
        # A stat a second; the file is a few KB and read only when it changed, so the event loop may do it.
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
            _log.error("keys_unchanged", code=error.code, message=error.message, fix="The keys read last still hold.")


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes with every change of a file; empty for no file."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_mtime_ns, status.st_size, status.st_ino)
