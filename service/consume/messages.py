"""Turns a Kafka message into the events that it holds. Pure.

A message is an event as `POST /interactions` takes it, or an object with a list `events` of them. An event without an
`event_id` gets the message's place and moment, `topic-partition-offset-milliseconds`, which are the same whenever the
message is read again, and others in a topic that was made anew. One without a `timestamp` gets the message's own, and
microseconds: those of a list by their place in it, so that they keep their order; a single one by the last three digits
of the offset, so that single events of one millisecond keep theirs, but where a thousandth offset lies between them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from isrf.contract.json_object import doubled_name

MAX_MESSAGE_BYTES = 256 * 1024
MAX_EVENTS = 1000
"""Of one message. Their places are the microseconds of a millisecond: there can be no more."""
MAX_DEPTH = 32
"""Levels of lists and objects in a message; the service takes no body that nests deeper."""


class KafkaMessage(NamedTuple):
    topic: str
    partition: int
    offset: int
    timestamp_ms: int  # of the producer or the broker, not above 0 where there is none
    key: bytes | None
    value: bytes | None

    @property
    def place(self) -> str:
        return f"{self.topic}-{self.partition}-{self.offset}"

    @property
    def event_id(self) -> str:
        """The id of an event that has none."""
        return f"{self.place}-{self.timestamp_ms}" if self.timestamp_ms > 0 else self.place


class PoisonError(ValueError):
    """A message that holds no events; its text is the reason, and holds no value of the message."""


def events_of(message: KafkaMessage) -> list[dict[str, Any]]:
    """Returns the events of a message, none of one without a value; raises `PoisonError`."""
    if message.value is None:
        return []
    if len(message.value) > MAX_MESSAGE_BYTES:
        raise PoisonError("too_large")
    try:
        sent = orjson.loads(message.value)
    except ValueError:
        raise PoisonError("malformed_json") from None
    if not isinstance(sent, dict):
        raise PoisonError("not_an_object")
    if _too_deep(message.value, sent):
        raise PoisonError("too_deep")
    if doubled_name(message.value, sent) is not None:
        raise PoisonError("duplicate_name")
    if "events" not in sent:
        return [_event(sent, message, message.event_id, message.offset % 1000)]
    events = sent["events"]
    if len(sent) > 1 or not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise PoisonError("not_events")
    if len(events) > MAX_EVENTS:
        raise PoisonError("too_many_events")
    return [_event(event, message, f"{message.event_id}-{number}", number) for number, event in enumerate(events)]


def _event(sent: Mapping[str, Any], message: KafkaMessage, event_id: str, microseconds: int) -> dict[str, Any]:
    event = dict(sent)
    if event.get("event_id") is None:
        event["event_id"] = event_id
    if event.get("timestamp") is None and message.timestamp_ms > 0:
        event["timestamp"] = message.timestamp_ms / 1000 + microseconds / 1e6
    return event


def _too_deep(text: bytes, parsed: Any) -> bool:
    """Whether a message nests deeper than `MAX_DEPTH`: orjson reads more levels than it writes."""
    if text.count(b"{") + text.count(b"[") <= MAX_DEPTH:
        return False
    level = [parsed]
    for _ in range(MAX_DEPTH):
        # The lists and objects one level further in.
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
