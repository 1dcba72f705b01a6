"""Builds the commands that read and write a user in Redis, and reads records from their answers."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from isrf.contract.event_log import REMEMBER_S, TOMBSTONE_SECRET, erased_ids_key
from service.state import payload as event_payload
from service.state.events import Event
from service.state.records import KEPT_HISTORY, NO_VERSION, HistoryEntry, ItemMark, UserRecord
from service.state.redis.keys import bucket_of, event_digest, stream_key, tombstone_key, user_keys

MOST_SECONDS = 1e11
"""Above the timestamp of any event: a larger one is foreign content."""
ASKED, TOMBSTONE_AT = 4, 3
"""The number of commands that `ask_user` adds to a pipeline, and the index of the tombstone's and secret's answer."""


def script_call(
    bucket: int,
    events: Sequence[tuple[Event, int | None]],
    names: Mapping[str, tuple[str, str]],
    secret_record: str,
) -> tuple[int, list[Any]]:
    """Returns the call of `script.lua` for one bucket's events: number of keys, keys and arguments.

    Args:
        events: each with the second at which its id was claimed, None for now.
        names: for every user of the events, in their order, the name of the tombstone and the salt of the erased event
            ids.
        secret_record: the record of the names' secret; "" to skip the comparison with the bucket's record.
    """
    user_numbers = {user_id: number for number, user_id in enumerate(names, start=1)}
    keys: list[str] = [stream_key(bucket), tombstone_key(bucket)]
    for user_id, (name, _) in names.items():
        user = user_keys(user_id)
        keys += [user.version, user.history, user.marks, user.event_ids, erased_ids_key(bucket, name)]
    arguments: list[Any] = [KEPT_HISTORY, REMEMBER_S, secrets.token_hex(6), secret_record]
    # One event's `tail` is as good as another's: they differ only where the release changed in between.
    tails = {event.user_id: event.tail for event, _ in events if event.tail}
    arguments.append(len(names))
    for user_id, (name, salt) in names.items():
        arguments += [name, salt, "".join(map(_tail_line, tails.get(user_id, ())))]
    for event, claimed_at in events:
        arguments += [
            user_numbers[event.user_id],
            event.item_id,
            event.effect,
            repr(event.timestamp),
            "1" if event.assigned else "",
            event_digest(event),
            "" if claimed_at is None else claimed_at,
            *event_payload.around_timestamp(event),
        ]
    return len(keys), [*keys, *arguments]


def _tail_line(entry: HistoryEntry) -> str:
    return f"{entry.item_id}\n{'' if entry.timestamp is None else repr(entry.timestamp)}\n"


def ask_user(pipe: Any, user_id: str, tombstone: str) -> None:
    """Adds the commands that read a user to a pipeline."""
    keys = user_keys(user_id)
    # The version first: data newer than its version is only computed again; older data would stay cached.
    pipe.get(keys.version)
    pipe.zrange(keys.history, 0, -1)
    pipe.hgetall(keys.marks)
    pipe.hmget(tombstone_key(bucket_of(user_id)), [tombstone, TOMBSTONE_SECRET])


def read_record(answers: Sequence[Any], group: bytes | None = None, answer: bytes | None = None) -> UserRecord:
    """Reads a record from the answers to `ask_user`; raises `ValueError` for foreign content."""
    version, history, marks, (tombstone, _) = answers
    erased = tombstone is not None
    if version is None:
        version = b"erased-" + tombstone.split(b" ")[0] if erased else NO_VERSION.encode()
    return UserRecord(
        version.partition(b"@")[0].decode(),
        [_entry(member.decode()) for member in history],
        {item.decode(): _mark(mark.decode()) for item, mark in marks.items()},
        erased,
        group,
        answer,
    )


def history_member(entry: HistoryEntry) -> str:
    """Returns an entry as a member of the history's zset."""
    return f"{entry.item_id}\n{entry.timestamp!r}" + ("\n*" if entry.assigned else "")


def _entry(member: str) -> HistoryEntry:
    item_id, timestamp, *assigned = member.split("\n")
    return HistoryEntry(item_id, _moment(timestamp), bool(assigned))


def _mark(text: str) -> ItemMark:
    parts = {part[:1]: _moment(part[1:]) for part in text.split(";")}
    return ItemMark(parts.get("B"), parts.get("D"), parts.get("R"))


def _moment(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < MOST_SECONDS:
        raise ValueError("not a moment")
    return seconds
