"""What is sent to Redis for a user, and what comes back: keys and arguments of the script, records out of answers."""

import secrets
from collections.abc import Sequence
from typing import Any

from isrf.stream import REMEMBER_S
from service.state import payload as event_payload
from service.state.events import Event
from service.state.keys import bucket_of, event_digest, stream_key, tombstone_key, user_keys
from service.state.store import NO_VERSION, Entry, Mark, UserRecord

KEPT_HISTORY = 200
ASKED = 4
"""Commands that `ask_user` puts into a pipeline."""


def script_call(bucket: int, events: Sequence[Event], *, streamed: bool) -> tuple[int, list[Any]]:
    """Number of keys, and keys and arguments of `script.lua` for one bucket's events."""
    places: dict[str, int] = {}
    keys: list[str] = [stream_key(bucket)]
    arguments: list[Any] = [KEPT_HISTORY, REMEMBER_S, secrets.token_hex(6), "1" if streamed else ""]
    for event in events:
        if event.user_id not in places:
            places[event.user_id] = len(places) + 1
            user = user_keys(event.user_id)
            keys += [user.version, user.history, user.marks, user.event_ids]
        arguments += [
            places[event.user_id],
            event.user_id,
            event.item_id,
            event.effect,
            repr(event.timestamp),
            "1" if event.assigned else "",
            event_digest(event.event_id),
            # Whole seconds: Redis keeps integers in a fraction of the bytes.
            str(int(event.accepted_at)),
            event_payload.encode(event),
        ]
    return len(keys), [*keys, *arguments]


def ask_user(pipe: Any, user_id: str, tombstone: str) -> None:
    keys = user_keys(user_id)
    # The version first: data newer than its version is computed again, older data would be kept for good.
    pipe.get(keys.version)
    pipe.zrange(keys.history, 0, -1)
    pipe.hgetall(keys.marks)
    pipe.hget(tombstone_key(bucket_of(user_id)), tombstone)


def read_record(answers: Sequence[Any], group: bytes | None = None, answer: bytes | None = None) -> UserRecord:
    version, history, marks, tombstone = answers
    erased = tombstone is not None
    if version is None:
        version = b"erased-" + tombstone.split(b" ")[0] if erased else NO_VERSION.encode()
    return UserRecord(
        version.decode(),
        [_entry(member.decode()) for member in history],
        {item.decode(): _mark(mark.decode()) for item, mark in marks.items()},
        erased,
        group,
        answer,
    )


def history_member(entry: Entry) -> str:
    return f"{entry.item_id}\n{entry.timestamp!r}" + ("\n*" if entry.assigned else "")


def _entry(member: str) -> Entry:
    item_id, timestamp, *assigned = member.split("\n")
    return Entry(item_id, float(timestamp), bool(assigned))


def _mark(text: str) -> Mark:
    parts = {part[0]: float(part[1:]) for part in text.split(";")}
    return Mark(parts.get("B"), parts.get("D"), parts.get("R"))
