"""All that a Redis holds of users, page by page: for exports, which take their time and no memory."""

from collections.abc import AsyncIterator
from typing import Any

from isrf.stream import EVENT_FIELD, NUM_BUCKETS, Tombstone, read_tombstone, stream_position
from service.state import payload
from service.state.erasure import Erasure
from service.state.events import Event
from service.state.keys import stream_key, tombstone_key

PAGE = 500
_VERSIONS = "isrf:{b*}:v:*"


async def all_users(client: Any) -> AsyncIterator[list[str]]:
    """Of whom there is state; somebody may come twice."""
    page: list[str] = []
    async for key in client.scan_iter(match=_VERSIONS, count=PAGE):
        page.append(key.decode().split(":v:", 1)[1])
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page


async def accepted_events(client: Any, erasure: Erasure) -> AsyncIterator[list[Event]]:
    """What the streams hold; an erased user's old entries are on their way out and not told."""
    for bucket in range(NUM_BUCKETS):
        stones: dict[str, Tombstone | None] = {}
        start: bytes = b"-"
        while page := await client.xrange(stream_key(bucket), min=start, count=PAGE):
            start = b"(" + page[-1][0]
            events = [(stream_position(entry), payload.decode(fields[EVENT_FIELD])) for entry, fields in page]
            for user_id in {event.user_id for _, event in events} - stones.keys():
                text = await client.hget(tombstone_key(bucket), await erasure.name(user_id))
                stones[user_id] = None if text is None else read_tombstone(text)
            yield [
                event
                for position, event in events
                if (stone := stones[event.user_id]) is None or position > stone.position
            ]
