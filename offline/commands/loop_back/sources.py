"""Where accepted events wait for the offline job: 64 streams of a Redis, or the record of an embedded store.

Positions are pairs of numbers that rise; an embedded store has one bucket, 0. It changes nothing of state but
what it releases.
"""

import math
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

import redis
from redis.exceptions import RedisClusterException, RedisError, ResponseError

from isrf.contract.errors import ConfigError, DataError, StoreError
from isrf.contract.event_log import (
    ERASE_SCRIPT,
    EVENT_FIELD,
    JOURNAL_FILE,
    JOURNAL_VERSION,
    META_KEY,
    NUM_BUCKETS,
    PURGE_SCRIPT,
    REMEMBER_S,
    TOMBSTONE_COUNT,
    TOMBSTONE_SECRET,
    KeptEvent,
    Tombstone,
    erasure_call,
    new_secret_record,
    purge_call,
    read_event,
    read_tombstone,
    secret_of,
    stream_key,
    stream_position,
    tombstone_key,
)
from isrf.contract.item_changes import COUNT_KEY, ENTRIES_KEY, ORDER_KEY, decode_entry
from isrf.contract.item_changes import ItemEntry as Item
from offline.commands.loop_back.commit import ItemChangesCursor

PAGE = 1000
MAX_ENTRIES = 500_000
"""Of one commit; what remains comes with the next."""
TIMEOUT_S = 30.0

Position = tuple[int, int]


class Entry(NamedTuple):
    bucket: int
    position: Position
    event: KeptEvent


class Batch(NamedTuple):
    entries: list[Entry]
    cursors: dict[int, Position]  # by bucket: the last entry read, in this batch or before
    more: bool


class ItemBatch(NamedTuple):
    entries: dict[str, Item]  # item_id → what was said
    cursor: ItemChangesCursor | None


class Source(Protocol):
    """A store's events beyond a cursor, and its tombstones."""

    store_id: str

    def read(self, cursors: Mapping[int, Position]) -> Batch: ...

    def items(self, after: ItemChangesCursor | None) -> ItemBatch:
        """Every item of which something was said since a cursor, with all that was ever said of it."""

    def tombstones(self) -> tuple[dict[str, Tombstone], bytes | None]:
        """By name, and the secret of the names (None where there are none)."""

    def release(self, cursors: Mapping[int, Position]) -> None:
        """The store may let go of everything up to the cursors."""


@contextmanager
def open_source(store: str, *, erasure_key: str | None) -> Iterator[Source]:
    """A Redis URL or an embedded store's folder; the store's errors come as `StoreError`, without its address."""
    if "://" not in store:
        with _journal(Path(store), erasure_key) as source:
            yield source
        return
    client: Any = None
    try:
        client = _client(store)
        yield RedisSource(client, erasure_key)
    except ResponseError as error:
        if "WRONGTYPE" in str(error):
            raise _foreign() from None
        raise _unavailable(error) from None
    except (RedisError, RedisClusterException) as error:
        raise _unavailable(error) from None
    finally:
        if client is not None:
            client.close()


def _unavailable(error: Exception) -> StoreError:
    return StoreError(
        "store.unavailable",
        f"the store cannot be read or trimmed now ({type(error).__name__}).",
        fix="Run the same command again: what was taken in stays, nothing is taken in twice.",
    )


def _foreign() -> StoreError:
    return StoreError(
        "store.foreign_content",
        "a key of the store, or a row, holds what the service did not write.",
        fix="Delete what does not belong there, and keep others out of the keys `isrf:*`; else restore a backup.",
    )


@contextmanager
def _ours() -> Iterator[None]:
    """For reading what the service wrote, and anybody may have changed since."""
    try:
        yield
    except (ValueError, TypeError, KeyError):
        raise _foreign() from None


def erase_from_store(store: str, user_id: str, *, erasure_key: str | None) -> None:
    """What the service does when it is asked to erase a user; for a Redis only, since a journal has one process.

    Raises:
        ConfigError: `config.embedded_store`; as `open_source`.
        StoreError: as `open_source`.
    """
    if "://" not in store:
        raise ConfigError(
            "config.embedded_store",
            f"{store} is no URL, and a user in the folder of an embedded store is erased by its service alone.",
            fix=f"Send DELETE /users/{quote(user_id, safe='')} to the service, then forget again without a store. "
            "A Redis is named redis://[user:password@]host:port/0.",
        )
    with open_source(store, erasure_key=erasure_key) as source:
        assert isinstance(source, RedisSource)
        source.erase(user_id)


