"""Reads accepted events from the streams of a Redis or a Redis Cluster."""

import secrets
from collections.abc import Mapping
from typing import Any

import redis

from isrf.contract.errors import ConfigError
from isrf.contract.event_log import (
    ERASE_SCRIPT,
    EVENT_FIELD,
    META_KEY,
    NUM_BUCKETS,
    PURGE_SCRIPT,
    TOMBSTONE_COUNT,
    TOMBSTONE_SECRET,
    TRIMMED,
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
from isrf.contract.item_changes import COUNT_KEY, ENTRIES_KEY, ORDER_KEY, ItemEntry, decode_entry
from offline.commands.loop_back.commit import ItemChangesCursor, StreamPosition
from offline.commands.loop_back.source import (
    MAX_ENTRIES,
    PAGE,
    TIMEOUT_S,
    EventBatch,
    ItemBatch,
    WaitingEvent,
    foreign_refused,
)


def redis_client(url: str) -> Any:
    """Connects to a Redis or, if the server says so, a Redis Cluster; raises `ConfigError` (`config.redis_url`)."""
    options: dict[str, Any] = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S, "protocol": 2}
    try:
        client = redis.Redis.from_url(url, **options)
    except ValueError:
        # redis-py's message may quote a part of the password.
        raise ConfigError(
            "config.redis_url",
            "the store's address is not a URL of a Redis server.",
            fix="Pass redis://[user:password@]host:port/0, or the state folder of an embedded store.",
        ) from None
    if not int(client.info("cluster").get("cluster_enabled", 0)):
        return client
    client.close()
    return redis.RedisCluster.from_url(url, **options)


class RedisSource:
    """The source for a Redis or a Redis Cluster."""

    @foreign_refused()
    def __init__(self, client: Any, erasure_key: str | None) -> None:
        self._client, self._erasure_key = client, erasure_key
        client.hsetnx(META_KEY, "id", secrets.token_hex(8))
        self.store_id = str(client.hget(META_KEY, "id").decode())

    @foreign_refused()
    def read(self, cursors: Mapping[int, StreamPosition]) -> EventBatch:
        entries: list[WaitingEvent] = []
        ends = dict(cursors)
        for bucket in range(NUM_BUCKETS):
            while True:
                page = self._page(bucket, ends.get(bucket))
                for entry_id, fields in page:
                    ends[bucket] = stream_position(entry_id)
                    entries.append(WaitingEvent(bucket, ends[bucket], read_event(fields.get(EVENT_FIELD, b""))))
                if len(entries) >= MAX_ENTRIES:
                    return EventBatch(entries, ends, more=True)
                if len(page) < PAGE:
                    break
        return EventBatch(entries, ends, more=False)

    @foreign_refused()
    def items(self, after: ItemChangesCursor | None) -> ItemBatch:
        counting, last = self._client.hmget(COUNT_KEY, ["id", "n"])
        if counting is None:
            return ItemBatch({}, after)
        counting, start = counting.decode(), 0
        if after is not None and after.counting == counting:
            start = after.last
        entries: dict[str, ItemEntry] = {}
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

    @foreign_refused()
    def tombstones(self) -> tuple[dict[str, Tombstone], bytes | None]:
        found: dict[str, Tombstone] = {}
        for bucket in range(NUM_BUCKETS):
            fields: dict[bytes, bytes] = self._client.hgetall(tombstone_key(bucket))
            for no_user in (TOMBSTONE_COUNT, TOMBSTONE_SECRET):
                fields.pop(no_user.encode(), None)
            found |= {name.decode(): read_tombstone(text) for name, text in fields.items()}
        return found, secret_of(self._secret_record(), self._erasure_key) if found else None

    @foreign_refused()
    def release(self, cursors: Mapping[int, StreamPosition]) -> None:
        if not cursors:
            return
        # Before the first entry goes: a service that finds it missing must find the reason.
        known = float(self._client.hget(META_KEY, TRIMMED) or 0.0)
        trimmed_until = (max(milliseconds for milliseconds, _ in cursors.values()) + 1) / 1000
        if trimmed_until > known:
            self._client.hset(META_KEY, TRIMMED, repr(trimmed_until))
        for bucket, (milliseconds, number) in cursors.items():
            # exact trimming: the entry after the cursor stays
            self._client.xtrim(stream_key(bucket), minid=f"{milliseconds}-{number + 1}", approximate=False)

    @foreign_refused()
    def erase(self, user_id: str) -> None:
        # A store that lost its data may get another secret meanwhile; the tombstone's name must use that secret.
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
        """Returns the store's secret record; if missing, sets it from a bucket's record or creates a new one."""
        if self._client.hget(META_KEY, "secret") is None:
            bucket_records = (
                self._client.hget(tombstone_key(bucket), TOMBSTONE_SECRET) for bucket in range(NUM_BUCKETS)
            )
            record = next((bucket_record for bucket_record in bucket_records if bucket_record is not None), None)
            self._client.hsetnx(META_KEY, "secret", record or new_secret_record(self._erasure_key))
        return str(self._client.hget(META_KEY, "secret").decode())

    def _page(self, bucket: int, after: StreamPosition | None) -> list[tuple[bytes, dict[bytes, bytes]]]:
        start = "-" if after is None else f"({after[0]}-{after[1]}"
        page: list[tuple[bytes, dict[bytes, bytes]]] = self._client.xrange(stream_key(bucket), min=start, count=PAGE)
        return page
