"""What the service leaves for the offline job: accepted events in 64 streams, and the tombstones of erased users.

The two halves know nothing of each other but the bundle and this: where the streams stand, how an event is written in
them, and how an erased user is recognised by someone who must not keep the name. Names only, no client of any store.
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
"""Hash: `id` of this store, `secret` of its tombstones (`new_secret_record`)."""
JOURNAL_FILE = "journal.sqlite3"
"""The embedded store's database. The offline job reads its tables journal (seq, user_id, payload), tombstones (name,
bucket, text), meta (name, value) and items (seq, item_id, entry, added).

`meta` has what `META_KEY` has, `exported` (the highest seq that the offline job has taken in) and `changes` (how many
transactions there were).
"""
JOURNAL_VERSION = 1
"""SQLite's `user_version` of the database; 0 where the journal was all there was, duplicates included."""
TOMBSTONE_COUNT, TOMBSTONE_SECRET = "n", "s"
"""Fields of a bucket's tombstones that are no user's: a number that moves with every erasure, and the record of the
secret under which the names stand, by which a store that lost `META_KEY` finds it again."""
ERASE_SCRIPT = files(__package__).joinpath("lua", "erase.lua").read_text(encoding="utf-8")
PURGE_SCRIPT = files(__package__).joinpath("lua", "purge.lua").read_text(encoding="utf-8")
PURGE_PAGE = 1000
"""Entries that one call of `PURGE_SCRIPT` looks at: about a millisecond, in which nobody else is served."""
REMEMBER_S = 86_400
"""How long an event id counts as a duplicate of an earlier one."""
EVENT_FIELD = b"e"
"""The field of a stream entry that holds the event."""


class KeptEvent(NamedTuple):
    """An accepted event as streams and journal keep it: a JSON array of these, in this order."""

    user_id: str
    item_id: str
    event: str  # "" for one without a type
    effect: str  # B bought, H history, D disliked, R removed
    timestamp: float  # seconds
    assigned: bool  # the timestamp is the service's own: the shop sent none
    event_id: str
    accepted_at: float  # seconds


class Tombstone(NamedTuple):
    """When a user was erased: their entries up to `position` in their bucket's stream must not be read."""

    nonce: str  # never used again
    position: tuple[int, int]
    erased_at: float  # seconds

    def text(self) -> str:
        return f"{self.nonce} {self.position[0]}-{self.position[1]} {self.erased_at!r}"


def bucket_of(user_id: str) -> int:
    """0 … 63, the same in every process and every release."""
    return zlib.crc32(user_id.encode()) % NUM_BUCKETS


def stream_key(bucket: int) -> str:
    return f"isrf:{{b{bucket}}}:s"


def tombstone_key(bucket: int) -> str:
    """Hash: `tombstone_name` → `Tombstone.text`, `TOMBSTONE_COUNT` and `TOMBSTONE_SECRET`."""
    return f"isrf:{{b{bucket}}}:t"


def erased_ids_key(bucket: int, name: str) -> str:
    """Sorted set: `erased_ids_salt` and `event_digest` of what an erased user did, hashed, by acceptance time; and
    `@`, by the time of the erasure."""
    return f"isrf:{{b{bucket}}}:f:{name}"


def user_keys(user_id: str) -> tuple[str, ...]:
    """Version, history, marks, event ids, cached interests, last answer of a user, in this order."""
    tag = f"isrf:{{b{bucket_of(user_id)}}}"
    return tuple(f"{tag}:{kind}:{user_id}" for kind in "vhxega")


def erasure_call(record: str, secret: bytes, user_id: str) -> tuple[int, list[str]]:
    """Number of keys, and keys and arguments of `ERASE_SCRIPT`, which answers with a position in the stream.

    Args:
        record: of the secret, as `META_KEY` holds it.
    """
    bucket, name = bucket_of(user_id), tombstone_name(secret, user_id)
    keys = [tombstone_key(bucket), stream_key(bucket), erased_ids_key(bucket, name), *user_keys(user_id)]
    count_from = str(secrets.randbelow(2**48))
    salt = erased_ids_salt(secret, user_id)
    return len(keys), [*keys, name, secrets.token_hex(8), record, count_from, str(REMEMBER_S), salt]


