"""Exports users' state as lines, and turns such lines back into events for an import."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

import orjson
from pydantic import ConfigDict, FailFast, Field, field_validator, model_validator

from isrf.contract.event_types import DISLIKE, HISTORY, PURCHASE, REMOVE
from isrf.contract.ids import ExternalId, owner_fields
from isrf.contract.known_fields import KnownFields
from service.state.events import Seconds
from service.state.records import UserRecord

LINE_BYTES = 64 * 1024
"""Approximate length of the longest line: a quarter of what an import accepts."""
_MOMENT_BYTES = 64
"""Bytes of a moment beside its item_id, at most."""
_HISTORY = "history"


class _HistoryEntry(KnownFields):
    model_config = ConfigDict(strict=True)

    item_id: ExternalId
    timestamp: Seconds


class UserLine(KnownFields):
    """The state of a user or session since the release; each item has its latest moment, in seconds."""

    model_config = ConfigDict(strict=True)

    user_id: ExternalId | None = None
    session_id: ExternalId | None = None
    history: Annotated[list[_HistoryEntry], FailFast()] = Field(default_factory=list)
    bought: dict[str, Seconds] = Field(default_factory=dict)
    disliked: dict[str, Seconds] = Field(default_factory=dict)
    removed: dict[str, Seconds] = Field(default_factory=dict)

    @field_validator("bought", "disliked", "removed", mode="before")
    @classmethod
    def _moments(cls, sent: Any) -> Any:
        # Fails at the first wrong moment: thousands of errors would cost time, and the caller sees only the first.
        for item_id, moment in sent.items() if isinstance(sent, dict) else ():
            if not isinstance(moment, (int, float)) or isinstance(moment, bool):
                raise ValueError(f"{item_id[:40]!r} has no number of seconds")
        return sent

    @model_validator(mode="after")
    def _names_an_owner(self) -> Self:
        if self.user_id is None and self.session_id is None:
            raise ValueError("names neither a user_id nor a session_id")
        return self


def user_lines(user_id: str, record: UserRecord) -> Iterator[dict[str, Any]]:
    """Yields a user's state as lines that an import reads; several where one line would be too long.

    A purchase and its entry of the history stay in one line; else an import would read the entry as a view as well.
    """
    line, size = _empty_line(user_id), 0
    for part in _parts(record):
        more = sum(len(orjson.dumps(item)) + _MOMENT_BYTES for _, item, _ in part)
        if size and size + more > LINE_BYTES:
            yield _in_order(line)
            line, size = _empty_line(user_id), 0
        size += more
        for field, item, moment in part:
            if field == _HISTORY:
                line[field].append({"item_id": item, "timestamp": moment})
            else:
                line[field][item] = moment
    yield _in_order(line)


def _parts(record: UserRecord) -> Iterator[list[tuple[str, str, float | None]]]:
    """Yields the (field, item_id, moment) that must stay in one line."""
    purchases = {(item, mark.bought) for item, mark in record.marks.items() if mark.bought is not None}
    made = {entry[:2] for entry in record.history} & purchases
    for item, mark in record.marks.items():
        part = [(field, item, moment) for field, moment in mark._asdict().items() if moment is not None]
        yield part + ([(_HISTORY, item, mark.bought)] if (item, mark.bought) in made else [])
    for entry in record.history:
        if entry[:2] not in made:
            yield [(_HISTORY, entry.item_id, entry.timestamp)]


def _empty_line(user_id: str) -> dict[str, Any]:
    return {**owner_fields(user_id), _HISTORY: [], "bought": {}, "disliked": {}, "removed": {}}


def _in_order(line: dict[str, Any]) -> dict[str, Any]:
    line[_HISTORY].sort(key=lambda entry: entry["timestamp"])
    return line


def events_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the events that produce a user's state; views become events of the type `HISTORY`.

    Raises:
        pydantic.ValidationError: the record is not a user's line.
    """
    user = UserLine.model_validate(record)
    events: list[tuple[str, str, float]] = [(DISLIKE, item, at) for item, at in user.disliked.items()]
    events += [(REMOVE, item, at) for item, at in user.removed.items()]
    events += [(PURCHASE, item, at) for item, at in user.bought.items()]
    events += [
        (HISTORY, entry.item_id, entry.timestamp)
        for entry in user.history
        if user.bought.get(entry.item_id) != entry.timestamp
    ]
    owner = user.model_dump(include={"user_id", "session_id"}, exclude_none=True)
    return [{**owner, "item_id": item, "event": kind, "timestamp": at} for kind, item, at in events]
