"""Reads all users and accepted events from Redis page by page, for exports that need little memory."""

from collections.abc import AsyncIterator, Collection, Mapping
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
            asked = {event.user_id for _, event in events} - stones.keys()
            stones |= await tombstones_of(client, erasure, {bucket: asked})
            yield [event for position, event in events if is_valid(position, stones[event.user_id])]


async def tombstones_of(
    client: Any, erasure: Erasure, users: Mapping[int, Collection[str]]
) -> dict[str, Tombstone | None]:
    """Returns the tombstones of users, who are given by bucket; None for those who were not erased."""
    asked = {bucket: list(user_ids) for bucket, user_ids in users.items() if user_ids}
    if not asked:
        return {}
    pipe = client.pipeline(transaction=False)
    for bucket, user_ids in asked.items():
        pipe.hmget(tombstone_key(bucket), [await erasure.name(user_id) for user_id in user_ids])
    answers = await pipe.execute()
    return {
        user_id: None if text is None else _tombstone(text)
        for user_ids, texts in zip(asked.values(), answers, strict=True)
        for user_id, text in zip(user_ids, texts, strict=True)
    }


def is_valid(position: tuple[int, int], stone: Tombstone | None) -> bool:
    """Whether an entry at a position came after its user's erasure, if there was one."""
    return stone is None or position > stone.position


def _tombstone(text: bytes) -> Tombstone:
    """Reads a tombstone; an unreadable one hides all events, as the user was erased at an unknown time."""
    try:
        return read_tombstone(text)
    except ValueError:
        _log.warning("foreign_tombstone")
        return Tombstone("", (2**63, 0), 0.0)
