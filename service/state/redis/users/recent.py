"""Reads the recently active users from the ends of the 64 streams, so that all replicas find the same users.

A replica that runs for long and one that has just started find the same users, while their entries are in the stream.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from isrf.contract.errors import StoreError
from isrf.contract.event_log import EVENT_FIELD
from isrf.contract.ids import session_of
from service.state import payload
from service.state.events import Event
from service.state.redis.keys import NUM_BUCKETS, stream_key
from service.state.user_store import RECENT_PER_BUCKET, ActivityLook, RecentUsers

PAGE = 500
MAX_PAGES = 6
"""Pages of a bucket in one look: a stream of a million entries must not be read to its beginning."""

_log = structlog.get_logger("service")


async def read_recent(client: Any, known: RecentUsers, after: Sequence[bytes | None], before_ms: int) -> ActivityLook:
    """Moves the users active after `after` and before `before_ms` to the end of `known`, in place.

    Args:
        client: of the store.
        known: the recent users of the last look.
        after: the last look's `seen`.
        before_ms: by the server's clock; replicas that pass the same moment find the same users.
    """
    found: list[dict[str, None]] = [{} for _ in range(NUM_BUCKETS)]  # most recent first
    seen = list(after)
    ends: dict[int, bytes | str] = dict.fromkeys(range(NUM_BUCKETS), str(before_ms - 1))
    for _ in range(MAX_PAGES):
        pipe = client.pipeline(transaction=False)
        for bucket, end in ends.items():
            start = after[bucket]
            pipe.xrevrange(stream_key(bucket), max=end, min="-" if start is None else b"(" + start, count=PAGE)
        pages = await pipe.execute()
        next_ends: dict[int, bytes | str] = {}
        for bucket, page in zip(ends, pages, strict=True):
            if page and seen[bucket] == after[bucket]:
                seen[bucket] = page[0][0]
            for event in events_of(page):
                if event is not None and session_of(event.user_id) is None:
                    found[bucket].setdefault(event.user_id)
            if len(page) == PAGE and len(found[bucket]) < RECENT_PER_BUCKET:
                next_ends[bucket] = b"(" + page[-1][0]
        ends = next_ends
        if not ends:
            break
    for bucket, users in enumerate(found):
        for user_id in reversed(users):
            known[bucket].pop(user_id, None)
            known[bucket][user_id] = None
        while len(known[bucket]) > RECENT_PER_BUCKET:
            del known[bucket][next(iter(known[bucket]))]
    return ActivityLook(seen, {user_id for users in found for user_id in users})


def events_of(page: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> list[Event | None]:
    """Returns the events of a stream's entries; None for a foreign entry."""
    events: list[Event | None] = []
    for _, fields in page:
        try:
            events.append(payload.decode(fields.get(EVENT_FIELD, b"")))
        except StoreError:
            events.append(None)
    if None in events:
        _log.warning("foreign_stream_entries", count=events.count(None))
    return events
