"""Users' state as lines: out as it stands, in as the events that make it."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.identifiers import ExternalId
from service.state.events import Seconds
from service.state.store import UserRecord

PURCHASE, VIEW, DISLIKE, REMOVE = "purchase", "view", "dislike", "remove"


class _Past(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    item_id: ExternalId
    timestamp: Seconds


class UserLine(BaseModel):
    """What is known of a user since the release: moments in seconds, of each item the latest."""

    model_config = ConfigDict(extra="forbid", strict=True)

    user_id: ExternalId
    history: list[_Past] = Field(default_factory=list)
    bought: dict[str, Seconds] = Field(default_factory=dict)
    disliked: dict[str, Seconds] = Field(default_factory=dict)
    removed: dict[str, Seconds] = Field(default_factory=dict)


def user_line(user_id: str, record: UserRecord) -> dict[str, Any]:
    """A user's state as a line."""
    marks = record.marks.items()
    return {
        "user_id": user_id,
        "history": [{"item_id": entry.item_id, "timestamp": entry.timestamp} for entry in record.history],
        "bought": {item: mark.bought for item, mark in marks if mark.bought is not None},
        "disliked": {item: mark.disliked for item, mark in marks if mark.disliked is not None},
        "removed": {item: mark.removed for item, mark in marks if mark.removed is not None},
    }


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
        (VIEW, past.item_id, past.timestamp) for past in user.history if user.bought.get(past.item_id) != past.timestamp
    ]
    return [{"user_id": user.user_id, "item_id": item, "event": kind, "timestamp": at} for kind, item, at in told]
