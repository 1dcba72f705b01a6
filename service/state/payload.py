"""An accepted event as one compact JSON array: as streams and the embedded store keep it, and offline reads it back."""

from collections.abc import Sequence

import orjson

from isrf.contract.errors import StoreError
from isrf.contract.event_log import StoredEvent
from service.state.events import Event

KEPT_FIELDS = len(StoredEvent._fields) - 1
"""The fields that an `Event` and its entry share; `StoredEvent.followed` comes after them."""
_TYPES = {(str, str, str, str, at, bool, str, accepted) for at in (float, int) for accepted in (float, int)}
_ONLY_TEXT = {str}


def encode(event: Event, followed: Sequence[str] = ()) -> bytes:
    """Returns an event as a JSON array; `followed` as in `StoredEvent`."""
    return orjson.dumps((*event[:KEPT_FIELDS], followed))


def around_timestamp(event: Event) -> tuple[bytes, bytes]:
    """Returns the parts of `encode` before the timestamp, and from there to the followed items.

    The store may have to assign the timestamp, and finds the items while it writes the event.
    """
    before, after = orjson.dumps(event[:4]), orjson.dumps(event[5:KEPT_FIELDS])
    return before[:-1] + b",", b"," + after[1:-1]


def decode(payload: bytes) -> Event:
    """Reads an encoded event, without what it followed; raises `StoreError` where `encode` did not write it."""
    return Event(*decode_stored(payload)[:KEPT_FIELDS])  # type: ignore[arg-type]


def decode_stored(payload: bytes) -> StoredEvent:
    """Reads an encoded event, with what it followed; raises `StoreError` where `encode` did not write it.

    As `isrf.contract.event_log.read_event`, which every client of the log can use, but several times as fast.
    """
    try:
        fields = orjson.loads(payload)
        followed = fields.pop() if len(fields) > KEPT_FIELDS else []
        if tuple(map(type, fields)) not in _TYPES:
            raise TypeError("not an event's fields")
        if type(followed) is not list or not _ONLY_TEXT.issuperset(map(type, followed)):
            raise TypeError("the items before it are no list of strings")
        return StoredEvent._make([*fields, tuple(followed)])
    except (orjson.JSONDecodeError, TypeError, AttributeError) as error:
        raise StoreError(
            "store.journal_corrupt",
            f"a stored event cannot be read: {error}.",
            fix="Restore the journal from a backup.",
        ) from None
