"""The body of a beacon: events of one browser's session."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, WithJsonSchema, field_validator

from isrf.contract.event_types import plain
from isrf.contract.ids import ExternalId
from isrf.contract.known_fields import KnownFields
from service.state.events import TypeName

MAX_BEACON_BYTES = 64 * 1024
"""What browsers send in one beacon at most."""
MAX_BEACON_EVENTS = 100
SESSION_PATTERN = r"^[A-Za-z0-9_-]{16,64}$"

SessionId = Annotated[
    str,
    Field(
        pattern=SESSION_PATTERN,
        description="The page makes it once, at random, and keeps it: `crypto.randomUUID()`. 16 to 64 letters, "
        "digits, `-` and `_`. Whoever knows it can add to the session.",
    ),
]


BeaconType = Annotated[
    TypeName, WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[A-Za-z][A-Za-z0-9_]*$"})
]
"""What happened; a shop's own words may hold other letters too."""


class BeaconEvent(KnownFields):
    """An event of the browser's session, dated by the service when it arrives."""

    model_config = ConfigDict(strict=True)

    item_id: ExternalId = Field(description="An item of the catalogue; an event on another one is dropped and counted.")
    event: BeaconType = Field(description="view, cart, dislike, …. Required: nothing is taken for a purchase.")
    event_id: ExternalId | None = Field(
        default=None,
        description="Identifies this event among those of its session for 24 hours: it counts once.",
    )
    recommendation_id: str | None = Field(
        default=None, max_length=64, description="From the answer that showed the item; counts a click."
    )

    @field_validator("event")
    @classmethod
    def _is_named(cls, event: str) -> str:
        if not plain(event):
            raise ValueError("name what happened: view, cart, …")
        return event


class Beacon(KnownFields):
    """Events of one session, oldest first. It can name no user."""

    model_config = ConfigDict(strict=True)

    session_id: SessionId
    events: Annotated[list[BeaconEvent], Field(min_length=1, max_length=MAX_BEACON_EVENTS)]


def whole_body_of(schema: dict[str, Any], *media_types: str) -> dict[str, Any]:
    """What a route documents that reads its body itself, as a whole."""
    return {"requestBody": {"required": True, "content": {name: {"schema": schema} for name in media_types}}}
