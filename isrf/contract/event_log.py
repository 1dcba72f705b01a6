"""Format of the event log that the service writes and the offline job reads: 64 streams and the users' tombstones.

The two halves share only the bundle and this module: the keys of the streams, the format of an event, and how to
recognise an erased user without storing the name. Keys and formats only, no client of any store.
"""

import hmac
import json
import math
import secrets
import zlib
from importlib.resources import files
from typing import NamedTuple

from isrf.contract.errors import ConfigError, StoreError

NUM_BUCKETS = 64
META_KEY = "isrf:{b0}:meta"
"""Hash: `id` of this store, `secret` of its tombstones (`new_secret_record`), and `TRIMMED`."""
TRIMMED = "trimmed"
"""A moment in seconds: entries accepted before it may have been removed, because the offline job has merged them."""
JOURNAL_FILE = "journal.sqlite3"
"""The embedded store's database. The offline job reads its tables journal (seq, user_id, payload), tombstones (name,
bucket, text), meta (name, value) and items (seq, item_id, entry, added).

`meta` has the fields of `META_KEY`, `exported` (the highest seq that the service may delete, because an earlier run of
the offline job has merged it) and `changes` (the number of transactions).
"""
JOURNAL_VERSION = 1
"""SQLite's `user_version` of the database; 0 is an older form with the journal alone, which may hold duplicates."""
TOMBSTONE_COUNT, TOMBSTONE_SECRET = "n", "s"
"""Two fields of a bucket's tombstones that belong to no user: a number that changes with every erasure, and the record
of the secret that the names are hashed with. A store that lost `META_KEY` finds the secret there again."""
ERASE_SCRIPT = files(__package__).joinpath("lua", "erase.lua").read_text(encoding="utf-8")
PURGE_SCRIPT = files(__package__).joinpath("lua", "purge.lua").read_text(encoding="utf-8")
PURGE_PAGE = 1000
"""Entries that one call of `PURGE_SCRIPT` looks at: about a millisecond, during which Redis serves nobody else."""
REMEMBER_S = 86_400
"""How long an event id counts as a duplicate of an earlier one."""
EVENT_FIELD = b"e"
"""The field of a stream entry that holds the event."""
FOLLOWED_ITEMS = 8
"""The most items in `StoredEvent.followed`."""


class StoredEvent(NamedTuple):
    """An accepted event as streams and journal store it: a JSON array of these fields, in this order."""

    user_id: str
    item_id: str
    event: str  # "" for one without a type
    effect: str  # B bought, H history, D disliked, R removed
    timestamp: float  # seconds
    assigned: bool  # the service set the timestamp, because the shop sent none
    event_id: str
    accepted_at: float  # seconds
    followed: tuple[str, ...] = ()
    """The user's last items before this event by time, most recent first, distinct, without the event's own item.

    Empty for `D` and `R`, and in entries of services that wrote the first eight fields only."""


class Tombstone(NamedTuple):
    """The record of a user's erasure: the user's entries up to `position` in the bucket's stream must not be read."""

    nonce: str  # never used again
    position: tuple[int, int]
    erased_at: float  # seconds

    def text(self) -> str:
        return f"{self.nonce} {self.position[0]}-{self.position[1]} {self.erased_at!r}"


def bucket_of(user_id: str) -> int:
    """The user's bucket, 0 … 63; the same in every process and every release."""
    return zlib.crc32(user_id.encode()) % NUM_BUCKETS


def stream_key(bucket: int) -> str:
    """Redis key of the bucket's stream of accepted events."""
    return f"isrf:{{b{bucket}}}:s"


def tombstone_key(bucket: int) -> str:
    """Redis key of a hash: `tombstone_name` → `Tombstone.text`, and `TOMBSTONE_COUNT` and `TOMBSTONE_SECRET`."""
    return f"isrf:{{b{bucket}}}:t"


def erased_ids_key(bucket: int, name: str) -> str:
    """Redis key of a sorted set of an erased user's event ids.

    A member is the hash of `erased_ids_salt` and `event_digest`, scored by acceptance time. The member `@` is scored by
    the time of the erasure.
    """
    return f"isrf:{{b{bucket}}}:f:{name}"


def user_keys(user_id: str) -> tuple[str, ...]:
    """Redis keys of a user: version, history, marks, event ids, cached interests, last answer, in this order."""
    tag = f"isrf:{{b{bucket_of(user_id)}}}"
    return tuple(f"{tag}:{kind}:{user_id}" for kind in "vhxega")


def erasure_call(record: str, secret: bytes, user_id: str) -> tuple[int, list[str]]:
    """The number of keys, and the keys and arguments, of a call of `ERASE_SCRIPT`.

    The script returns a position in the stream.

    Args:
        record: the record of the secret, as `META_KEY` holds it.
    """
    bucket, name = bucket_of(user_id), tombstone_name(secret, user_id)
    keys = [tombstone_key(bucket), stream_key(bucket), erased_ids_key(bucket, name), *user_keys(user_id)]
    count_from = str(secrets.randbelow(2**48))
    salt = erased_ids_salt(secret, user_id)
    return len(keys), [*keys, name, secrets.token_hex(8), record, count_from, str(REMEMBER_S), salt]