def purge_call(user_id: str, start: str, last: str) -> tuple[int, list[str]]:
    """Number of keys, and keys and arguments of `PURGE_SCRIPT`, which answers with the next `start`, "" at the end.

    Args:
        start: "-" at first.
        last: the position that `ERASE_SCRIPT` answered.
    """
    # As the service's JSON writer spells a user_id, which holds no control character.
    prefix = "[" + json.dumps(user_id, ensure_ascii=False) + ","
    return 1, [stream_key(bucket_of(user_id)), prefix, start, last, str(PURGE_PAGE)]


def stream_position(entry_id: bytes | str) -> tuple[int, int]:
    """A stream entry's id as numbers, which compare as the stream is ordered."""
    text = entry_id.decode() if isinstance(entry_id, bytes) else entry_id
    milliseconds, _, number = text.partition("-")
    return int(milliseconds), int(number or 0)


def read_event(payload: bytes) -> KeptEvent:
    """Raises `StoreError` (`store.journal_corrupt`) on anything that the service did not write."""
    try:
        event = KeptEvent(*json.loads(payload))
        if not (
            all(isinstance(part, str) for part in (*event[:4], event.event_id)) and isinstance(event.assigned, bool)
        ):
            raise TypeError("a part is of another type")
        if not all(math.isfinite(moment) for moment in (event.timestamp, event.accepted_at)):
            raise ValueError("a moment is no number of seconds")
    except (ValueError, TypeError, OverflowError) as error:
        raise StoreError(
            "store.journal_corrupt", f"a kept event cannot be read: {error}.", fix="Restore the store from a backup."
        ) from None
    return event


def read_tombstone(text: bytes) -> Tombstone:
    """Raises `ValueError` on what no tombstone says."""
    nonce, position, erased_at = text.decode().split(" ")
    return Tombstone(nonce, stream_position(position), float(erased_at))


def tombstone_name(secret: bytes, user_id: str) -> str:
    """How an erased user is remembered: whoever lacks the secret cannot tell who it was, nor try names."""
    return hmac.new(secret, user_id.encode(), "sha256").hexdigest()[:32]


def erased_ids_salt(secret: bytes, user_id: str) -> str:
    """With what an erased user's event ids are hashed: the half of the hash that is no part of `tombstone_name`."""
    return hmac.new(secret, user_id.encode(), "sha256").hexdigest()[32:]


def new_secret_record(given: str | None) -> str:
    """What a store that has no secret yet is told: a fresh one, or how to recognise the operator's."""
    return f"generated {secrets.token_hex(32)}" if given is None else f"given {_fingerprint(given)}"


def secret_of(record: str, given: str | None) -> bytes:
    """The secret of a store's tombstones; `given` is the operator's (`ISRF_ERASURE_KEY`), if there is one.

    Raises:
        ValueError: that is no record.
        ConfigError: the store's tombstones were made with another secret. Going on would bring erased users back.
    """
    kind, _, value = record.partition(" ")
    if kind not in ("generated", "given"):
        raise ValueError("no record of a secret")
    if kind == "generated" and given is None:
        secret = bytes.fromhex(value)
        if not secret:
            raise ValueError("no record of a secret")
        return secret
    if kind == "given" and given is not None and value == _fingerprint(given):
        return given.encode()
    raise ConfigError(
        "config.erasure_key",
        "the erased users of this store were noted under another key"
        + (" than ISRF_ERASURE_KEY." if given is not None else ", which came from ISRF_ERASURE_KEY."),
        fix="Set ISRF_ERASURE_KEY to what it was when this store was first used"
        + ("." if kind == "given" else ": unset."),
    )


def _fingerprint(given: str) -> str:
    return hmac.new(given.encode(), b"isrf erasure key", "sha256").hexdigest()
