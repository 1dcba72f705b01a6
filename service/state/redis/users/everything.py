"""Reads all users and accepted events from Redis page by page, for exports that need little memory."""

from collections.abc import AsyncIterator
from typing import Any

import structlog

from isrf.contract.event_log import NUM_BUCKETS, Tombstone, read_tombstone, stream_position
from service.state.events import Event
from service.state.redis.keys import stream_key, tombstone_key
from service.state.redis.users.erasure import Erasure
from service.state.redis.users.recent import events_of

PAGE = 500

_log = structlog.get_logger("service")
_VERSIONS = "isrf:{b*}:v:*"


async def all_users(client: Any) -> AsyncIterator[list[str]]:
    """Yields the users with state; a user may occur twice."""
    page: list[str] = []
    async for key in client.scan_iter(match=_VERSIONS, count=PAGE):
        try:
            page.append(key.decode().split(":v:", 1)[1])
        except UnicodeDecodeError:
            continue  # foreign content: the service's ids are UTF-8
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page


async def accepted_events(client: Any, erasure: Erasure) -> AsyncIterator[list[Event]]:
    """Yields the events of the streams, without old entries of erased users, which are being deleted."""
    pipe = client.pipeline(transaction=False)
    for bucket in range(NUM_BUCKETS):
        pipe.xlen(stream_key(bucket))
        pipe.hlen(tombstone_key(bucket))
    await pipe.execute()  # raises for a key of the wrong type before the first page is yielded
    for bucket in range(NUM_BUCKETS):
        stones: dict[str, Tombstone | None] = {}
        start: bytes = b"-"
        while page := await client.xrange(stream_key(bucket), min=start, count=PAGE):
            start = b"(" + page[-1][0]
            positions = [stream_position(entry) for entry, _ in page]
            read = zip(positions, events_of(page), strict=True)
            events = [(position, event) for position, event in read if event is not None]
            asked = list({event.user_id for _, event in events} - stones.keys())
            if asked:
                names = [await erasure.name(user_id) for user_id in asked]
                texts = await client.hmget(tombstone_key(bucket), names)
                stones |= {
                    user_id: None if text is None else _tombstone(text)
                    for user_id, text in zip(asked, texts, strict=True)
                }
            yield [
                event
                for position, event in events
                if (stone := stones[event.user_id]) is None or position > stone.position
            ]


def _tombstone(text: bytes) -> Tombstone:
    """Reads a tombstone; an unreadable one hides all events, as the user was erased at an unknown time."""
    try:
        return read_tombstone(text)
    except ValueError:
        _log.warning("foreign_tombstone")
        return Tombstone("", (2**63, 0), 0.0)