def purge_call(user_id: str, start: str, last: str) -> tuple[int, list[str]]:
    """The number of keys, and the keys and arguments, of a call of `PURGE_SCRIPT`.

    The script returns the next `start`, or "" at the end.

    Args:
        start: "-" in the first call.
        last: the position that `ERASE_SCRIPT` returned.
    """
    # The service's JSON writer spells a user_id in the same way; a user_id holds no control character.
    prefix = "[" + json.dumps(user_id, ensure_ascii=False) + ","
    return 1, [stream_key(bucket_of(user_id)), prefix, start, last, str(PURGE_PAGE)]


def stream_position(entry_id: bytes | str) -> tuple[int, int]:
    """A stream entry's id as two numbers; comparing them gives the order of the stream."""
    text = entry_id.decode() if isinstance(entry_id, bytes) else entry_id
    milliseconds, _, number = text.partition("-")
    return int(milliseconds), int(number or 0)


def read_event(payload: bytes) -> StoredEvent:
    """Parses a stored event, with or without the field `followed`.

    Raises:
        StoreError: `store.journal_corrupt`, the payload is nothing that the service writes.
    """
    try:
        *fields, followed = json.loads(payload)
        if len(fields) < len(StoredEvent._fields) - 1:
            fields, followed = [*fields, followed], []
        event = StoredEvent._make([*fields, tuple(followed)])
        if not isinstance(followed, list) or not all(isinstance(item_id, str) for item_id in followed):
            raise TypeError("the items before it are no list of strings")
        if not (
            all(isinstance(part, str) for part in (*event[:4], event.event_id)) and isinstance(event.assigned, bool)
        ):
            raise TypeError("a field has the wrong type")
        if not all(math.isfinite(seconds) for seconds in (event.timestamp, event.accepted_at)):
            raise ValueError("a time is not a finite number of seconds")
    except (ValueError, TypeError, OverflowError) as error:
        raise StoreError(
            "store.journal_corrupt", f"a stored event cannot be read: {error}.", fix="Restore the store from a backup."
        ) from None
    return event


def read_tombstone(text: bytes) -> Tombstone:
    """Parses the text of a tombstone; raises `ValueError` on any other text."""
    nonce, position, erased_at = text.decode().split(" ")
    return Tombstone(nonce, stream_position(position), float(erased_at))


def tombstone_name(secret: bytes, user_id: str) -> str:
    """The name of an erased user's tombstone: without the secret nobody can tell whose it is, even by trying user ids.

    It is the first half of a keyed hash of the user id.
    """
    return hmac.new(secret, user_id.encode(), "sha256").hexdigest()[:32]


def erased_ids_salt(secret: bytes, user_id: str) -> str:
    """The salt for hashing an erased user's event ids: the half of the hash that `tombstone_name` leaves out."""
    return hmac.new(secret, user_id.encode(), "sha256").hexdigest()[32:]


def new_secret_record(erasure_key: str | None) -> str:
    """The secret's record for a store that has none yet: a fresh secret, or the fingerprint of the operator's key."""
    return f"generated {secrets.token_hex(32)}" if erasure_key is None else f"given {_fingerprint(erasure_key)}"


def secret_of(record: str, erasure_key: str | None) -> bytes:
    """The secret of a store's tombstones.

    Args:
        record: the record of the secret, as `META_KEY` holds it.
        erasure_key: the operator's key (`ISRF_ERASURE_KEY`); None where there is none.

    Raises:
        ValueError: `record` is not a record of a secret.
        ConfigError: the store's tombstones were made with another secret. Going on would bring erased users back.
    """
    kind, _, value = record.partition(" ")
    if kind not in ("generated", "given"):
        raise ValueError("not a record of a secret")
    if kind == "generated" and erasure_key is None:
        secret = bytes.fromhex(value)
        if not secret:
            raise ValueError("not a record of a secret")
        return secret
    if kind == "given" and erasure_key is not None and value == _fingerprint(erasure_key):
        return erasure_key.encode()
    raise ConfigError(
        "config.erasure_key",
        "this store recorded its erased users with another key"
        + (" than ISRF_ERASURE_KEY." if erasure_key is not None else ", which came from ISRF_ERASURE_KEY."),
        fix="Set ISRF_ERASURE_KEY to the value that it had when this store was first used"
        + ("." if kind == "given" else ": unset."),
    )


def _fingerprint(erasure_key: str) -> str:
    return hmac.new(erasure_key.encode(), b"isrf erasure key", "sha256").hexdigest()