def _client(url: str) -> Any:
    options: dict[str, Any] = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S, "protocol": 2}
    try:
        client = redis.Redis.from_url(url, **options)
    except ValueError:
        # redis-py's own words may quote a part of the password.
        raise ConfigError(
            "config.redis_url",
            "that is no URL of a Redis server.",
            fix="Write redis://[user:password@]host:port/0, or name the state folder of an embedded store.",
        ) from None
    if not int(client.info("cluster").get("cluster_enabled", 0)):
        return client
    client.close()
    return redis.RedisCluster.from_url(url, **options)


class RedisSource:
    """Redis, or a Redis Cluster."""

    @_ours()
    def __init__(self, client: Any, erasure_key: str | None) -> None:
        self._client, self._erasure_key = client, erasure_key
        client.hsetnx(META_KEY, "id", secrets.token_hex(8))
        self.store_id = str(client.hget(META_KEY, "id").decode())

    @_ours()
    def read(self, cursors: Mapping[int, Position]) -> Batch:
        entries: list[Entry] = []
        ends = dict(cursors)
        for bucket in range(NUM_BUCKETS):
            while True:
                page = self._page(bucket, ends.get(bucket))
                for entry_id, fields in page:
                    ends[bucket] = stream_position(entry_id)
                    entries.append(Entry(bucket, ends[bucket], read_event(fields.get(EVENT_FIELD, b""))))
                if len(entries) >= MAX_ENTRIES:
                    return Batch(entries, ends, more=True)
                if len(page) < PAGE:
                    break
        return Batch(entries, ends, more=False)

    @_ours()
    def items(self, after: ItemChangesCursor | None) -> ItemBatch:
        counting, last = self._client.hmget(COUNT_KEY, ["id", "n"])
        if counting is None:
            return ItemBatch({}, after)
        counting, start = counting.decode(), 0
        if after is not None and after.counting == counting:
            start = after.last
        entries: dict[str, Item] = {}
        while start < int(last):
            page = self._client.zrangebyscore(ORDER_KEY, f"({start}", last, start=0, num=PAGE, withscores=True)
            if not page:
                break
            ids = [member for member, _ in page]
            start = int(page[-1][1])
            for item_id, entry in zip(ids, self._client.hmget(ENTRIES_KEY, ids), strict=True):
                if entry is not None:
                    entries[item_id.decode()] = decode_entry(entry)
        return ItemBatch(entries, ItemChangesCursor(counting, int(last)))

    @_ours()
    def tombstones(self) -> tuple[dict[str, Tombstone], bytes | None]:
        found: dict[str, Tombstone] = {}
        for bucket in range(NUM_BUCKETS):
            kept: dict[bytes, bytes] = self._client.hgetall(tombstone_key(bucket))
            for no_user in (TOMBSTONE_COUNT, TOMBSTONE_SECRET):
                kept.pop(no_user.encode(), None)
            found |= {name.decode(): read_tombstone(text) for name, text in kept.items()}
        return found, secret_of(self._secret_record(), self._erasure_key) if found else None

    def release(self, cursors: Mapping[int, Position]) -> None:
        for bucket, (milliseconds, number) in cursors.items():
            # Exactly: the one after the cursor is the first that stays.
            self._client.xtrim(stream_key(bucket), minid=f"{milliseconds}-{number + 1}", approximate=False)

    @_ours()
    def erase(self, user_id: str) -> None:
        # A store that lost its data may be told another secret meanwhile: the name must stand under that one.
        record, confirmed = "", self._secret_record()
        while record != confirmed:
            record = confirmed
            secret = secret_of(record, self._erasure_key)
            num_keys, arguments = erasure_call(record, secret, user_id)
            last = self._client.eval(ERASE_SCRIPT, num_keys, *arguments).decode()
            confirmed = self._secret_record()
        start = "-"
        while start:
            num_keys, arguments = purge_call(user_id, start, last)
            start = self._client.eval(PURGE_SCRIPT, num_keys, *arguments).decode()

    def _secret_record(self) -> str:
        """Of the store; one without a secret is told that of a bucket's names, or a new one."""
        if self._client.hget(META_KEY, "secret") is None:
            known = (self._client.hget(tombstone_key(bucket), TOMBSTONE_SECRET) for bucket in range(NUM_BUCKETS))
            record = next((one for one in known if one is not None), None)
            self._client.hsetnx(META_KEY, "secret", record or new_secret_record(self._erasure_key))
        return str(self._client.hget(META_KEY, "secret").decode())

    def _page(self, bucket: int, after: Position | None) -> list[tuple[bytes, dict[bytes, bytes]]]:
        start = "-" if after is None else f"({after[0]}-{after[1]}"
        page: list[tuple[bytes, dict[bytes, bytes]]] = self._client.xrange(stream_key(bucket), min=start, count=PAGE)
        return page


