"""An accepted event as one compact JSON array: as streams and the embedded store keep it, and offline reads it back."""

import orjson

from isrf.contract.errors import StoreError
from isrf.contract.event_log import StoredEvent
from service.state.events import Event

KEPT_FIELDS = len(StoredEvent._fields)
_TYPES = [[str, str, str, str, at, bool, str, accepted] for at in (float, int) for accepted in (float, int)]


def encode(event: Event) -> bytes:
    """Returns an event as a JSON array."""
    return orjson.dumps(event[:KEPT_FIELDS])


def around_timestamp(event: Event) -> tuple[bytes, bytes]:
    """Returns the parts of `encode` before and after the timestamp, which the store may have to assign."""
    before, after = orjson.dumps(event[:4]), orjson.dumps(event[5:KEPT_FIELDS])
    return before[:-1] + b",", b"," + after[1:]


def decode(payload: bytes) -> Event:
    """Reads an encoded event; raises `StoreError` where `encode` did not write it."""
    try:
        fields = orjson.loads(payload)
        event = Event(*fields)
        if len(fields) != KEPT_FIELDS or [type(field) for field in fields] not in _TYPES:
            raise TypeError("not an event's fields")
        return event
    except (orjson.JSONDecodeError, TypeError) as error:
        raise StoreError(
            "store.journal_corrupt",
            f"a stored event cannot be read: {error}.",
            fix="Restore the journal from a backup.",
        ) from None
