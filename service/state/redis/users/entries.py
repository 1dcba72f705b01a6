"""Reads the accepted events of some buckets in order, for those who count them."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from isrf.contract.errors import StoreError
from isrf.contract.event_log import EVENT_FIELD, META_KEY, TRIMMED, StoredEvent, stream_position
from service.state import payload
from service.state.redis.keys import stream_key, tombstone_key
from service.state.redis.users.erasure import Erasure
from service.state.redis.users.everything import is_valid, tombstones_of
from service.state.user_store import AcceptedEntry, EntryPage

TOGETHER = 16
"""Buckets that are read in one round trip: the event loop waits while the answers are parsed."""
SAMPLED = 3
"""Buckets of a round trip of which the rest is looked up."""

_Page = Sequence[tuple[bytes, Mapping[bytes, bytes]]]


async def read_entries(
    client: Any, erasure: Erasure, after: Mapping[int, bytes], *, since: float, limit: int
) -> EntryPage:
    """As `UserStore.entries`; raises the client's errors."""
    count = max(1, limit // max(1, len(after)))
    start = str(max(0, int(since * 1000)))
    entries: list[AcceptedEntry] = []
    positions, waiting, buckets = dict(after), 0, list(after)
    for first in range(0, len(buckets), TOGETHER):
        some = {bucket: after[bucket] for bucket in buckets[first : first + TOGETHER]}
        pipe = client.pipeline(transaction=False)
        for bucket, position in some.items():
            pipe.xrange(stream_key(bucket), min=b"(" + position if position else start, count=count)
        pages: dict[int, _Page] = {
            bucket: page for bucket, page in zip(some, await pipe.execute(), strict=True) if page
        }
        full = [bucket for bucket, page in pages.items() if len(page) == count]
        with_erased, left = await _about(client, pages, full)
        waiting += left
        for bucket, page in pages.items():
            entries += await _valid(client, erasure, bucket, page, may_be_erased=bucket in with_erased)
            positions[bucket] = page[-1][0]
            await asyncio.sleep(0)  # requests go on
    trimmed = await client.hget(META_KEY, TRIMMED)
    return EntryPage(entries, positions, waiting, 0.0 if trimmed is None else float(trimmed))


async def _about(client: Any, pages: Mapping[int, _Page], full: Sequence[int]) -> tuple[set[int], int]:
    """Looks at the streams after their pages were read: an erasure that is not found here came after all entries.

    Returns:
        the buckets with erased users, and about how many entries the `full` pages' streams have left.
    """
    if not pages:
        return set(), 0
    sample = full[:SAMPLED]
    pipe = client.pipeline(transaction=False)
    for bucket in pages:
        pipe.hlen(tombstone_key(bucket))
    for bucket in sample:
        pipe.xlen(stream_key(bucket))
        pipe.xrange(stream_key(bucket), count=1)
        pipe.xrevrange(stream_key(bucket), count=1)
    found = await pipe.execute()
    num_erased, about = found[: len(pages)], found[len(pages) :]
    with_erased = {bucket for bucket, number in zip(pages, num_erased, strict=True) if number}
    left = sum(_left(pages[bucket], *about[3 * place : 3 * place + 3]) for place, bucket in enumerate(sample))
    # A bucket that is not looked at has as many left as the others, and one of them may have none.
    return with_erased, left if len(sample) == len(full) else max(1, round(left * len(full) / len(sample)))


async def _valid(
    client: Any, erasure: Erasure, bucket: int, page: _Page, *, may_be_erased: bool
) -> list[AcceptedEntry]:
    """Returns the page's entries, without those of users erased after them."""
    events = [_event_of(fields) for _, fields in page]
    if not may_be_erased:
        return [AcceptedEntry(bucket, event) for event in events]
    stones = await tombstones_of(client, erasure, {bucket: {event.user_id for event in events if event is not None}})
    return [
        AcceptedEntry(bucket, event)
        for (entry_id, _), event in zip(page, events, strict=True)
        if event is None or is_valid(stream_position(entry_id), stones[event.user_id])
    ]


def _event_of(fields: Mapping[bytes, bytes]) -> StoredEvent | None:
    try:
        return payload.decode_stored(fields.get(EVENT_FIELD, b""))
    except StoreError:
        return None


def _left(page: _Page, length: int, first: _Page, last: _Page) -> int:
    """Estimates how many entries a stream has after a full page, as if they had come at an even rate."""
    if not first or not last or last[0][0] == page[-1][0]:
        return 0
    begin, here, end = (stream_position(entry_id)[0] for entry_id in (first[0][0], page[-1][0], last[0][0]))
    share = (end - here) / (end - begin) if end > begin else 1.0
    return max(1, round(length * share))