@contextmanager
def _journal(folder: Path, erasure_key: str | None) -> Iterator["JournalSource"]:
    path = folder / JOURNAL_FILE
    if not path.is_file():
        raise DataError(
            "data.no_store", f"{folder} holds no {JOURNAL_FILE}.", fix="Name a Redis URL or ISRF_STATE_DIR."
        )
    try:
        db = sqlite3.connect(path, timeout=TIMEOUT_S)
        try:
            yield JournalSource(db, erasure_key)
        finally:
            db.close()
    except sqlite3.Error as error:
        raise StoreError(
            "store.journal_unusable", f"the journal {path} cannot be used: {error}.", fix="Check the file's rights."
        ) from error


class JournalSource:
    """The embedded store's database; a service may be writing to it."""

    @_ours()
    def __init__(self, db: sqlite3.Connection, erasure_key: str | None) -> None:
        self._db, self._erasure_key = db, erasure_key
        (self._version,) = db.execute("PRAGMA user_version").fetchone()
        if self._version > JOURNAL_VERSION:
            raise StoreError(
                "store.journal_newer",
                f"that store was written by a newer version of the service (schema {self._version}; this one reads up "
                f"to {JOURNAL_VERSION}).",
                fix="Run the offline job of the service's own version.",
            )
        self._meta: dict[str, str] = dict(db.execute("SELECT name, value FROM meta"))
        self.store_id = self._meta["id"]

    @_ours()
    def read(self, cursors: Mapping[int, Position]) -> Batch:
        after = cursors.get(0, (0, 0))[1]
        if self._version == 0:
            return self._read_old(after)
        entries: list[Entry] = []
        # Page by page: a long look would keep the service from taking erased bytes out of its write-ahead log.
        while len(entries) < MAX_ENTRIES:
            query = "SELECT seq, payload FROM journal WHERE seq > ? ORDER BY seq LIMIT ?"
            page = self._db.execute(query, (after, min(PAGE, MAX_ENTRIES - len(entries)))).fetchall()
            entries += [Entry(0, (0, seq), read_event(payload)) for seq, payload in page]
            if not page:
                return Batch(entries, {0: (0, after)}, more=False)
            after = page[-1][0]
        return Batch(entries, {0: (0, after)}, more=True)

    def _read_old(self, after: int) -> Batch:
        """Of a store that the service has not taken over yet, in which duplicates stand as well."""
        last = after
        entries: list[Entry] = []
        accepted: dict[tuple[str, str], int] = {}
        # From the beginning: what is written before it is looked at may be a duplicate of something earlier.
        for seq, payload in self._db.execute("SELECT seq, payload FROM journal ORDER BY seq"):
            event = read_event(payload)
            name, at = (event.user_id, event.event_id), int(event.accepted_at)
            if accepted.get(name, -math.inf) > at - REMEMBER_S:
                last = max(last, seq)
                continue
            accepted[name] = at
            if seq > after:
                entries.append(Entry(0, (0, seq), event))
                last = seq
                if len(entries) == MAX_ENTRIES:
                    return Batch(entries, {0: (0, last)}, more=True)
        return Batch(entries, {0: (0, last)}, more=False)

    @_ours()
    def items(self, after: ItemChangesCursor | None) -> ItemBatch:
        if self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'items'").fetchone() is None:
            return ItemBatch({}, after)  # of a service from before items could be put
        last = 0 if after is None else after.last
        rows = self._db.execute("SELECT seq, item_id, entry FROM items WHERE seq > ? ORDER BY seq", (last,)).fetchall()
        entries: dict[str, Item] = {item_id: decode_entry(entry) for _, item_id, entry in rows}
        return ItemBatch(entries, ItemChangesCursor("journal", rows[-1][0]) if rows else after)

    @_ours()
    def tombstones(self) -> tuple[dict[str, Tombstone], bytes | None]:
        rows = self._db.execute("SELECT name, text FROM tombstones").fetchall()
        found = {name: read_tombstone(text.encode()) for name, text in rows}
        return found, secret_of(self._meta["secret"], self._erasure_key) if found else None

    def release(self, cursors: Mapping[int, Position]) -> None:
        # Rows stay as long as state needs them; the service removes them once a release has learned them.
        if 0 in cursors:
            with self._db:
                value = str(cursors[0][1])
                self._db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('exported', ?)", (value,))
