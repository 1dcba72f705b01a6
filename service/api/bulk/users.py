"""Users' state as lines: out as it stands, in as the events that make it."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import orjson
from pydantic import ConfigDict, FailFast, Field, field_validator

from isrf.contract.event_types import DISLIKE, HISTORY, PURCHASE, REMOVE
from isrf.contract.ids import ExternalId
from isrf.contract.known_fields import KnownFields
from service.state.events import Seconds
from service.state.records import UserRecord

LINE_BYTES = 64 * 1024
"""About as long as a line gets, whatever one account did: a quarter of what an import takes."""
_MOMENT_BYTES = 64
"""What a moment costs beside its item_id."""
_HISTORY = "history"


class _Past(KnownFields):
    model_config = ConfigDict(strict=True)

    item_id: ExternalId
    timestamp: Seconds


class UserLine(KnownFields):
    """What is known of a user since the release: moments in seconds, of each item the latest."""

    model_config = ConfigDict(strict=True)

    user_id: ExternalId
    history: Annotated[list[_Past], FailFast()] = Field(default_factory=list)
    bought: dict[str, Seconds] = Field(default_factory=dict)
    disliked: dict[str, Seconds] = Field(default_factory=dict)
    removed: dict[str, Seconds] = Field(default_factory=dict)

    @field_validator("bought", "disliked", "removed", mode="before")
    @classmethod
    def _moments(cls, sent: Any) -> Any:
        # Thousands of wrong ones would cost thousands of complaints, and the first is the one that is told.
        for item_id, moment in sent.items() if isinstance(sent, dict) else ():
            if not isinstance(moment, (int, float)) or isinstance(moment, bool):
                raise ValueError(f"{item_id[:40]!r} has no number of seconds")
        return sent


def user_lines(user_id: str, record: UserRecord) -> Iterator[dict[str, Any]]:
    """A user's state as lines that can be read in again: several where there is too much of it for one.

    A purchase stays in one line with the entry of the history that it made; else it would be read as a view as well.
    """
    line, size = _no_line(user_id), 0
    for part in _parts(record):
        more = sum(len(orjson.dumps(item)) + _MOMENT_BYTES for _, item, _ in part)
        if size and size + more > LINE_BYTES:
            yield _in_order(line)
            line, size = _no_line(user_id), 0
        size += more
        for field, item, moment in part:
            if field == _HISTORY:
                line[field].append({"item_id": item, "timestamp": moment})
            else:
                line[field][item] = moment
    yield _in_order(line)


def _parts(record: UserRecord) -> Iterator[list[tuple[str, str, float | None]]]:
    """What must stand in one line, as (field, item_id, moment)."""
    purchases = {(item, mark.bought) for item, mark in record.marks.items() if mark.bought is not None}
    made = {entry[:2] for entry in record.history} & purchases
    for item, mark in record.marks.items():
        part = [(field, item, moment) for field, moment in mark._asdict().items() if moment is not None]
        yield part + ([(_HISTORY, item, mark.bought)] if (item, mark.bought) in made else [])
    for entry in record.history:
        if entry[:2] not in made:
            yield [(_HISTORY, entry.item_id, entry.timestamp)]


def _no_line(user_id: str) -> dict[str, Any]:
    return {"user_id": user_id, _HISTORY: [], "bought": {}, "disliked": {}, "removed": {}}


def _in_order(line: dict[str, Any]) -> dict[str, Any]:
    line[_HISTORY].sort(key=lambda past: past["timestamp"])
    return line


def events_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The events that bring a user's state about; what a view was before it was written down is not known.

    Raises:
        pydantic.ValidationError: that is no user's line.
    """
    user = UserLine.model_validate(record)
    told: list[tuple[str, str, float]] = [(DISLIKE, item, at) for item, at in user.disliked.items()]
    told += [(REMOVE, item, at) for item, at in user.removed.items()]
    told += [(PURCHASE, item, at) for item, at in user.bought.items()]
    told += [
        (HISTORY, past.item_id, past.timestamp)
        for past in user.history
        if user.bought.get(past.item_id) != past.timestamp
    ]
    return [{"user_id": user.user_id, "item_id": item, "event": kind, "timestamp": at} for kind, item, at in told]
